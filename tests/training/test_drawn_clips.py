"""Clips of screens for training: scripts/draw_graphics.py and what it draws with."""

import random
import subprocess
import sys
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from scripts.drawing_kinds import HELD_OUT, KINDS, TRAINED, ClipOptions, Fonts, draw_clip, kind_of, wear
from scripts.drawing_kinds.motion import MAX_WHEEL_STEP, _wheel, scrolled

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FRAMES = 160, 120, 12


def options(**changes: object) -> ClipOptions:
    return replace(ClipOptions(width=WIDTH, height=HEIGHT, frames=FRAMES), **changes)  # type: ignore[arg-type]


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "draw_graphics.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_clips_that_move_and_have_the_asked_size(kind: str) -> None:
    still = 0
    for number in range(6):
        pictures = draw_clip(options(kinds=(kind,)), number)
        assert len(pictures) == FRAMES
        assert {(p.shape, p.dtype.name) for p in pictures} == {((HEIGHT, WIDTH, 3), "uint8")}
        assert np.std(pictures[-1]) > 1
        still += all(np.array_equal(pictures[0], picture) for picture in pictures)
    assert still <= 1  # screens may wait for a while, but seldom


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_follows_from_seed_number_and_options_alone(kind: str) -> None:
    drawn = [draw_clip(options(kinds=(kind,), worn=1.0), number) for number in (1, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], draw_clip(options(kinds=(kind,), worn=1.0, seed=2), 1))


def test_each_round_has_every_kind_once_and_none_that_is_held_out() -> None:
    names = [kind_of(options(), number) for number in range(3 * len(TRAINED))]
    rounds = [names[n : n + len(TRAINED)] for n in range(0, len(names), len(TRAINED))]
    assert all(sorted(names) == sorted(TRAINED) for names in rounds)
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]
    assert len(HELD_OUT) >= 3
    assert sorted((*TRAINED, *HELD_OUT)) == sorted(KINDS)


def test_wear_changes_little_and_keeps_size_and_count() -> None:
    clean = draw_clip(options(kinds=("editor",), width=131, height=97, worn=0.0), 0)
    assert np.array_equal(clean, draw_clip(options(kinds=("editor",), width=131, height=97, worn=0.0), 0))
    rng = random.Random(1)
    for way in (wear.subsampled, wear.jpeg, wear.h264):
        worn = way(rng, clean)
        assert [p.shape for p in worn] == [p.shape for p in clean]
        error = np.abs(np.stack(worn).astype(float) - np.stack(clean)).mean()
        assert 0 < error < 12, way.__name__


def test_pages_are_scrolled_by_whole_pixels_within_their_reach() -> None:
    bursts = [step for seed in range(40) for step in islice(_wheel(random.Random(seed)), 60)]
    assert max(bursts) == MAX_WHEEL_STEP
    assert len(set(bursts)) == MAX_WHEEL_STEP + 1
    steps = []
    for seed in range(40):
        tops = scrolled(random.Random(seed), 60, 300)
        assert all(isinstance(top, int) and 0 <= top <= 300 for top in tops)
        steps += [abs(b - a) for a, b in pairwise(tops)]
    assert {0, 1, 2, 8} <= set(steps)


def test_fonts_for_text_have_all_letters_and_more_fonts_can_be_given(tmp_path: Path) -> None:
    fonts = Fonts.found(None)
    names = {path.stem for path in fonts.text}
    assert {"DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "cmr10", "cmtt10"} <= names
    assert {"DejaVuSansMono", "cmtt10"} <= {path.stem for path in fonts.mono}
    assert "DejaVuSans" not in {path.stem for path in fonts.mono}
    assert "cmsy10" in {path.stem for path in fonts.symbols}
    with pytest.raises(ValueError, match=r"no \.ttf or \.otf file"):
        Fonts.found(tmp_path)
    mine = tmp_path / "mine.ttf"
    mine.write_bytes(fonts.text[0].read_bytes())
    assert mine in Fonts.found(tmp_path).text


def test_captions_lie_over_the_clips_that_are_given(tmp_path: Path) -> None:
    red = np.full((48, 64, 3), (200, 20, 20), np.uint8)
    wear.write(tmp_path / "red.mkv", [red] * 3)
    drawn = draw_clip(options(kinds=("captions",), backgrounds=(tmp_path / "red.mkv",), worn=0.0), 0)
    assert len(drawn) == FRAMES
    near_red = np.abs(np.stack(drawn).astype(int) - (200, 20, 20)).max(-1) < 3
    assert near_red.mean() > 0.3


def test_the_script_writes_lossless_clips_of_the_asked_size(tmp_path: Path) -> None:
    common = ("--width", WIDTH, "--height", HEIGHT, "--frames", 4, "--count", 3, "--kinds", "terminal,menus")
    for folder, jobs in (("one", 1), ("two", 2)):
        done = script(tmp_path / folder, *common, "--jobs", jobs)
        assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == 3
    asked = options(frames=4, kinds=("terminal", "menus"))
    for number in range(3):
        name = f"{kind_of(asked, number)}-1-{number:04}.mkv"
        with av.open(str(tmp_path / "one" / name)) as container:
            read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        np.testing.assert_array_equal(read, draw_clip(asked, number))
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_kinds_that_are_held_out_are_drawn_only_on_request(tmp_path: Path) -> None:
    small = ("--side", 64, "--frames", 2)
    assert script(tmp_path / "val", "--held-out", "--count", len(HELD_OUT), *small).returncode == 0
    kinds = {path.name.rsplit("-", 2)[0] for path in (tmp_path / "val").iterdir()}
    assert kinds == set(HELD_OUT)
    for arguments, complaint in (
        (("--kinds", HELD_OUT[0]), "needs --held-out"),
        (("--kinds", "editor", "--held-out"), "editor is not held out"),
        (("--kinds", "poems"), "there is no kind 'poems'"),
        (("--exclude-kinds", "poems"), "there is no kind 'poems'"),
        (("--kinds", "editor", "--exclude-kinds", "editor"), "no kind is left"),
        (("--side", 8), "not within 64 and"),
        (("--worn", "nan"), "not within 0 and 1"),
        (("--fonts", tmp_path / "none"), "no .ttf or .otf file"),
        (("--backgrounds", tmp_path / "none"), "no videos below"),
    ):
        refused = script(tmp_path / "none", *arguments)
        assert refused.returncode == 2
        assert complaint in refused.stderr, refused.stderr
    assert not (tmp_path / "none").exists()
