"""What a file promises of its error and what budget it was made for, and whether it kept to them."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from elastictok_cli.analysis import units

if TYPE_CHECKING:
    from formats import EtkReader, Header

SCOPES = {"block": "mean of a block", "video": "mean of the video"}  # by promise: what the target is one of
BUDGETS = ("kbps", "max_bytes", "max_tokens", "tokens_per_second")  # options of a header (SPEC.md, 4.2)
# How far an error in a file may be from the measured one (`formats.Block`). A mean that is above the target by no more
# may have been below it.
_STORED_PRECISION, _STORED_DISTANCE = 0.0025, 1.5e-7


def kept(header: "Header", mse: float, missed: int, *, whole: bool) -> bool | None:
    """Whether the promise was kept. None: there is no target, or it cannot be known.

    mse: mean over all frames of the file, NaN if that of a frame is unknown. missed: how many blocks missed the target.
    whole: the file has frames, and all of them could be read.
    """
    if header.target_mse is None:
        return None
    if missed:
        return False
    if not whole or (header.promise == "video" and math.isnan(mse)):
        return None
    return header.promise == "block" or _reaches(mse, header.target_mse)


def _reaches(mse: float, target: float) -> bool:
    near = math.isclose(mse, target, rel_tol=_STORED_PRECISION, abs_tol=_STORED_DISTANCE)
    return mse <= target or near


def kept_by_index(reader: "EtkReader") -> bool | None:
    """The same by the index of the file alone; None also where there is no index."""
    if reader.index is None:
        return None
    frames = sum(info.frames for info in reader.index)
    error = math.fsum(info.frames * info.mse for info in reader.index)
    missed = sum(info.missed for info in reader.index)
    mse = error / frames if frames else math.nan
    return kept(reader.header, mse, missed, whole=frames > 0)


def worst(header: "Header") -> float | None:
    """The highest error that a block may have, in times the target; None where the target is one of each block."""
    return _number(header, "worst") if header.promise == "video" else None


def bound(header: "Header") -> str | None:
    """What decided the error, "target" or "budget"; None where the file does not say it."""
    said = header.options.get("bound")
    return said if isinstance(said, str) and said in ("target", "budget") else None


def budget(header: "Header") -> dict[str, int | float]:
    """The limits that the file was made for, by their names in BUDGETS."""
    return {name: limit for name in BUDGETS if (limit := _number(header, name)) is not None}


def used(
    header: "Header", *, size: int | None, tokens: int, seconds: float, frames: int
) -> dict[str, int | float | None]:
    """What the file has of each limit of its budget; None where that is unknown.

    size: bytes of the whole file, None if unknown. seconds: from the first frame to the end of the last.
    """
    moves = seconds > 0 and frames > 1
    spent = {
        "kbps": None if size is None else units.kbps(size, seconds, frames),
        "max_bytes": size,
        "max_tokens": tokens,
        "tokens_per_second": tokens / seconds if moves else None,
    }
    return {name: spent[name] for name in budget(header)}


def exceeded(limits: Mapping[str, int | float], spent: Mapping[str, int | float | None]) -> bool:
    """Whether the file is over a limit of its budget."""
    return any((amount := spent[name]) is not None and amount > limit for name, limit in limits.items())


def missed_words(header: "Header") -> str:
    """What is true of a block that is marked as missed: "missed the target", "above 4 times the target"."""
    if header.promise == "block":
        return "missed the target"
    times = worst(header)
    return "far above the target" if times is None else f"above {times:g} times the target"


def outcome(header: "Header", mse: float, missed: int, *, whole: bool) -> str:
    """What became of the promise, for people: "kept (27.7 dB)", "not kept: 2 blocks missed it". See `kept`."""
    found = kept(header, mse, missed, whole=whole)
    if header.target_mse is None or found is None:
        return "not known whether kept"
    reason = "not kept" if bound(header) != "budget" else "not reached within the budget"
    if header.promise == "block":
        return "kept" if found else f"{reason}: {units.count(missed, 'block')} missed it"
    if found:
        return f"kept ({units.psnr(mse):.1f} dB)"
    parts = [] if _reaches(mse, header.target_mse) else [units.quality(mse)]
    if missed:
        parts.append(f"{units.count(missed, 'block')} {missed_words(header)}")
    return f"{reason}: {', '.join(parts)}"


def budget_words(
    limits: Mapping[str, int | float], spent: Mapping[str, int | float | None] | None = None
) -> str:
    """A budget for people: "300 kbps", with what was spent of it "300 kbps: 297 kbps (99.0%)"."""
    parts = []
    for name, limit in limits.items():
        amount = None if spent is None else spent[name]
        text = _amount(name, limit, exact=True)
        if amount is not None:
            text += f": {_amount(name, amount, exact=False)}"
            text += f" ({amount / limit:.1%})" if limit else ""
        parts.append(text)
    return "; ".join(parts)


def _amount(name: str, value: float, *, exact: bool) -> str:
    if name == "max_bytes":
        return units.size(value)
    if name == "max_tokens":
        return units.count(int(value), "token")
    number = f"{value:.10g}" if exact else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} kbps" if name == "kbps" else f"{number} tokens a second"


def _number(header: "Header", name: str) -> int | float | None:
    """An option that is a number, 0 or more; None if there is none, or it is something else."""
    value = header.options.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return value
