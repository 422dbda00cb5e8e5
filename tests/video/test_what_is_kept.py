"""docs/what-is-kept.md says what the code does: made again here, and compared."""

import difflib

import pytest

from scripts import what_is_kept


@pytest.fixture(scope="module")
def page() -> str:
    return what_is_kept.page()


def test_the_page_is_what_the_code_does(page: str) -> None:
    committed = what_is_kept.PAGE.read_text(encoding="utf-8")
    changes = difflib.unified_diff(committed.splitlines(), page.splitlines(), "committed", "tried", n=0)
    assert committed == page, "run scripts/what_is_kept.py\n" + "\n".join(changes)


@pytest.mark.parametrize("output", what_is_kept.OUTPUTS)
@pytest.mark.parametrize("group", what_is_kept.GROUPS, ids=lambda group: group.title)
def test_nothing_is_lost_in_silence(page: str, group: what_is_kept.Group, output: str) -> None:
    silent = [row.name for row in group.rows if group.cells[row.name, output] == what_is_kept.SILENT]
    assert silent == []


@pytest.mark.parametrize("group", what_is_kept.GROUPS, ids=lambda group: group.title)
def test_no_warning_is_false(page: str, group: what_is_kept.Group) -> None:
    assert [key for key, cell in group.cells.items() if cell.startswith("kept [")] == []


def test_sound_that_is_carried_comes_out_somewhere(page: str) -> None:
    [sound] = [group for group in what_is_kept.GROUPS if group.title == "Sound"]
    homes = (".mkv", ".nut")
    lost = {
        row.name for row in sound.rows if not any(sound.cells[row.name, o].startswith("kept") for o in homes)
    }
    # No output can hold these two, and encoding says so: the warning is that of a stream that is not carried.
    assert lost == {"IMA ADPCM (.avi)", "WMA (.wmv)"}
    for name in lost:
        (number,) = {cell.split("[")[1].rstrip("]") for (row, _), cell in sound.cells.items() if row == name}
        assert f"{number}. `stream N (CODEC audio) is not carried`" in page


@pytest.mark.parametrize(
    ("row", "output", "cell"),
    [
        ("SubRip (.mkv)", ".mp4", "as mov_text"),
        ("SubRip (.mkv)", ".mkv", "kept"),
        ("mov_text (.mp4)", ".mkv", "as subrip"),
        ("mov_text (.mp4)", ".mp4", "kept"),
        ("ASS (.mkv)", ".mkv", "kept"),
        *(
            (f"chapters ({source})", output, "kept")
            for source in (".mkv", ".mp4")
            for output in (".mp4", ".mkv")
        ),
        *(("start at 12 h (.mkv)", output, "0 s") for output in (".mp4", ".mov", ".mkv", ".webm")),
        ("times, variable rate (.mp4)", ".mp4", "exact"),
    ],
)
def test_what_was_promised(page: str, row: str, output: str, cell: str) -> None:
    [found] = [group.cells[row, output] for group in what_is_kept.GROUPS if (row, output) in group.cells]
    assert found.split(" [")[0] == cell
