"""Odd files, and clean ones of every shape: each frame, each time, each bit of sound, or a word about the loss.

Every file goes through VideoReader and VideoWriter to MP4 and Matroska. `odd_files.measure`, which knows nothing of
the product, then says what is in the source and what is in the result.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import av
import numpy as np
import pytest
from odd_files import (
    FIXTURES,
    Film,
    Track,
    flat_parts,
    frame_errors,
    make_film,
    make_patches,
    match_packets,
    match_tracks,
    measure,
    misplaced,
    part_errors,
    pass_through,
    plain_text,
    planes,
    same_sound,
    sound_errors,
)

from elastictok_cli.video import UnreadableVideo, VideoReader

MOST_OUT_OF_SYNC = Fraction(40, 1000)  # seconds
START = Fraction(45, 1000)  # seconds from zero at which a result may begin: about one frame
OUTPUTS = (".mkv", ".mp4")


@dataclass(frozen=True)
class Row:
    """What one odd file must give.

    `frames` is the number of frames that decode, `sounds` that of its sound streams, `video` the index of the
    film's stream. `times` are the right frame times where the file's own are wrong, `first` is when the first
    frame is due on the clock of the sound where the file does not say. `says` are patterns, each of which some
    warning must match. `dropped` are the sound and subtitles that an output may leave out if a warning matches the
    pattern. `lost` is how many packets of sound a damaged file may lose, if a warning gives their number.
    """

    name: str
    frames: int
    sounds: int = 1
    video: int = 0
    times: tuple[Fraction, ...] = ()
    first: Fraction | None = None
    says: tuple[str, ...] = ()
    dropped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lost: int = 0
    quiet: bool = False
    broken_clock: bool = False


def _steady(count: int, step: Fraction) -> tuple[Fraction, ...]:
    return tuple(k * step for k in range(count))


ROWS = {
    row.name: row
    for row in (
        Row(
            "adpcm_ms.mkv",
            15,
            dropped=dict.fromkeys(
                (".mp4", ".mkv"), MappingProxyType({"adpcm_ms": r"adpcm_ms.*\.nut files can"})
            ),
        ),
        Row("alpha.webm", 5, 0, says=("(?i)alpha|transparen",)),
        # Two pictures for readers without animation come first, then the film, each with its transparency.
        Row("anim.avif", 5, 0, video=2, says=("(?i)alpha|transparen",)),
        Row("audio_first.mp4", 25, video=1, quiet=True),
        Row("back05.ts", 40, broken_clock=True),
        Row("base.mp4", 75, quiet=True),
        Row(
            "chapters_font_subs.mkv",
            75,
            3,
            # MP4's only text is mov_text: SRT fits into it, the styles of ASS do not.
            dropped={".mp4": {"ass": "(?i)ass"}},
        ),
        Row("cover_first.mkv", 75, video=1, says=("(?i)mjpeg|jpeg|cover",)),
        # The table of contents speaks of 75; 41 of them, and of 142 packets of sound 75, are in the file.
        Row("cut_fast.mp4", 41, says=(r"(?i)ends (early )?at 1\.[5-7]\d* s of 3",)),
        # Decoding order is 0, 0.04, 0.08...; AVI says nothing else. The sound begins at 0 with the 1024 samples that
        # every AAC encoder puts before the first one heard, which goes with the first frame.
        Row("h264_bframes.avi", 75, times=_steady(75, Fraction(1, 25)), first=Fraction(1024, 48000)),
        Row("interlaced.ts", 25, 0, says=("(?i)interlac",)),
        Row("join_reset.ts", 35, broken_clock=True),
        Row(
            "latm.ts",
            15,
            dropped=dict.fromkeys((".mp4", ".mkv"), MappingProxyType({"aac_latm": r"latm.*\.nut files can"})),
        ),
        # Packet 63 lacks the 188 bytes with its header; packet 62 has its own, and may go or stay.
        Row("lost1.ts", 40, lost=3),
        Row("one.png", 1, 0, quiet=True),
        Row("one_frame_audio.mkv", 1, quiet=True),
        Row("sar_both.mp4", 6, 0, quiet=True),
        Row("sar_pasp.mp4", 6, 0, quiet=True),
        Row("sar_prores.mov", 6, 0),
        Row("start_12h.ts", 75),
        Row("start_neg_part.ts", 75),
        # 15 pictures; the 34 packets between them only say that the last one stays.
        Row("theora_dup.ogv", 15, 0, quiet=True),
        Row("truehd.mkv", 30, dropped={".mp4": {"truehd": "truehd"}}),
        Row("untagged_720.mp4", 4, 0, quiet=True),
    )
}
ASPECTS = {"sar_pasp.mp4": (116, 81), "sar_both.mp4": (64, 45), "sar_prores.mov": (64, 45)}


@dataclass(frozen=True, repr=False)
class Passed:
    """A source, what came of it, and all that was said."""

    source: Film
    result: Film
    said: list[str]
    path: Path

    def matches(self, pattern: str) -> bool:
        return any(re.search(pattern, text) for text in self.said)


_work = TemporaryDirectory(prefix="elastictok-odd-")


@cache
def _source(name: str) -> Film:
    return measure(FIXTURES / name, ROWS[name].video)


@cache
def _passed(name: str, suffix: str) -> Passed:
    target = Path(_work.name) / (name + suffix)
    _, said = pass_through(FIXTURES / name, target)
    return Passed(_source(name), measure(target), said, target)


def _every(*names: str, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    chosen = [name for name in (names or ROWS) if name not in without]
    return pytest.mark.parametrize(
        ("name", "suffix"), [pytest.param(n, s, id=f"{n}-{s[1:]}") for n in chosen for s in OUTPUTS]
    )


BROKEN = tuple(name for name, row in ROWS.items() if row.broken_clock)
WITH_SOUND = tuple(name for name, row in ROWS.items() if row.sounds)


# ---- the files, in every respect --------------------------------------------------------------------------------


def test_every_sample_has_a_row() -> None:
    files = {path.name for path in FIXTURES.iterdir()} - {"README.md", "anim.webp"}
    assert files == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_row_agrees_with_the_file(name: str) -> None:
    assert len(_source(name).thumbnails) == ROWS[name].frames
    assert len(_source(name).sound) == ROWS[name].sounds


@_every()
def test_every_frame_is_there_in_order(name: str, suffix: str) -> None:
    passed = _passed(name, suffix)
    assert len(passed.result.frames) == ROWS[name].frames
    assert passed.result.undecodable == 0
    assert misplaced(passed.source, passed.result) == []


@_every(without=BROKEN)
def test_every_time_is_within_a_tick(name: str, suffix: str) -> None:
    passed = _passed(name, suffix)
    right = ROWS[name].times or passed.source.frames
    assert len(passed.result.frames) == len(right)
    assert float(max(frame_errors(right, passed.result.frames))) <= passed.result.tick


@_every()
def test_the_result_begins_at_zero(name: str, suffix: str) -> None:
    assert abs(float(_passed(name, suffix).result.first_time)) <= START


@_every(*WITH_SOUND)
def test_the_sound_is_there_bit_for_bit(name: str, suffix: str) -> None:
    passed, row = _passed(name, suffix), ROWS[name]
    for track, copy in match_tracks(passed.source.sound, passed.result.sound):
        if copy is None:
            pattern = row.dropped.get(suffix, {}).get(track.codec)
            assert pattern is not None, f"the {track.codec} stream is gone; said: {passed.said}"
            assert passed.matches(pattern)
        elif row.lost:
            kept = len(match_packets(track, copy))
            assert kept >= len(track.payloads) - row.lost
            assert kept == len(copy.payloads)
            missing = len(track.payloads) - kept
            assert not missing or passed.matches(rf"(?i)\b{missing}\b.*packet"), passed.said
        else:
            assert len(copy.payloads) == len(track.payloads) or track.codec.startswith("pcm_")
            assert same_sound(track, copy)


@_every(*WITH_SOUND, without=BROKEN)
def test_sound_and_pictures_are_in_step(name: str, suffix: str) -> None:
    passed = _passed(name, suffix)
    source = passed.source
    if ROWS[name].first is not None:
        source = replace(source, frames=[ROWS[name].first, *source.frames[1:]])
    for track, copy in match_tracks(source.sound, passed.result.sound):
        if copy is None:
            assert passed.matches(ROWS[name].dropped.get(suffix, {}).get(track.codec, "no way"))
            continue
        errors = sound_errors(source, passed.result, track, copy)
        assert len(errors) >= len(track.payloads) - ROWS[name].lost
        assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))


@_every(*WITH_SOUND)
def test_the_sound_moves_on_with_every_packet(name: str, suffix: str) -> None:
    for track in _passed(name, suffix).result.sound:
        times = [time for time in track.times if time is not None]
        assert len(times) == len(track.times)
        assert all(a <= b for a, b in pairwise(times))


@_every(*(name for name, row in ROWS.items() if row.says))
def test_a_loss_is_named(name: str, suffix: str) -> None:
    passed = _passed(name, suffix)
    for pattern in ROWS[name].says:
        assert passed.matches(pattern), passed.said


@_every(*(name for name, row in ROWS.items() if row.quiet))
def test_nothing_is_said_where_nothing_is_lost(name: str, suffix: str) -> None:
    assert _passed(name, suffix).said == []


@_every()
def test_the_sample_aspect_is_kept(name: str, suffix: str) -> None:
    passed = _passed(name, suffix)
    assert passed.source.aspect == Fraction(*ASPECTS.get(name, (1, 1)))
    assert passed.result.aspect == passed.source.aspect


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_the_last_frame_stays_as_long(suffix: str) -> None:
    passed = _passed("anim.avif", suffix)
    assert float(passed.source.last_duration) == 1.5
    length = passed.result.last_duration
    if suffix == ".mp4":
        # FFmpeg reads lengths in the order of decoding. What holds is the edit list (ISO/IEC 14496-12, 8.6.6).
        data = passed.path.read_bytes()
        at = data.index(b"elst") + 12
        length = Fraction(int.from_bytes(data[at : at + 4], "big"), 1000) - passed.result.frames[-1]
    assert float(length) == pytest.approx(1.5, abs=0.002)


# ---- broken clocks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Join:
    """Where a recording's clock goes back: the number of the first frame and of the first packet behind it.

    `most_step` (seconds) is the most that the frame at the join may wait: until the sound before it has ended.
    """

    frame: int
    packet: int
    most_step: float


# join_reset: frames end at 3.5 s, the sound of the first part at 4.106; both start anew at 1.5.
# back05: frames end at 3.5, sound at 3.506; both go on at 2.9 and 2.879.
JOINS = {"join_reset.ts": Join(20, 109, 0.1 + 0.65), "back05.ts": Join(20, 95, 0.1 + 0.05)}


@_every(*JOINS)
def test_the_clock_of_a_joined_recording_moves_for_all_streams(name: str, suffix: str) -> None:
    passed, join = _passed(name, suffix), JOINS[name]
    for frames, packets in (
        (slice(0, join.frame), slice(0, join.packet)),
        (slice(join.frame, None), slice(join.packet, None)),
    ):
        errors = part_errors(passed.source, passed.result, frames, packets)
        assert len(errors) == len(passed.source.sound[0].payloads[packets])
        assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))


@_every(*JOINS)
def test_frames_of_a_joined_recording_keep_their_distance(name: str, suffix: str) -> None:
    passed, join = _passed(name, suffix), JOINS[name]
    steps = passed.result.steps
    at_join = steps.pop(join.frame - 1)
    assert len(steps) == ROWS[name].frames - 2
    assert max(abs(step - Fraction(1, 10)) for step in steps) <= passed.result.tick
    assert 0.05 <= at_join <= join.most_step


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", ["start_12h.ts", "start_neg_part.ts"])
def test_a_clock_that_starts_elsewhere_does_not_lengthen_the_film(name: str, suffix: str) -> None:
    target = Path(_work.name) / f"length-{name}{suffix}"
    pass_through(FIXTURES / name, target)
    with av.open(str(target)) as container:
        assert 2.9 <= container.duration / av.time_base <= 3.15


def test_true_hd_packets_closer_than_a_tick_keep_their_length() -> None:
    [track] = _passed("truehd.mkv", ".mkv").result.sound
    assert len(track.times) == 3600
    assert track.times[-1] - track.times[0] == pytest.approx(2.999, abs=0.002)


# ---- what else travels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_chapters_travel(suffix: str) -> None:
    result = _passed("chapters_font_subs.mkv", suffix).result
    assert [title for _, _, title in result.chapters] == ["One", "Two"]
    first = result.frames[0] - _source("chapters_font_subs.mkv").frames[0]
    for (start, _, _), right in zip(result.chapters, (0, 1), strict=True):
        assert start == pytest.approx(right + float(first), abs=0.002)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_fonts_travel_or_are_named(suffix: str) -> None:
    passed = _passed("chapters_font_subs.mkv", suffix)
    assert passed.result.attachments == ["f.ttf"] or passed.matches(r"(?i)font|attach|f\.ttf")


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_subtitles_travel_or_are_named(suffix: str) -> None:
    passed = _passed("chapters_font_subs.mkv", suffix)
    [srt, ass] = passed.source.subtitles
    shown = {plain_text(track): track for track in passed.result.subtitles}
    assert plain_text(srt) in shown, [track.codec for track in passed.result.subtitles]
    _same_times(passed, srt, shown[plain_text(srt)])
    if suffix == ".mp4" and plain_text(ass) not in shown:
        assert passed.matches(r"(?i)\bass\b")
    else:
        _same_times(passed, ass, shown[plain_text(ass)])


def _same_times(passed: Passed, track: Track, copy: Track) -> None:
    def seconds(film: Film, which: Track) -> list[tuple[float, float]]:
        return [(float(a - film.frames[0]), float(b - film.frames[0])) for a, b in which.spans]

    wanted, found = seconds(passed.source, track), seconds(passed.result, copy)
    assert [a for a, _ in found] == pytest.approx([a for a, _ in wanted], abs=0.04)
    for k, ((_, right), (_, end)) in enumerate(zip(wanted, found, strict=True)):
        # MP4 shows one text at a time: the next one ends it.
        cut = wanted[k + 1][0] if copy.codec == "mov_text" and k + 1 < len(wanted) else right
        assert end == pytest.approx(min(right, cut), abs=0.04)


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("source", ["the sample", 480, 576, 720, 1080])
def test_untagged_colour_comes_out_as_a_player_shows_it(
    source: str | int, suffix: str, tmp_path: Path
) -> None:
    # Players guess the matrix of an untagged film from its size, once for the source and once for the result:
    # both look alike only if the stored samples do and the result says what they would have guessed.
    height = source if isinstance(source, int) else 720
    path = tmp_path / "flat.mp4" if isinstance(source, int) else FIXTURES / "untagged_720.mp4"
    if isinstance(source, int):
        make_patches(path, height)
    target = tmp_path / f"copy{suffix}"
    pass_through(path, target)
    assert measure(path).color["colorspace"] == 2
    assert measure(target).color["colorspace"] in (2, *((1,) if height >= 720 else (5, 6)))
    for before, after in zip(planes(path), planes(target), strict=True):
        # Only where the picture is flat: edges move with every encoding.
        flat = flat_parts(before)
        assert flat.mean() > 0.5
        # The sample's colours are beyond those of RGB in places, and are clipped there.
        assert np.abs(before - after)[flat].mean() <= (1.5 if isinstance(source, int) else 3)


def test_an_animated_webp_says_why_it_cannot_be_read() -> None:
    with pytest.raises(UnreadableVideo) as caught:
        VideoReader(FIXTURES / "anim.webp")
    assert re.search(r"(?i)animated.*webp|webp.*animat", str(caught.value))


# ---- pipes ------------------------------------------------------------------------------------------------------

_READ = """
import sys
from elastictok_cli.video import VideoError, VideoReader
try:
    with VideoReader(sys.argv[1]) as reader:
        print(len(list(reader)), *reader.warnings)
