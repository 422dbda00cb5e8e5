"""What `encode` is asked for: sizes and token counts as people write them, and which options go together."""

import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from elastictok_cli.analysis import units
from elastictok_cli.codec.budget import DEFAULT_WORST, Budget
from elastictok_cli.commands.failures import ExitCode, Failure
from elastictok_cli.commands.goals import (
    DEFAULT_MSE,
    Goal,
    KbpsOption,
    MaxSizeOption,
    MaxTokensOption,
    PromiseName,
    PromiseOption,
    PsnrOption,
    Quality,
    QualityOption,
    TokenLimit,
    WorstOption,
    goal_of,
    parse_size,
    parse_tokens,
)

_BYTES = {
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10,
}  # fmt: skip


def _refusal(function: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Failure) as refused:
        function(*arguments, **options)
    assert refused.value.code is ExitCode.USAGE
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5MB", 5_000_000),
        ("5 MB", 5_000_000),
        (" 5mb ", 5_000_000),
        ("750k", 750_000),
        ("750kB", 750_000),
        ("1.5GiB", 3 * 2**29),
        ("1.GB", 10**9),
        (".5M", 500_000),
        ("1200000", 1_200_000),
        ("1200000 B", 1_200_000),
        ("1", 1),
        ("1.0015k", 1001),
        ("0.3MB", 300_000),  # 299,999 by floats
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_sizes_people_write(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "MB",
            "five MB",
            "-1",
            "-5MB",
            "+5MB",
            "nan",
            "inf",
            "1e6",
            "1,5MB",
            "5TB",
            "5 M B",
            "5MBB",
            "5iB",
        ),
        *("1.5", "1.5B", "0x10", "5MB/s", "1_000", "5\u00a0MB", "\u0665MB"),  # the last: an Arabic five
    ],
)
def test_what_is_no_size(text: str) -> None:
    assert _refusal(parse_size, text) == (
        f"{text!r} is no size: write 5MB, 750k, 1.5GiB, or a whole number of bytes"
    )


@pytest.mark.parametrize("text", ["0", "0MB", "0.0001k", str(2**63), "9" * 5000, "9" * 5000 + "GB"])
def test_sizes_out_of_range(text: str) -> None:
    said = _refusal(parse_size, text)
    assert "a size is at least 1 byte" in said
    assert len(said) < 120


@given(st.integers(1, 10**12), st.sampled_from(sorted(_BYTES)), st.sampled_from(["", " ", "  "]))
def test_whole_sizes_are_exact(number: int, unit: str, space: str) -> None:
    count = number * _BYTES[unit]
    if count < 2**63:
        assert parse_size(f"{number}{space}{unit}") == count
    assert parse_size(str(number)) == parse_size(f"{number}{space}B") == number


@given(st.decimals(1, 10**6, places=6), st.sampled_from(sorted(_BYTES)))
def test_broken_sizes_are_never_rounded_up(number: Any, unit: str) -> None:
    exact = Fraction(number) * _BYTES[unit]
    assert exact - 1 < parse_size(f"{number:f}{unit}") <= exact


@given(st.integers(1, 10**15))
def test_what_the_program_writes_as_a_size_can_be_read(count: int) -> None:
    assert parse_size(units.size(count)) == pytest.approx(count, rel=0.06)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with suppress(Failure):
        assert parse_size(text) > 0


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5000", (5000, None)),
        (" 0 ", (0, None)),
        ("300/s", (None, 300.0)),
        ("0.5/s", (None, 0.5)),
        ("300 / S", (None, 300.0)),
    ],
)
def test_numbers_of_tokens(text: str, limit: tuple[int | None, float | None]) -> None:
    assert parse_tokens(text) == limit
    assert isinstance(parse_tokens(text).in_all, int | None)


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "nan", "inf/s", "-3/s", "300/", "300/m", "/s", "5k", "1e3"]
)
def test_what_is_no_number_of_tokens(text: str) -> None:
    said = _refusal(parse_tokens, text)
    assert said == f"{text!r} is no number of tokens: write 5000 for all of the video, or 300/s"


