"""What an encode is asked for: a target, what it is promised for, and budgets."""

import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, NamedTuple

import typer

from elastictok_cli.analysis import units
from elastictok_cli.codec.budget import DEFAULT_WORST, MAX_KBPS, MAX_WORST, Budget, Promise
from elastictok_cli.commands.failures import ExitCode, Failure

DEFAULT_MSE = 0.007
MAX_MSE = 4.0  # of pixels from -1 to 1
MAX_PSNR_DB = 100
_MAX_COUNT = 2**63 - 1  # of bytes or tokens, as the header records them

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_SIZE = re.compile(_NUMBER + r"\s*(?:([kmg])(i?)b?|b)?", re.ASCII | re.IGNORECASE)
_TOKENS = re.compile(_NUMBER + r"(\s*/\s*s)?", re.ASCII | re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3}


class Quality(StrEnum):
    """Targets by name."""

    rough = "rough"
    fair = "fair"
    good = "good"
    fine = "fine"

    @property
    def mse(self) -> float:
        """The target on pixels from -1 to 1."""
        return _MSE_OF[self]


_MSE_OF = {Quality.rough: 0.015, Quality.fair: DEFAULT_MSE, Quality.good: 0.003, Quality.fine: 0.001}


class PromiseName(StrEnum):
    """What the target is promised for: every block, or the mean of the whole video."""

    block = "block"
    video = "video"


class TokenLimit(NamedTuple):
    """The most tokens; one of the two is set."""

    in_all: int | None
    per_second: float | None


@dataclass(frozen=True)
class Goal:
    """What an encode is asked for: `mse`, `budget` or both are set, or `tokens` alone.

    mse: the target on pixels from -1 to 1. None with a budget: the error is as low as the budget allows.
    tokens: of every cell. promise: what the target is promised for. worst: times the target, the highest MSE of a
    block where the target is promised for the video. target_named: whether the user gave a target or a number of
    tokens, rather than leaving it to the default or to the budget.
    """

    mse: float | None = DEFAULT_MSE
    tokens: int | None = None
    promise: Promise = "block"
    worst: float = DEFAULT_WORST
    budget: Budget | None = None
    target_named: bool = False


def goal_of(
    *,
    mse: float | None = None,
    psnr: float | None = None,
    quality: Quality | None = None,
    tokens: int | None = None,
    promise: PromiseName | None = None,
    worst: float | None = None,
    kbps: float | None = None,
    max_size: int | None = None,
    max_tokens: TokenLimit | None = None,
    allocation: str = "cell",
) -> Goal:
    """The goal that these options describe, None for those that were not given. Raises Failure where they contradict.

    psnr: decibels. kbps: kilobits a second. max_size: bytes. allocation: "cell" or "block".
    """
    targets = _given({"--mse": mse, "--psnr": psnr, "--quality": quality, "--tokens": tokens})
    budgets = _given({"--kbps": kbps, "--max-size": max_size, "--max-tokens": max_tokens})
    _check_exclusive(targets)
    made = _promise(promise, budgets, tokens)
    _check_worst(worst, made, has_error_target=bool(targets) and tokens is None)
    if made == "video" and allocation == "block":
        raise Failure(f"{_cause(budgets)} needs --allocation cell, not block", ExitCode.USAGE)
    budget = _budget(kbps, max_size, max_tokens) if budgets else None
    return Goal(
        mse=_target(mse, psnr, quality) if tokens is None and (targets or not budgets) else None,
        tokens=tokens,
        promise=made,
        worst=DEFAULT_WORST if worst is None else worst,
        budget=budget,
        target_named=bool(targets),
    )


def parse_size(text: str) -> int:
    """Bytes of "5MB", "750k", "1.5 GiB" or "1200000". Raises Failure.

    kB, MB and GB, or K, M and G alone, are powers of 1000; KiB, MiB and GiB are powers of 1024. Fractions of a byte
    are dropped; upper and lower case mean the same.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[2] is None and "." in match[1]):
        raise Failure(
            f"{text!r:.40} is no size: write 5MB, 750k, 1.5GiB, or a whole number of bytes", ExitCode.USAGE
        )
    number, unit, binary = match.groups()
    scale = (1024 if binary else 1000) ** _POWERS[unit.lower()] if unit else 1
    count = int(_fraction(number) * scale)
    if not 0 < count <= _MAX_COUNT:
        raise Failure(
            f"{text!r:.40} is out of range: a size is at least 1 byte and less than 2^63", ExitCode.USAGE
        )
    return count


def parse_tokens(text: str) -> TokenLimit:
    """The most tokens, in all as "5000" or per second as "300/s". Raises Failure."""
    match = _TOKENS.fullmatch(text.strip())
    if match is None or (match[2] is None and "." in match[1]):
        raise Failure(
            f"{text!r:.40} is no number of tokens: write 5000 for all of the video, or 300/s", ExitCode.USAGE
        )
    number = _fraction(match[1])
    if number > _MAX_COUNT:
        raise Failure(f"{text!r:.40} is out of range: tokens are less than 2^63", ExitCode.USAGE)
    return TokenLimit(int(number), None) if match[2] is None else TokenLimit(None, float(number))


def _fraction(number: str) -> Fraction:
    """The value of decimal digits; of very many, which Python refuses to read, one beyond every limit."""
    try:
        return Fraction(number)
    except ValueError:
        return Fraction(_MAX_COUNT + 1)


def _given(options: dict[str, object]) -> list[str]:
    return [name for name, value in options.items() if value is not None]


def _listed(names: list[str]) -> str:
    """`--mse`, `--mse and --psnr`, `--mse, --psnr and --tokens`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _check_exclusive(targets: list[str]) -> None:
    if len(targets) > 1:
        raise Failure(f"{_listed(targets)} exclude each other", ExitCode.USAGE)