except VideoError as error:
    print("error:", error)
"""


def _read_elsewhere(source: str, data: bytes | None = None) -> str:
    """What another process says of a source; the process is given up after 20 seconds."""
    return subprocess.run(
        [sys.executable, "-c", _READ, source],
        input=data,
        capture_output=True,
        timeout=20,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout.decode()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_picture_from_a_named_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "one.png"
    os.mkfifo(pipe)
    feeder = threading.Thread(
        target=pipe.write_bytes, args=((FIXTURES / "one.png").read_bytes(),), daemon=True
    )
    feeder.start()
    try:
        assert _read_elsewhere(str(pipe)).split() == ["1"]
    finally:
        # Lets the feeder go if nobody ever read.
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        feeder.join(timeout=5)


def test_an_mp4_with_its_index_last_says_what_to_do_when_it_is_piped() -> None:
    said = _read_elsewhere("-", (FIXTURES / "base.mp4").read_bytes())
    assert said.startswith(("error:", "75"))
    assert said.split() == ["75"] or re.search(r"(?i)index|name the file", said), said


# ---- clean files of every shape ---------------------------------------------------------------------------------

CODECS = {
    "h264": ("libx264", {"bf": "3"}),
    "hevc": ("libx265", {"x265-params": "log-level=none:bframes=4"}),
    "vp9": ("libvpx-vp9", {"lag-in-frames": "12", "auto-alt-ref": "1"}),
    "av1": ("libsvtav1", {"preset": "10"}),
    "mpeg4": ("mpeg4", {"bf": "2"}),
}
LAYOUTS = {"video first": (0, 1), "video second": (1, 0), "video third": (2, 0), "video between": (1, 1)}


@cache
def _clean(codec: str, layout: str, suffix: str) -> tuple[Path, Film]:
    name, options = CODECS[codec]
    os.environ.setdefault("SVT_LOG", "1")  # errors only: its banner goes to stderr otherwise
    before, after = LAYOUTS[layout]
    path = Path(_work.name) / f"clean {codec} {layout}{suffix}"
    make_film(path, video=name, sounds_before=before, sounds_after=after, **options)
    return path, measure(path)


@pytest.mark.parametrize("codec", CODECS)
def test_the_ruler_itself_sees_every_frame(codec: str) -> None:
    for suffix in OUTPUTS:
        for layout in LAYOUTS:
            film = _clean(codec, layout, suffix)[1]
            assert film.frames == [Fraction(k, 25) for k in range(25)]
            assert len(film.sound) == sum(LAYOUTS[layout])
            assert all(len(track.payloads) >= 47 for track in film.sound)
            assert misplaced(film, film) == []
            # And it is no mirror: a shuffled film is found out.
            shuffled = replace(film, thumbnails=film.thumbnails[::-1])
            assert len(misplaced(film, shuffled)) > 15


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", CODECS)
def test_a_clean_film_arrives_whole(codec: str, layout: str, suffix: str) -> None:
    path, source = _clean(codec, layout, suffix)
    target = path.with_name(f"copy of {path.name}")
    _, said = pass_through(path, target)
    result = measure(target)
    assert said == []
    assert len(result.frames) == 25
    assert max(frame_errors(source.frames, result.frames)) <= result.tick
    assert misplaced(source, result) == []
    for track, copy in match_tracks(source.sound, result.sound):
        assert copy is not None
        assert same_sound(track, copy)
        errors = sound_errors(source, result, track, copy)
        assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))


# Seconds from the first frame, and how many: in the middle, from the start, to the very end, and the last frame.
WINDOWS = {"middle": (0.32, 0.4), "head": (0, 0.48), "tail": (0.6, 0.4), "last": (0.96, 1.0)}


@pytest.mark.parametrize("by", ["encode", "decode"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("layout", ["video first", "video second", "video third"])
@pytest.mark.parametrize("codec", [name for name in CODECS if name != "mpeg4"])
def test_a_window_of_a_clean_film_arrives_whole(codec: str, layout: str, window: str, by: str) -> None:
    path, source = _clean(codec, layout, ".mp4")
    target = path.with_name(f"{by} {window} of {path.name}")
    start, duration = WINDOWS[window]
    low, high = Fraction(str(start)), Fraction(str(start)) + Fraction(str(duration))
    if by == "encode":
        _, said = pass_through(path, target, start=start, duration=duration)
    else:
        _, said = pass_through(path, target, decode_window=(low, high - low))
    result = measure(target)
    assert said == []

    wanted = [k for k, time in enumerate(source.frames) if low <= time - source.frames[0] < high]
    part = replace(source, frames=[source.frames[k] for k in wanted], thumbnails=source.thumbnails[wanted])
    assert len(result.frames) == len(wanted)
    assert max(frame_errors(part.frames, result.frames)) <= result.tick
    assert misplaced(part, result) == []

    base = source.frames[0]
    for track, copy in match_tracks(source.sound, result.sound):
        assert copy is not None
        heard = [k for k, (begin, end) in enumerate(track.spans) if end > base + low and begin < base + high]
        assert [track.payloads[k] for k in heard] == copy.payloads
        errors = sound_errors(part, result, track, copy)
        assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))
