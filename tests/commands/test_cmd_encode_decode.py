import os
import re
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from cli_samples import COUNT, SIZE, flip, frame_count, json_lines, packets, pictures, run, start

from elastictok_cli.analysis import units
from elastictok_cli.commands.console import Display
from elastictok_cli.models import checkpoint
from elastictok_cli.video.pictures import PictureEncoder
from formats import EtkReader


def test_round_trip_keeps_frames_times_size_and_sound(clip: Path, tmp_path: Path) -> None:
    etk, back = tmp_path / "out.etk", tmp_path / "back.mkv"
    encoded = run("encode", clip, etk, "--mse", 0.01)
    assert encoded.exit_code == 0, encoded.stderr
    assert encoded.stdout == ""
    for word in (f"{COUNT} frames", "of the source", "tokens", "of a full block", "dB", "fps"):
        assert word in encoded.stderr
    decoded = run("decode", etk, back, "--lossless")
    assert decoded.exit_code == 0, decoded.stderr
    assert decoded.stdout == ""
    before, after = pictures(clip), pictures(back)
    assert len(after) == len(before) == COUNT
    assert after[0][1].shape == (SIZE[1], SIZE[0], 3)
    assert [round(1000 * float(t)) for t, _ in after] == [round(1000 * float(t)) for t, _ in before]
    assert [name for _, name in packets(back)] == [name for _, name in packets(clip)]
    with EtkReader(etk) as reader:
        blocks = list(reader.blocks())
    first = 0
    for block in blocks:
        span = slice(first, first + len(block.pts))
        errors = [
            np.mean((a[1].astype(np.float64) - b[1]) ** 2) / 127.5**2
            for a, b in zip(before[span], after[span], strict=True)
        ]
        assert np.allclose(errors, block.frame_mse, rtol=1e-2)
        assert block.missed or np.mean(errors) <= 0.01
        first = span.stop


def test_output_names_come_from_the_input(clip: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(clip, tmp_path / "a.mov"))
    assert run("encode", source, "--tokens", 1, "-q").exit_code == 0
    assert run("decode", tmp_path / "a.etk", "-q").exit_code == 0
    assert run("decode", tmp_path / "a.etk", "-q", "--codec", "ffv1").exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"a.mov", "a.etk", "a.mp4", "a.mkv"}


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    for folder in (".", tmp_path):
        for verb in ("encode", "report"):
            done = run(verb, folder)
            assert (done.exit_code, done.stderr) == (3, f"elastictok: {folder} is a folder, not a file\n")


def test_webm_gets_a_codec_that_it_holds(etk: Path, tmp_path: Path) -> None:
    assert run("decode", etk, tmp_path / "a.webm", "-q").exit_code == 0
    with av.open(tmp_path / "a.webm") as video:
        assert video.streams.video[0].codec_context.name in ("libdav1d", "av1", "libaom-av1")


