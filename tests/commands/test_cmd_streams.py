"""Which stream of a source is encoded, and what of its clock and chapters comes back."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from cli_samples import run

from formats import EtkReader


def two_films(path: Path) -> Path:
    """Two video streams of one size that both move: one grows brighter, the other darker."""
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=30, options={"crf": "10", "bf": "0"}) for _ in range(2)]
        out.set_chapters(
            [
                {
                    "id": 0,
                    "start": 0,
                    "end": 100,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "Only one"},
                }
            ]
        )
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(6):
            for number, stream in enumerate(streams):
                level = 40 + 30 * index if number == 0 else 220 - 30 * index
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 30)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def first_level(video: Path) -> float:
    with av.open(str(video)) as container:
        return float(next(container.decode(video=0)).to_ndarray(format="rgb24").mean())


def test_the_stream_asked_for(tmp_path: Path) -> None:
    source = two_films(tmp_path / "in.mkv")
    for number, level in ((0, 40), (1, 220)):
        etk, out = tmp_path / f"{number}.etk", tmp_path / f"{number}.mp4"
        result = run("encode", source, etk, "--stream", number)
        assert result.exit_code == 0, result.stderr
        assert f"stream {1 - number} (h264 video) is not carried" in result.stderr
        assert run("decode", etk, out).exit_code == 0
        assert abs(first_level(out) - level) < 12
        # commands that read the source again take the same stream
        measured = run("stats", etk, "--source", source, "--json")
        assert measured.exit_code == 0, measured.stderr
        thinned = run("thin", etk, tmp_path / f"thin{number}.etk", "--keep", 0.5, "--source", source)
        assert thinned.exit_code == 0, thinned.stderr
        with EtkReader(tmp_path / f"thin{number}.etk") as reader:
            # the other stream is 180 levels away at first: an error of 2
            assert next(reader.blocks()).frame_mse[0] < 1


def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    source = two_films(tmp_path / "in.mkv")
    result = run("encode", source, tmp_path / "out.etk", "--stream", 7)
    assert result.exit_code == 3
    assert result.stderr.strip() == f"elastictok: {source} has no stream 7: it has 2, counted from 0"
    assert not (tmp_path / "out.etk").exists()


def test_chapters_come_back_through_a_file(tmp_path: Path) -> None:
    source = two_films(tmp_path / "in.mkv")
    assert run("encode", source, tmp_path / "in.etk").exit_code == 0
    with EtkReader(tmp_path / "in.etk") as reader:
        assert reader.header.chapters == ((0, 100, "Only one"),)
    assert run("decode", tmp_path / "in.etk", tmp_path / "out.mp4").exit_code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [c["metadata"]["title"] for c in container.chapters()] == ["Only one"]
