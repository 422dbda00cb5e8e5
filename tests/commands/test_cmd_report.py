"""`elastictok report` as a program."""

from pathlib import Path

from cli_samples import COUNT, flip, json_lines, make_clip, run, start

from elastictok_cli.commands.report import _jpeg
from formats import EtkReader


def test_a_page_beside_the_file(etk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "clip.etk"
    copy.write_bytes(etk.read_bytes())
    result = run("report", copy)
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "clip.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.etk", "clip.html"]
    assert text.count("data:image/jpeg;base64,") == 3
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in text
    assert "12 tokens" in text
    assert "<dt>keyframe interval</dt><dd>0.2 s</dd>" in text.replace("\n", "").replace("  ", "")
    assert run("report", copy).exit_code == 2
    assert run("report", copy, "-y", "--quiet").stderr == ""


def test_pictures_are_limited_and_need_the_model(etk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert run("report", etk, out, "--pictures", 2).exit_code == 0
    assert 1 <= out.read_text().count("data:image/jpeg") <= 2
    process = start("report", "-", "-", "--pictures", 0, "-q", stdin=-1, stdout=-1, stderr=-1)
    page, err = process.communicate(etk.read_bytes(), timeout=100)
    assert (process.returncode, err) == (0, b"")
    assert page.startswith(b"<!doctype html>")
    assert b"data:image/jpeg" not in page
    assert b'"cards":[{' in page


def test_wrong_use(etk: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert run("report", etk, etk, "-y").exit_code == 2
    assert run("report", etk, "-", "--json").exit_code == 2
    assert run("report", clip, out).exit_code == 3
    other = make_clip(tmp_path / "other.mp4", count=COUNT - 4)
    result = run("report", etk, out, "--source", other)
    assert (result.exit_code, "no frame at" in result.stderr) == (3, True)
    assert not out.exists()


def test_damage_is_shown_on_the_page(etk: Path, tmp_path: Path) -> None:
    with EtkReader(etk) as reader:
        assert reader.index is not None
        damaged = flip(etk, tmp_path / "damaged.etk", reader.index[1].offset + 40)
    out = tmp_path / "out.html"
    result = run("report", damaged, out, "--json", "--pictures", 0)
    assert result.exit_code == 4
    damage, summary = json_lines(result.stdout)
    assert (damage["type"], summary["damaged"], summary["segments"]) == ("damage", True, 2)
    assert "segment 1 is lost" in out.read_text()


def test_a_picture_keeps_its_shape() -> None:
    import numpy as np

    uri, width, height = _jpeg(np.zeros((1080, 607, 3), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,/9j/")
    assert (width, height) == (180, 320)
