"""One clip and one file for all tests of the program."""

from pathlib import Path

import pytest
from cli_samples import make_clip, make_page, run

from elastictok_cli.codec import probing


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def etk(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three segments."""
    path = tmp_path_factory.mktemp("etk") / "clip.etk"
    result = run("encode", clip, path, "--tokens", 12, "--keyframe-interval", 0.2)
    assert "3 segments" in result.stderr
    return path


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments so small that no block reaches a target of next to nothing; with as many as there are, any can."""
    monkeypatch.setattr(probing, "max_segment_tokens", lambda vector: 300)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, a moving picture and noise, 4 frames."""
    return make_page(tmp_path_factory.mktemp("page") / "page.mkv")


@pytest.fixture(scope="session")
def page_etk(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells in all screen modes, beside FSQ codes."""
    path = tmp_path_factory.mktemp("page_etk") / "page.etk"
    assert run("encode", page, path, "--mse", 0.02).exit_code == 0
    return path