@pytest.mark.parametrize("text", [str(2**63), "9" * 5000, "9" * 5000 + "/s"])
def test_too_many_tokens(text: str) -> None:
    assert "out of range" in _refusal(parse_tokens, text)


def test_levels_are_the_four_targets_of_the_help_text() -> None:
    assert {level.value: level.mse for level in Quality} == {
        "rough": 0.015, "fair": 0.007, "good": 0.003, "fine": 0.001,
    }  # fmt: skip
    assert Quality.fair.mse == DEFAULT_MSE


_VIDEO, _BLOCK = PromiseName.video, PromiseName.block


@pytest.mark.parametrize(
    ("options", "goal"),
    [
        ({}, Goal(mse=0.007, promise="block")),
        ({"mse": 0.002}, Goal(mse=0.002, target_named=True)),
        ({"mse": 4.0}, Goal(mse=4.0, target_named=True)),
        ({"psnr": 30.0}, Goal(mse=units.mse_of(30), target_named=True)),
        ({"quality": Quality.good}, Goal(mse=0.003, target_named=True)),
        ({"tokens": 0}, Goal(mse=None, tokens=0, target_named=True)),
        ({"tokens": 5, "promise": _BLOCK}, Goal(mse=None, tokens=5, target_named=True)),
        ({"tokens": 5, "allocation": "block"}, Goal(mse=None, tokens=5, target_named=True)),
        ({"allocation": "block"}, Goal()),
        ({"promise": _BLOCK}, Goal()),
        ({"promise": _VIDEO}, Goal(promise="video")),
        (
            {"promise": _VIDEO, "mse": 0.003, "worst": 2.0},
            Goal(mse=0.003, promise="video", worst=2.0, target_named=True),
        ),
        ({"kbps": 300.0}, Goal(mse=None, promise="video", budget=Budget(kbps=300))),
        ({"kbps": 0.5, "promise": _VIDEO}, Goal(mse=None, promise="video", budget=Budget(kbps=0.5))),
        ({"max_size": 5000}, Goal(mse=None, promise="video", budget=Budget(max_bytes=5000))),
        (
            {"max_tokens": TokenLimit(0, None)},
            Goal(mse=None, promise="video", budget=Budget(max_tokens=0)),
        ),
        (
            {"max_tokens": TokenLimit(None, 300.0)},
            Goal(mse=None, promise="video", budget=Budget(tokens_per_second=300)),
        ),
        (
            {"kbps": 300.0, "max_size": 5000, "psnr": 30.0, "worst": 1.0},
            Goal(
                mse=units.mse_of(30),
                promise="video",
                worst=1.0,
                budget=Budget(kbps=300, max_bytes=5000),
                target_named=True,
            ),
        ),
    ],
)
def test_what_options_mean(options: dict[str, Any], goal: Goal) -> None:
    assert goal_of(**options) == goal
    assert goal.worst == options.get("worst", DEFAULT_WORST)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mse": 0.1, "psnr": 30.0}, "--mse and --psnr exclude each other"),
        ({"mse": 0.1, "psnr": 30.0, "tokens": 1}, "--mse, --psnr and --tokens exclude each other"),
        ({"quality": Quality.fine, "tokens": 0}, "--quality and --tokens exclude each other"),
        ({"tokens": 5, "kbps": 3.0}, "--tokens and --kbps exclude each other"),
        ({"tokens": 5, "max_size": 3}, "--tokens and --max-size exclude each other"),
        (
            {"tokens": 5, "promise": _VIDEO},
            "--promise video needs a target: --mse, --psnr or --quality, not --tokens",
        ),
        (
            {"promise": _BLOCK, "kbps": 3.0},
            "--kbps is a budget of the whole video: it needs --promise video, not block",
        ),
        (
            {"promise": _BLOCK, "max_tokens": TokenLimit(5, None), "mse": 0.1},
            "--max-tokens is a budget of the whole video: it needs --promise video, not block",
        ),
        ({"worst": 4.0}, "--worst needs --promise video: else every block is held to the target"),
        (
            {"worst": 4.0, "mse": 0.1, "promise": _BLOCK},
            "--worst needs --promise video: else every block is held to the target",
        ),
        ({"worst": 4.0, "kbps": 3.0}, "--worst needs a target: --mse, --psnr or --quality"),
        ({"allocation": "block", "promise": _VIDEO}, "--promise video needs --allocation cell, not block"),
        ({"allocation": "block", "max_size": 3}, "--max-size needs --allocation cell, not block"),
        ({"psnr": 0.0}, "--psnr must be between 0 and 100 dB"),
        ({"psnr": 100.0, "kbps": 3.0}, "--psnr must be between 0 and 100 dB"),
        ({"mse": 0.0}, "--mse must be more than 0 and at most 4"),
        ({"mse": 4.1}, "--mse must be more than 0 and at most 4"),
        ({"mse": float("nan")}, "--mse must be more than 0 and at most 4"),
        ({"kbps": 0.0}, "--kbps must be more than 0 and at most 1000000000"),
        ({"kbps": float("inf")}, "--kbps must be more than 0 and at most 1000000000"),
        ({"worst": 0.9, "mse": 0.1, "promise": _VIDEO}, "--worst must be from 1 to 1000000"),
        ({"worst": float("nan"), "mse": 0.1, "promise": _VIDEO}, "--worst must be from 1 to 1000000"),
        ({"worst": 1e308}, "--worst must be from 1 to 1000000"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], sentence: str) -> None:
    assert _refusal(goal_of, **options) == sentence