def _cause(budgets: list[str]) -> str:
    """The option that makes the promise be for the video."""
    return budgets[0] if budgets else "--promise video"


def _promise(promise: PromiseName | None, budgets: list[str], tokens: int | None) -> Promise:
    if budgets and tokens is not None:
        raise Failure(f"{_listed(['--tokens', *budgets])} exclude each other", ExitCode.USAGE)
    if budgets and promise is PromiseName.block:
        raise Failure(
            f"{budgets[0]} is a budget of the whole video: it needs --promise video, not block",
            ExitCode.USAGE,
        )
    if promise is PromiseName.video and tokens is not None:
        raise Failure(
            "--promise video needs a target: --mse, --psnr or --quality, not --tokens", ExitCode.USAGE
        )
    return "video" if budgets or promise is PromiseName.video else "block"


def _check_worst(worst: float | None, promise: Promise, *, has_error_target: bool) -> None:
    if worst is None:
        return
    if not 1 <= worst <= MAX_WORST:
        raise Failure(f"--worst must be from 1 to {MAX_WORST}", ExitCode.USAGE)
    if promise == "block":
        raise Failure("--worst needs --promise video: else every block is held to the target", ExitCode.USAGE)
    if not has_error_target:
        raise Failure("--worst needs a target: --mse, --psnr or --quality", ExitCode.USAGE)


def _target(mse: float | None, psnr: float | None, quality: Quality | None) -> float:
    """The error asked for, or the default one."""
    if psnr is not None and not 0 < psnr < MAX_PSNR_DB:
        raise Failure(f"--psnr must be between 0 and {MAX_PSNR_DB} dB", ExitCode.USAGE)
    if mse is not None and not 0 < mse <= MAX_MSE:
        raise Failure(f"--mse must be more than 0 and at most {MAX_MSE:g}", ExitCode.USAGE)
    if psnr is not None:
        return units.mse_of(psnr)
    if quality is not None:
        return quality.mse
    return DEFAULT_MSE if mse is None else mse


def _budget(kbps: float | None, max_size: int | None, max_tokens: TokenLimit | None) -> Budget:
    if kbps is not None and not 0 < kbps <= MAX_KBPS:
        raise Failure(f"--kbps must be more than 0 and at most {MAX_KBPS}", ExitCode.USAGE)
    in_all, per_second = max_tokens or (None, None)
    return Budget(kbps=kbps, max_bytes=max_size, max_tokens=in_all, tokens_per_second=per_second)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except Failure as error:
        raise typer.BadParameter(str(error)) from None


def _tokens(text: str) -> TokenLimit:
    try:
        return parse_tokens(text)
    except Failure as error:
        raise typer.BadParameter(str(error)) from None


PsnrOption = Annotated[
    float | None,
    typer.Option(
        "--psnr", "--min-psnr", metavar="DB", help="The same target in decibels: mse = 4 / 10^(DB/10)."
    ),
]
QualityOption = Annotated[
    Quality | None,
    typer.Option("--quality", help="The same target by name: MSE 0.015, 0.007, 0.003 or 0.001."),
]
PromiseOption = Annotated[
    PromiseName | None,
    typer.Option(
        "--promise",
        help="block: every block stays under the target. video: the mean error of the whole video does, with fewer "
        "tokens.",
        show_default="block; video with a budget",
    ),
]
WorstOption = Annotated[
    float | None,
    typer.Option(
        "--worst",
        metavar="X",
        help="With --promise video: no block has more than X times the error of the target.",
        show_default=f"{DEFAULT_WORST:g}",
    ),
]
KbpsOption = Annotated[
    float | None,
    typer.Option(
        "--kbps", metavar="K", help="Budget: the whole file, audio included, has at most K kilobits a second."
    ),
]
MaxSizeOption = Annotated[
    int | None,
    typer.Option(
        "--max-size",
        parser=_size,
        metavar="SIZE",
        help="Budget: the whole file, audio included, is at most this large: 5MB, 750k, 1.5GiB.",
    ),
]
MaxTokensOption = Annotated[
    TokenLimit | None,
    typer.Option(
        "--max-tokens",
        parser=_tokens,
        metavar="N[/s]",
        help="Budget: at most N tokens in all, or with /s a second.",
    ),
]