def test_a_picture_becomes_a_picture(etk: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    assert run("decode", etk, still, "--duration", 0.01).exit_code == 0
    assert run("encode", still, "--tokens", 3).exit_code == 0
    still.unlink()
    assert run("decode", tmp_path / "still.etk").exit_code == 0
    assert pictures(still)[0][1].shape == (SIZE[1], SIZE[0], 3)


def test_a_window_is_what_the_whole_has_there_moved_to_0(etk: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.mkv", tmp_path / "part.mkv"
    assert run("decode", etk, whole, "--lossless").exit_code == 0
    assert run("decode", etk, part, "--lossless", "--start", "0:00.1", "--duration", "0.1").exit_code == 0
    expected, found = pictures(whole)[3:6], pictures(part)
    assert [float(t) for t, _ in found] == [0, 0.033, 0.067]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(expected, found, strict=True))
    assert packets(part)


def test_encode_takes_a_window_a_height_and_leaves_out_sound(clip: Path, tmp_path: Path) -> None:
    etk = tmp_path / "part.etk"
    result = run(
        "encode",
        clip,
        etk,
        "--tokens",
        2,
        "--start",
        0.1,
        "--duration",
        0.1,
        "--max-height",
        24,
        "--no-audio",
    )
    assert result.exit_code == 0, result.stderr
    with EtkReader(etk) as reader:
        assert (reader.frame_count, reader.header.width, reader.header.height) == (3, 32, 24)
        assert reader.header.aux is None
        assert next(reader.blocks()).pts[0] == 0


def test_psnr_is_the_same_knob(clip: Path, tmp_path: Path) -> None:
    etk = tmp_path / "out.etk"
    assert run("encode", clip, etk, "--psnr", 20, "--allocation", "block").exit_code == 0
    with EtkReader(etk) as reader:
        assert reader.header.target_mse == pytest.approx(0.04)
        assert reader.header.allocation == "block"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mse", 0.1, "--psnr", 30],
        ["--mse", 0.1, "--tokens", 3],
        ["--mse", 0],
        ["--mse", "nan"],
        ["--psnr", -3],
        ["--psnr", 1000],
        ["--tokens", 9999],
        ["--start", "soon"],
        ["--duration", 0],
        ["--device", "abacus"],
        ["--json", "-"],
    ],
)
def test_wrong_usage_is_2(clip: Path, tmp_path: Path, arguments: list[object]) -> None:
    target = [] if "-" in arguments else [tmp_path / "out.etk"]
    result = run("encode", clip, *target, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_2(
    clip: Path, etk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for verb, source, name in (("encode", clip, "out.etk"), ("decode", etk, "out.mp4")):
        result = run(verb, source, tmp_path / name, "--device", "cuda")
        assert result.exit_code == 2
        assert (
            result.stderr
            == "elastictok: this machine has no cuda device that torch can use; try --device cpu\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_y(clip: Path, etk: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.write_bytes(b"old")
    for arguments in (("encode", clip), ("decode", etk), ("stats", etk, "--csv")):
        result = run(*arguments, target)
        assert result.exit_code == 2
        assert "exists already; -y overwrites it" in result.stderr
        assert target.read_bytes() == b"old"
    assert run("encode", clip, target, "--tokens", 1, "-y").exit_code == 0
    assert frame_count(target) == COUNT
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_folder_of_pictures_needs_y_too(etk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    assert run("decode", etk, f"{folder}/").exit_code == 0
    assert len(list(folder.iterdir())) == COUNT
    assert run("decode", etk, f"{folder}/").exit_code == 2
    assert run("decode", etk, folder, "-y", "--duration", 0.1).exit_code == 0
    assert len(list(folder.iterdir())) == 3


def test_in_and_out_must_differ_even_through_a_link(clip: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(clip, tmp_path / "a.mp4"))
    link = tmp_path / "b.mp4"
    link.symlink_to(source)
    before = source.read_bytes()
    for target in (source, link, tmp_path / "." / "a.mp4"):
        result = run("encode", source, target, "-y")
        assert result.exit_code == 2
        assert ("are the same file" if target == link else "IN and OUT are both") in result.stderr
    assert source.read_bytes() == before


def test_a_missing_folder_is_told_before_any_work(clip: Path, etk: Path, tmp_path: Path) -> None:
    for verb, source in (("encode", clip), ("decode", etk)):
        result = run(verb, source, tmp_path / "none" / "out.mp4")
        assert (result.exit_code, result.stderr) == (
            2,
            f"elastictok: the folder {tmp_path / 'none'} does not exist\n",
        )


def test_bad_input_is_3_and_leaves_nothing(clip: Path, etk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.etk"
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for arguments in (
        ("encode", tmp_path / "missing.mp4", target),
        ("encode", text, target),
        ("encode", tmp_path, target),
        ("encode", clip, target, "--model", text),
        ("encode", clip, target, "--start", 100),
        ("decode", tmp_path / "missing.etk", target),
        ("decode", etk, tmp_path / "out.mp4", "--start", 100),
    ):
        result = run(*arguments)
        assert result.exit_code == 3, arguments
        assert result.stderr.startswith("elastictok: ")
        assert result.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["text.mp4"]


def test_an_output_of_an_unknown_kind_is_wrong_usage(etk: Path, tmp_path: Path) -> None:
    result = run("decode", etk, tmp_path / "out.xyz")
    assert result.exit_code == 2
    assert "its suffix names no kind of output" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_weights_are_named(etk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    loaded = checkpoint.load()
    checkpoint.save(loaded.tokenizer.model, other, {"note": "the same, but another file"})
    result = run("decode", etk, tmp_path / "out.mp4", "--model", other)
    assert result.exit_code == 3
    assert loaded.sha256.hex()[:12] in result.stderr
    assert checkpoint.digest(other).hex()[:12] in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["other.safetensors"]


def test_a_lost_segment_is_4_and_the_rest_is_written(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        lost = reader.index[1]
    damaged = flip(etk, tmp_path / "damaged.etk", lost.offset + 20)
    result = run("decode", damaged, tmp_path / "out.mkv", "--lossless", "--json")
    assert result.exit_code == 4
    assert f"warning: segment 1 is lost, {lost.frames} frames from 0:00" in result.stderr
    assert len(pictures(tmp_path / "out.mkv")) == COUNT - lost.frames
    *_, summary = json_lines(result.stdout)
    assert summary["damaged"] is True
    assert summary["frames"] == COUNT - lost.frames


def test_a_window_beside_the_damage_is_whole(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        damaged = flip(etk, tmp_path / "damaged.etk", reader.index[1].offset + 20)
    assert run("decode", damaged, tmp_path / "out.mp4", "--duration", 0.1, "--no-audio").exit_code == 0


def test_nothing_decodable_is_4_and_leaves_nothing(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        end = reader.index[0].offset + 20
    cut = tmp_path / "cut.etk"
    for size in (0, 5, 30, end):
        cut.write_bytes(etk.read_bytes()[:size])
        result = run("decode", cut, tmp_path / "out.mp4")
        assert result.exit_code == 4
        assert result.stderr.startswith("elastictok: ")
        assert [p.name for p in tmp_path.iterdir()] == ["cut.etk"]


@pytest.mark.usefixtures("few_tokens")
def test_a_missed_target_is_named_and_5_when_strict(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.etk"
    arguments = ("encode", clip, target, "-y", "--mse", 1e-9, "--duration", 0.1)
    result = run(*arguments)
    assert result.exit_code == 0
    assert "did not reach mse 1e-09" in result.stderr
    assert "block 0 at 0:00.00" in result.stderr
    assert run(*arguments, "--strict").exit_code == 5
    assert frame_count(target) == 3


@pytest.mark.usefixtures("few_tokens")
def test_a_missed_target_is_said_under_quiet_too(clip: Path, tmp_path: Path) -> None:
    result = run("encode", clip, tmp_path / "out.etk", "--mse", 1e-6, "--duration", 0.1, "-q")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ")
    assert "did not reach mse 1e-06" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_size_estimate_counts_the_audio(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first block on, and half of this file is audio."""
    shown: list[str] = []
    monkeypatch.setattr(
        "elastictok_cli.commands.console.Display.show", lambda _, *words, **__: shown.append(words[2])
    )
    sizes = {}
    for name, options in (("with", []), ("without", ["--no-audio"])):
        shown.clear()
        out = tmp_path / f"{name}.etk"
        assert run("encode", clip, out, "--tokens", 3, *options).exit_code == 0
        found = [re.search(r"est ([\d.]+) (k?)B", facts) for facts in shown]
        estimates = [float(one[1]) * (1000 if one[2] else 1) for one in found[:-1] if one is not None]
        sizes[name] = out.stat().st_size, estimates
    (whole, estimates), (video, plain) = sizes["with"], sizes["without"]
    audio = whole - video
    assert audio > 0.3 * whole
    assert len(estimates) == len(plain) > 2
    for one, other in zip(estimates, plain, strict=True):
        assert one - other == pytest.approx(audio, rel=0.35)


@pytest.mark.parametrize("piped", [False, True])
def test_the_last_state_shows_the_real_size(
    piped: bool, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where progress is lines, and where it is a bar; also of a pipe, whose length is not known."""
    monkeypatch.setattr("elastictok_cli.commands.console._SECONDS_BETWEEN_LINES", 0.0)
    out = tmp_path / "a.etk"
    source: Path | str = clip
    if piped:
        source = tmp_path / "pipe.mkv"
        with av.open(str(clip)) as old, av.open(str(source), "w") as new:
            copies = {s.index: new.add_stream_from_template(s) for s in old.streams}
            for packet in old.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)
        monkeypatch.setattr("elastictok_cli.video.reader.VideoReader._declared_duration", lambda _: None)
    done = run("encode", source, out, "--tokens", 12)
    assert done.exit_code == 0, done.stderr
    shown = [line for line in done.stderr.splitlines() if line.startswith("block ")]
    size = out.stat().st_size
    assert f"est {units.size(size)} " in shown[-1]
    assert f"{size * 8 / 1000 / (COUNT / 30):.0f} kbps" in shown[-1]
    assert "100%" in shown[-1]
    assert units.size(size) in done.stderr.splitlines()[len(shown) + 1]


def test_the_last_state_follows_only_what_was_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (False, True):
        display = Display(quiet=False)
        if shown:
            display._shown_at -= 60
        with display:
            display.show(0.5, "half", "est 2 kB")
            display.show(1.0, "all", "3 kB", last=True)
        assert capsys.readouterr().err == ("half  est 2 kB\nall  3 kB\n" if shown else "")


def test_a_still_picture_has_no_rate(clip: Path, tmp_path: Path) -> None:
    still, etk = tmp_path / "still.png", tmp_path / "still.etk"
    with av.open(str(clip)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    still.write_bytes(PictureEncoder((64, 48), jpeg=False).encode(picture))
    result = run("encode", still, etk, "--tokens", 4, "--json")
    assert "kbps" not in result.stderr
    assert json_lines(result.stdout)[-1]["kbps"] is None
    result = run("stats", etk)
    assert "1 frame" in result.stdout
    assert "kbps" not in result.stdout
    assert json_lines(run("stats", etk, "--json").stdout)[-1]["kbps"] is None
    result = run("compare", still, etk, "-o", tmp_path / "side.png", "--json", "--no-ssim")
    assert json_lines(result.stdout)[-1]["files"][0]["kbps"] is None
    assert "kbps" not in result.stderr
    result = run("report", etk, tmp_path / "still.html", "--pictures", 0)
    assert "kbps" not in (tmp_path / "still.html").read_text()
    result = run("thin", etk, tmp_path / "thin.etk", "--tokens", 2, "--json")
    assert json_lines(result.stdout)[-1]["kbps"] is None
    assert "kbps" not in result.stderr
    result = run("thin", etk, tmp_path / "thin.etk", "--kbps", 100, "-y")
    assert (result.exit_code, "a still picture has no --kbps" in result.stderr) == (2, True)


def test_quiet_says_nothing(clip: Path, etk: Path, tmp_path: Path) -> None:
    assert run("encode", clip, tmp_path / "out.etk", "--tokens", 1, "-q").output == ""
    assert run("decode", etk, tmp_path / "out.mkv", "-q").output == ""


def test_pipes(clip: Path) -> None:
    with clip.open("rb") as source:
        encoder = start(
            *("encode", "-", "-", "--tokens", 2, "-q"),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    decoder = start("decode", "-", "-", "--raw", "-q", stdin=encoder.stdout, stdout=subprocess.PIPE)
    assert encoder.stdout is not None
    encoder.stdout.close()
    output, _ = decoder.communicate()
    with encoder:
        assert encoder.stderr is not None
        said = encoder.stderr.read()
    assert (encoder.returncode, decoder.returncode, said) == (0, 0, b"")
    assert len(output) == COUNT * SIZE[0] * SIZE[1] * 3


def test_a_reader_that_goes_away_is_no_error_message(etk: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # before the program starts, which may be quick
    process = start("stats", etk, "--json", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, said = process.communicate()
    assert (process.returncode, said) == (141, b"")


def test_the_unexpected_is_one_sentence_with_a_hint(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("boom\nand much more")

    monkeypatch.setattr("elastictok_cli.codec.encode_source.encode", fail)
    result = run("encode", clip, tmp_path / "out.etk")
    assert result.exit_code == 1
    assert result.stderr == (
        "elastictok: unexpected RuntimeError: boom (ELASTICTOK_TRACEBACK=1 in the environment shows where)\n"
    )
    assert list(tmp_path.iterdir()) == []
    shown = run("encode", clip, tmp_path / "out.etk", env={"ELASTICTOK_TRACEBACK": "1"})
    assert isinstance(shown.exception, RuntimeError)


@pytest.mark.parametrize("name", ["out.mp4", "out.MKV", "out.png", "out.wav"])
def test_an_etk_file_does_not_get_the_name_of_a_video(clip: Path, tmp_path: Path, name: str) -> None:
    result = run("encode", clip, tmp_path / name)
    assert (result.exit_code, "name it so" in result.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_effort_is_0_to_9_and_for_targets(clip: Path, etk: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.etk"
    assert run("encode", clip, target, "--effort", 10).exit_code == 2
    refused = run("encode", clip, target, "--effort", 3, "--tokens", 2)
    assert (refused.exit_code, "--effort needs a target" in refused.stderr) == (2, True)
    assert not target.exists()
    assert run("encode", clip, target, "--effort", 0, "--duration", 0.2).exit_code == 0
    with EtkReader(target) as reader:
        assert reader.header.options["effort"] == 0
