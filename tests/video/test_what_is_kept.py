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


def test_sound_that_is_carried_comes_out_of_matroska(page: str) -> None:
    [sound] = [group for group in what_is_kept.GROUPS if group.title == "Sound"]
    lost = [row.name for row in sound.rows if sound.cells[row.name, ".mkv"] != "kept"]
    assert lost == []