def _parsed(*arguments: str) -> tuple[int, str, list[Goal]]:
    """Exit code, output, and the goal that a command with all these options is given."""
    goals: list[Goal] = []
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command()
    def command(
        psnr: PsnrOption = None,
        quality: QualityOption = None,
        promise: PromiseOption = None,
        worst: WorstOption = None,
        kbps: KbpsOption = None,
        max_size: MaxSizeOption = None,
        max_tokens: MaxTokensOption = None,
    ) -> None:
        goals.append(
            goal_of(
                psnr=psnr,
                quality=quality,
                promise=promise,
                worst=worst,
                kbps=kbps,
                max_size=max_size,
                max_tokens=max_tokens,
            )
        )

    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output, goals


@pytest.mark.parametrize("name", ["--psnr", "--min-psnr"])
def test_options_reach_the_goal(name: str) -> None:
    code, output, goals = _parsed(
        *(name, "30", "--worst", "2", "--kbps", "300", "--max-size", "1.5 MB", "--max-tokens", "20/s")
    )
    assert (code, output) == (0, "")
    budget = Budget(kbps=300, max_bytes=1_500_000, tokens_per_second=20)
    assert goals == [Goal(units.mse_of(30), promise="video", worst=2, budget=budget, target_named=True)]
    assert _parsed("--quality", "fine", "--promise", "video")[2] == [
        Goal(mse=0.001, promise="video", target_named=True)
    ]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--max-size", "huge", "'huge' is no size: write 5MB"),
        ("--max-tokens", "5k", "'5k' is no number of tokens: write 5000"),
        ("--quality", "best", "rough"),
        ("--promise", "frame", "video"),
    ],
)
def test_a_wrong_value_names_its_option(option: str, value: str, said: str) -> None:
    code, output, _ = _parsed(option, value)
    assert code == 2
    assert option in output
    assert said in output


def test_help_names_every_option() -> None:
    shown = " ".join(_parsed("--help")[1].split())
    for option in ("--psnr, --min-psnr DB", "--worst X", "--kbps K", "--max-size SIZE", "--max-tokens N[/s]"):
        assert option in shown, shown
    for choices in ("rough|fair|good|fine", "block|video", "[default: (block; video with a budget)]"):
        assert choices in shown, shown


def test_without_torch() -> None:
    code = "import sys, elastictok_cli.commands.goals; sys.exit(bool({'torch', 'numpy', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
