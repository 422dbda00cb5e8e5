"""The text above each picture of a comparison."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elastictok_cli.analysis import promise, units
from elastictok_cli.analysis.usage import FrameUsage

if TYPE_CHECKING:
    from elastictok_cli.commands.sides import SideTotals
    from elastictok_cli.video import VideoInfo
    from formats import Header

_SEPARATOR = " · "


def target(header: "Header") -> str:
    """What the encoder was asked for: "mse ≤ 0.007", "mean mse ≤ 0.007", "12 tokens a cell", or "budget 300 kbps".

    A budget that decided the error says more of the file than the target that was not reached.
    """
    limits = promise.budget(header)
    if limits and (header.target_mse is None or promise.bound(header) == "budget"):
        return f"budget {promise.budget_words(limits)}"
    if header.target_mse is not None:
        mean = "mean " if header.promise == "video" else ""
        return f"{mean}mse ≤ {header.target_mse:g}"
    if header.target_tokens is not None:
        return f"{units.count(header.target_tokens, 'token')} a cell"
    return "reconstruction"


def titles(paths: Sequence[Path], headers: Sequence["Header"]) -> list[str]:
    """A title for each file: its target, with its name where targets are the same."""
    plain = [target(header) for header in headers]
    return [
        text if plain.count(text) == 1 else f"{units.printable(path.stem)}: {text}"
        for path, text in zip(paths, plain, strict=True)
    ]


def source_facts(path: Path, info: "VideoInfo") -> str:
    """Size in pixels, frame rate, bytes, name."""
    parts = [f"{info.width}×{info.height}"]  # noqa: RUF001
    if info.average_rate and not info.is_still:
        parts.append(f"{float(info.average_rate):.4g} fps")
    if info.size_bytes is not None:
        parts.append(units.size(info.size_bytes))
    parts.append(units.printable(path.name))  # last: it is what may be cut short
    return _SEPARATOR.join(parts)


def file_facts(totals: "SideTotals", mse: float) -> str:
    """Of the frames compared: tokens, bytes, rate, PSNR of the mean error."""
    parts = [f"{totals.tokens:,} {'token' if totals.tokens == 1 else 'tokens'}", units.size(totals.bytes)]
    rate = units.kbps(totals.bytes, totals.end - totals.begin, totals.frames)
    if rate is not None:
        parts.append(f"{rate:.0f} kbps")
    if not math.isnan(mse):
        parts.append(f"{units.psnr(mse):.1f} dB")
    return _SEPARATOR.join(parts)


def source_line(usages: Sequence[FrameUsage | None], seconds: float, *, still: bool) -> str:
    """Which frame this is: when, and its number in the files."""
    if still:
        return ""
    number = next((usage.frame for usage in usages if usage is not None), None)
    return units.clock(seconds, 2) + ("" if number is None else f"{_SEPARATOR}frame {number}")


def file_line(usage: FrameUsage | None) -> str:
    """What the frame's block cost, and its error: as recorded, else as measured."""
    if usage is None:
        return ""
    mse = usage.measured_mse if math.isnan(usage.mse) else usage.mse
    parts = [f"{units.count(usage.block_tokens, 'token')} ({usage.share:.1%})"]
    if not math.isnan(mse):
        parts += [f"mse {mse:.2g}", f"{units.psnr(mse):.1f} dB"]
    return _SEPARATOR.join(parts)


def difference_line(usage: FrameUsage | None) -> str:
    """Structural similarity to the source."""
    if usage is None or math.isnan(usage.ssim):
        return ""
    parts = [f"SSIM {usage.ssim:.3f}"]
    if not math.isnan(usage.ms_ssim):
        parts.append(f"MS-SSIM {usage.ms_ssim:.3f}")
    return _SEPARATOR.join(parts)
