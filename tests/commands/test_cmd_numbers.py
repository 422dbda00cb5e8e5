"""Every numeric option of every command has a range, and says so; the options are found in the program itself."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
import typer
from cli_samples import frame_count, run

from elastictok_cli.commands.failures import guarded
from elastictok_cli.commands.numbers import OutOfRange, check_finite, option_name
from elastictok_cli.main import app
from formats import EtkReader

# What each command needs to come as far as its numbers.
_NEEDED: dict[str, list[str]] = {
    "encode": ["IN"],
    "decode": ["ETK"],
    "stats": ["ETK"],
    "compare": ["IN", "ETK", "-o", "out.mp4"],
    "report": ["ETK"],
    "thin": ["ETK", "out.etk"],
    "train": ["--data", "FOLDER", "--out", "out.safetensors", "--steps", "1"],
    "train-predictor": ["--model", "IN", "--data", "FOLDER", "--out", "out.safetensors"],
}
_NO_FLOATS = ["nan", "NaN", "inf", "-inf", "infinity", "1e308", "-1e308", "1e999", "-1"]
_NO_INTEGERS = [str(10**30), str(-(10**30)), "-1", "nan", "inf", "1.5"]


def _numeric_options() -> Iterator[tuple[str, str, type]]:
    """Command, option and kind (float or int); times are floats."""
    for command in app.registered_commands:
        function = command.callback
        assert function is not None
        name = command.name or function.__name__
        for parameter, hint in get_type_hints(function, include_extras=True).items():
            found = set(_leaves(hint))
            if found & {int, float}:
                yield name, option_name(function, parameter), float if float in found else int


def _leaves(hint: Any) -> Iterator[type]:
    if get_origin(hint) in (Union, types.UnionType, list) or hasattr(hint, "__metadata__"):
        for part in get_args(hint)[: 1 if hasattr(hint, "__metadata__") else None]:
            yield from _leaves(part)
    else:
        yield hint


_OPTIONS = list(_numeric_options())


def test_the_walk_finds_the_options() -> None:
    assert {("encode", "--keyframe-interval", float), ("train", "--time", float)} <= set(_OPTIONS)
    assert {("train-predictor", "--mse", float), ("compare", "--crf", int)} <= set(_OPTIONS)
    assert len(_OPTIONS) > 35
    assert {command for command, _, _ in _OPTIONS} == set(_NEEDED)


@pytest.mark.parametrize(("command", "option", "kind"), _OPTIONS)
def test_a_number_out_of_range_is_wrong_usage(
    command: str,
    option: str,
    kind: type,
    clip: Path,
    etk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"IN": str(clip), "ETK": str(etk), "FOLDER": str(clip.parent)}
    arguments = [files.get(word, word) for word in _NEEDED[command]]
    for value in _NO_FLOATS if kind is float else _NO_INTEGERS:
        result = run(command, *arguments, f"{option}={value}")
        assert result.exit_code == 2, (value, result.output)
        *_, sentence = result.stderr.strip().splitlines()
        assert option in sentence, (value, result.stderr)
        assert "unexpected" not in result.stderr
        assert "No such option" not in result.stderr
        assert list(tmp_path.iterdir()) == [], value


def test_a_long_number_of_digits_is_no_time(clip: Path) -> None:
    for value in ("9" * 400, f"{10**9}h", f"{10**15}:00"):
        result = run("encode", clip, f"--start={value}")
        assert (result.exit_code, "--start" in result.stderr, "too long" in result.stderr) == (2, True, True)


def test_numbers_that_are_none_are_found_whatever_the_option_says() -> None:
    def command(span: float, mse: list[float]) -> None: ...

    check_finite(command, {"span": 1.0, "mse": [2.0, 3.0], "other": None})
    for given, name in (({"span": float("nan")}, "--span"), ({"mse": [1.0, float("inf")]}, "--mse")):
        with pytest.raises(OutOfRange, match=f"{name} must be a finite number"):
            check_finite(command, given)


def test_the_largest_interval_means_only_scene_cuts(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.etk"
    done = run("encode", clip, target, "--tokens", 1, "--keyframe-interval", 10**9)
    assert done.exit_code == 0, done.stderr
    with EtkReader(target) as reader:
        assert reader.index is not None
        assert len(reader.index) == 1
    assert frame_count(target) == 15


def test_every_command_refuses_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever typer lets pass: earlier versions take `nan` for a number within any range."""

    @guarded
    def command(wide: Annotated[float, typer.Option("--width")]) -> None:
        raise AssertionError(wide)

    with pytest.raises(typer.Exit) as stopped:
        command(wide=float("nan"))
    assert stopped.value.exit_code == 2
    assert capsys.readouterr().err == "elastictok: --width must be a finite number, not nan\n"
