"""The odd kinds of `test_video_odd`, in files made on the spot."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from odd_files import (
    Film,
    frame_errors,
    make_film,
    match_packets,
    match_tracks,
    measure,
    misplaced,
    part_errors,
    pass_through,
    same_sound,
    sound_errors,
)

MOST_OUT_OF_SYNC = Fraction(40, 1000)  # seconds
TS_PACKET = 188  # bytes
TS_WRAP = 2**33 / 90000  # seconds until the clock of a transport stream starts again

both = pytest.mark.parametrize("suffix", [".mkv", ".mp4"])


def _pass(path: Path, suffix: str) -> tuple[Film, list[str]]:
    target = path.with_name(f"copy{suffix}")
    _, said = pass_through(path, target)
    return measure(target), said


def _check_whole(source: Film, result: Film) -> None:
    """Every frame at its time, and all the sound in step with it."""
    assert len(result.frames) == len(source.frames)
    assert float(max(frame_errors(source.frames, result.frames))) <= result.tick
    assert misplaced(source, result) == []
    for track, copy in match_tracks(source.sound, result.sound):
        assert copy is not None, f"the {track.codec} stream is gone"
        assert same_sound(track, copy)
        errors = sound_errors(source, result, track, copy)
        assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))


# ---- clocks -----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("offset", [0, 0.6], ids=["the clock starts anew", "the clock goes back by 0.4 s"])
@pytest.mark.parametrize("sound", ["aac", "mp2"])
def test_joined_recordings(tmp_path: Path, sound: str, offset: float, suffix: str) -> None:
    parts = []
    for k in range(2):
        part = make_film(
            tmp_path / f"{k}.ts",
            video="mpeg2video",
            sounds_after=1,
            sound=sound,
            muxer={"output_ts_offset": str(k * offset)},
        )
        parts.append(measure(part))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / f"{k}.ts").read_bytes() for k in range(2)))
    source = measure(joined)
    result, _ = _pass(joined, suffix)
    assert len(source.frames) == len(result.frames) == 50
    assert misplaced(source, result) == []

    packets = len(parts[0].sound[0].payloads)
    assert len(source.sound[0].payloads) == packets + len(parts[1].sound[0].payloads)
    assert same_sound(source.sound[0], result.sound[0])
    for frames, sounds in (
        (slice(0, 25), slice(0, packets)),
        (slice(25, None), slice(packets, None)),
    ):
        errors = part_errors(source, result, frames, sounds)
        assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))

    steps = [float(step) for step in result.steps]
    # At the join the second part may wait for the end of the first one's sound, a few packets of 24 ms.
    assert 0.02 <= steps.pop(24) <= 0.04 + 0.1
    assert all(abs(step - 0.04) <= result.tick for step in steps)


@both
@pytest.mark.parametrize(
    ("container", "offset"),
    [(".ts", 43200.0), (".mkv", 43200.0), (".ts", TS_WRAP - 1.9)],
    ids=["ts, 12 h", "mkv, 12 h", "ts, wraps midway"],
)
def test_a_clock_that_starts_elsewhere(tmp_path: Path, container: str, offset: float, suffix: str) -> None:
    muxer = {"output_ts_offset": f"{offset:.3f}"}
    path = make_film(tmp_path / f"a{container}", sounds_after=1, bf="2", muxer=muxer)
    source = measure(path)
    assert abs(source.frames[0]) > 1
    result, _ = _pass(path, suffix)
    _check_whole(source, result)
    assert abs(float(result.first_time)) <= 0.045


@both
def test_the_streams_keep_their_offset(tmp_path: Path, suffix: str) -> None:
    # The pictures begin 0.4 s after the sound, which is where the result begins.
    path = make_film(
        tmp_path / "a.ts", sounds_after=1, times=range(10, 30), bf="0", muxer={"output_ts_offset": "5"}
    )
    source = measure(path)
    assert float(source.frames[0] - source.first_time) == pytest.approx(0.4, abs=0.03)
    result, _ = _pass(path, suffix)
    _check_whole(source, result)
    assert float(result.frames[0]) == pytest.approx(0.4, abs=0.045)


@both
def test_packets_shorter_than_a_tick(tmp_path: Path, suffix: str) -> None:
    # Half a millisecond each, in ticks of one: two follow each other at the same time.
    path = make_film(tmp_path / "a.mkv", sounds_after=1, sound="pcm_s16le", sound_samples=24)
    source = measure(path)
    times = source.sound[0].times
    assert len(set(times)) < len(times) == 2000
    result, said = _pass(path, suffix)
    assert said == []
    _check_whole(source, result)
    end = [max(b for _, b in film.sound[0].spans) - film.frames[0] for film in (source, result)]
    assert float(end[1]) == pytest.approx(float(end[0]), abs=0.005)


@both
def test_avi_tells_only_the_order_of_decoding(tmp_path: Path, suffix: str) -> None:
    path = make_film(tmp_path / "a.avi", sounds_after=1, sound="libmp3lame", bf="3")
    result, _ = _pass(path, suffix)
    assert len(result.frames) == 25
    assert all(abs(step - Fraction(1, 25)) <= Fraction(1, 1000) for step in result.steps)
    # LAME puts 1105 samples before the first one heard, which went with the first frame.
    offset = result.sound[0].times[0] - result.frames[0]
    assert abs(offset + Fraction(1105, 48000)) <= MOST_OUT_OF_SYNC


# ---- damage -----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("which", [0.3, 0.5, 0.8])
def test_one_lost_packet_of_a_transport_stream(tmp_path: Path, which: float, suffix: str) -> None:
    path = make_film(tmp_path / "a.ts", frames=75, video="mpeg2video", sounds_after=1)
    with av.open(str(path)) as container:
        number = container.streams.audio[0].id
    data = path.read_bytes()
    packets = [data[at : at + TS_PACKET] for at in range(0, len(data), TS_PACKET)]
    # The first of each AAC packet says so in a bit; without one of the others the AAC is too short for its header,
    # and muxers refuse it.
    sound = [k for k, packet in enumerate(packets) if int.from_bytes(packet[1:3], "big") & 0x5FFF == number]
    del packets[sound[int(which * len(sound))]]
    path.write_bytes(b"".join(packets))

    source = measure(path)
    result, said = _pass(path, suffix)
    [track], [copy] = source.sound, result.sound
    assert len(track.payloads) > 130
    kept = len(match_packets(track, copy))
    assert kept >= len(track.payloads) - 3
    missing = len(track.payloads) - kept
    assert not missing or any(re.search(rf"(?i)\b{missing}\b.*packet", text) for text in said), said
    errors = sound_errors(source, result, track, copy)
    assert max(errors) <= MOST_OUT_OF_SYNC, float(max(errors))
    assert len(result.frames) == 75


@both
def test_a_file_cut_short_says_where_it_ends(tmp_path: Path, suffix: str) -> None:
    path = make_film(tmp_path / "a.mp4", frames=75, sounds_after=1, muxer={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    source = measure(path)
    assert 20 < len(source.frames) < 70
    result, said = _pass(path, suffix)
    assert len(result.frames) == len(source.frames)
    [match] = [m for text in said if (m := re.search(r"(?i)ends (?:early )?at (\d+\.?\d*) s of 3", text))]
    assert float(match[1]) == pytest.approx(float(source.frames[-1]), abs=0.1)


# ---- what cannot be kept, and what is found -----------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("container", "options", "pattern"),
    [
        (".webm", {"video": "libvpx-vp9", "pixel_format": "yuva420p"}, "(?i)alpha|transparen"),
        (".mov", {"video": "qtrle", "pixel_format": "argb"}, "(?i)alpha|transparen"),
        (".mkv", {"x264-params": "tff=1"}, "(?i)interlac"),
    ],
    ids=["alpha beside VP9", "alpha in the pixels", "interlaced"],
)
def test_a_loss_is_named(
    tmp_path: Path, container: str, options: dict[str, str], pattern: str, suffix: str
) -> None:
    path = make_film(tmp_path / f"a{container}", frames=5, **options)
    result, said = _pass(path, suffix)
    assert len(result.frames) == 5
    assert any(re.search(pattern, text) for text in said), said


@both
def test_the_stream_that_moves_is_the_film(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        still: Any = out.add_stream("mjpeg", rate=25)
        still.width, still.height, still.pix_fmt = 64, 64, "yuvj420p"
        [cover] = [*still.encode(av.VideoFrame(64, 64, "yuvj420p")), *still.encode(None)]
        cover.pts = cover.dts = 0
        film = make_film(tmp_path / "film.mkv", sounds_after=1, bf="2")
        with av.open(str(film)) as read:
            copies = {s.index: out.add_stream_from_template(s) for s in read.streams}
            out.mux(cover)
            for packet in read.demux():
                if packet.size:
                    packet.stream = copies[packet.stream_index]
                    out.mux(packet)
    source = measure(path, video=1)
    assert len(source.frames) == 25
    result, _ = _pass(path, suffix)
    _check_whole(source, result)


OUTPUTS = [
    *((s, c) for s in (".mp4", ".mkv") for c in ("h264", "hevc", "av1")),
    (".mkv", "ffv1"),
    (".mov", "h264"),
    (".webm", "av1"),
    (".y4m", "h264"),
]


@pytest.mark.parametrize(("suffix", "codec"), OUTPUTS)
@pytest.mark.parametrize("kind", ["in the codec", "in the container"])
def test_the_sample_aspect_is_read_and_written(
    tmp_path: Path, kind: str, suffix: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVT_LOG", "1")  # errors only: its banner goes to stderr otherwise
    aspect = Fraction(64, 45)

    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    if kind == "in the codec":
        path = make_film(tmp_path / "a.mp4", frames=3, prepare=prepare)
    else:
        options = {"video": "prores_ks", "pixel_format": "yuv422p10le"}
        path = make_film(tmp_path / "a.mov", frames=3, prepare=prepare, **options)
    assert measure(path).aspect == aspect
    target = tmp_path / f"copy{suffix}"
    pass_through(path, target, codec=codec, lossless=codec == "ffv1")
    assert measure(target).aspect == aspect
