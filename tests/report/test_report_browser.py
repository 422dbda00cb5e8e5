"""The page in a real browser: what it draws is what `stats` says, and its console stays silent."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from elastictok_cli.main import app
from formats import EtkReader, EtkWriter

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra 'dev')")

_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
_CUT = 9  # the frame at which the scene changes


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file with a scene cut, and its report."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    scenes = [rng.integers(0, 256, (3, 4, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(2)]
    for scene, grey, dark in zip(scenes, (128, 200), (100, 20), strict=True):
        scene[:16] = grey  # where cells keep few tokens, and below where they keep more, whatever the weights
        scene[32:] = dark + 40 * (np.arange(64) // 4 % 2)[None, :, None]
    with av.open(str(folder / "cut.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(18):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(scenes[number >= _CUT], format="rgb24")))
        out.mux(stream.encode())
    etk, page = folder / "cut.etk", folder / "cut.html"
    _run("encode", folder / "cut.mp4", etk, "--mse", 0.01)
    _run("report", etk, page, "--source", folder / "cut.mp4")
    return etk, page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium-headless-shell")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"])
def page(files: tuple[Path, Path], browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The report, opened; afterwards: nothing was said on the console and nothing was loaded."""
    said: list[str] = []
    asked: list[str] = []
    opened = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=request.param)
    opened.set_default_timeout(20_000)
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(files[1].as_uri())
    assert opened.evaluate("document.documentElement.dataset.theme") == request.param
    yield opened
    opened.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [files[1].as_uri()]


def _stats(etk: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, _run("stats", etk, "--json").splitlines())
    return [line for line in lines if line["type"] == "frame"]


def test_the_page_holds_the_numbers_of_stats(files: tuple[Path, Path]) -> None:
    """Usage spikes at the cut and falls after it, in both alike."""
    rows = _stats(files[0])
    found = re.search(r'id="data">(.*?)</script>', files[1].read_text(encoding="utf-8"))
    assert found is not None
    data = json.loads(found[1])
    blocks = {row["block"]: row for row in reversed(rows)}
    firsts = [blocks[number] for number in sorted(blocks)]
    assert data["blocks"]["step"] == data["frames"]["step"] == 1
    assert data["blocks"]["tokens"] == [row["block_tokens"] for row in firsts]
    assert data["blocks"]["start"] == pytest.approx([row["time"] for row in firsts], abs=1e-4)
    assert data["blocks"]["frame"] == [row["frame"] for row in firsts]
    assert data["frames"]["worst"] == pytest.approx([row["mse"] for row in rows], rel=3e-3)  # 0.25 %, rounded
    cut = next(n for n, row in enumerate(firsts) if row["scene_cut"] and row["frame"] == _CUT)
    tokens = data["blocks"]["tokens"]
    assert data["blocks"]["flags"][cut] & 2
    assert tokens[cut] > 3 * max(tokens[cut - 1], tokens[cut + 1], 1)


def test_hover_tells_the_block_under_the_pointer(page: Any, files: tuple[Path, Path]) -> None:
    rows = _stats(files[0])
    chart = page.locator("#chart svg").bounding_box()
    cut = rows[_CUT]
    share = (cut["time"] + 0.01) / (rows[-1]["time"] + rows[-1]["duration"])
    x = chart["x"] + 58 + share * (chart["width"] - 58 - 64)
    page.mouse.move(x, chart["y"] + 100)
    tip = page.locator("#tip").inner_text()
    assert f"{cut['block_tokens']:,} tokens" in tip
    assert "scene cut" in tip
    assert f"{cut['psnr']:.1f}"[:-1] in tip


def test_the_line_of_a_target_says_what_it_is_one_of(
    files: tuple[Path, Path], browser: Any, tmp_path: Path
) -> None:
    """Inside the picture, one line of words for a target of each block and two for one of the mean."""
    for promise, words in (("block", ["target"]), ("video", ["target", "(mean)"])):
        etk = tmp_path / f"{promise}.etk"
        with EtkReader(files[0]) as reader:
            header = replace(reader.header, promise=promise, options={"worst": 4.0})
            with EtkWriter(etk, header) as writer:
                for segment in reader.segments():
                    writer.write_segment([replace(block, missed=True) for block in segment.blocks])
        _run("report", etk, "--pictures", 0)
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.goto((tmp_path / f"{promise}.html").as_uri())
        texts = opened.locator("#chart svg text")
        shown = [(texts.nth(n).text_content(), texts.nth(n).bounding_box()) for n in range(texts.count())]
        places = [box for text, box in shown if text in ("target", "(mean)")]
        assert [text for text, _ in shown if text in ("target", "(mean)")] == words
        chart = opened.locator("#chart svg").bounding_box()
        assert all(box["x"] + box["width"] <= chart["x"] + chart["width"] for box in places)
        line = opened.locator("#chart svg .target").bounding_box()["y"]
        middle = (places[0]["y"] + places[-1]["y"] + places[-1]["height"]) / 2
        assert abs(middle - line) < 4
        legend = opened.locator("#legend").inner_text()
        assert ("missed the target" if promise == "block" else "above 4 times the target") in legend
        opened.close()


def test_zoom_by_drag_by_keys_and_back(page: Any) -> None:
    chart = page.locator("#chart svg").bounding_box()

    def ticks() -> list[str]:
        texts: list[str] = page.locator("#chart text.tick").all_inner_texts()
        return texts

    whole = ticks()
    page.mouse.move(chart["x"] + 500, chart["y"] + 100)
    page.mouse.down()
    page.mouse.move(chart["x"] + 800, chart["y"] + 100, steps=3)
    page.mouse.up()
    assert ticks() != whole
    page.click("#zoom-all")
    assert ticks() == whole
    page.focus("#chart")
    page.keyboard.press("+")
    assert ticks() != whole
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")
    assert "tokens" in page.locator("#status").inner_text()
    assert ticks() == whole


def test_pictures_heat_maps_and_links(page: Any) -> None:
    assert page.locator("#film li").count() == 2
    assert page.evaluate("[...document.querySelectorAll('#film img')].every(i => i.naturalWidth === 64)")
    page.click("[data-look=heat]")
    colours = page.evaluate(
        "[...document.querySelectorAll('#film canvas')].map(c => { const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return [c.width, c.height, new Set(d).size] })"
    )
    assert all(found[:2] == [4, 3] and found[2] > 4 for found in colours)
    assert not page.locator("#film img").first.is_visible()
    page.locator("td button").first.click()
    assert "tokens" in page.locator("#status").inner_text()
    page.click("#unit-mse")
    assert "mse per frame" in page.locator("#chart").inner_text()
    page.click("#per-frame")
    assert "tokens per frame" in page.locator("#chart").inner_text()
    before = page.evaluate("document.documentElement.dataset.theme")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") != before


def test_a_narrow_window_needs_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    for _ in range(50):  # the page draws again when it gets to it
        if page.evaluate("document.documentElement.scrollWidth") <= 420:
            break
        page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
