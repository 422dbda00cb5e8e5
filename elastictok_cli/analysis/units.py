"""Numbers as people write them."""

import math
import re

_TIME = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
MAX_SECONDS = 10**9  # of a time that a user may give: 31 years
_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_seconds(text: str) -> float:
    """Seconds of "90", "1:30", "0:01:30.5", "1m30s" or "1.5h", at most MAX_SECONDS. Raises ValueError."""
    seconds = _seconds(text.strip())
    if seconds > MAX_SECONDS:
        raise ValueError(f"{text:.20} is too long: the most is {MAX_SECONDS} seconds")
    return seconds


def _seconds(text: str) -> float:
    if match := _TIME.fullmatch(text):
        first, second, rest = match.groups()
        hours, minutes = (first, second) if second is not None else (None, first)
        return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)
    if text and (match := _SPAN.fullmatch(text)):
        h, m, s = (float(part or 0) for part in match.groups())
        return 3600 * h + 60 * m + s
    raise ValueError(f"{text!r} is no time: write seconds, [hh:]mm:ss, or 90s, 5m, 2h")


def clock(seconds: float, decimals: int = 0) -> str:
    """0:21, 1:02:03, or with decimals 0:02.72."""
    scale = 10**decimals
    whole, part = divmod(round(abs(seconds) * scale), scale)
    hours, minutes = whole // 3600, whole // 60 % 60
    text = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    text += f":{whole % 60:02d}" + (f".{part:0{decimals}d}" if decimals else "")
    return f"-{text}" if seconds < 0 else text


def size(count: float) -> str:
    """Bytes as B, kB, MB or GB, powers of ten."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def psnr(mse: float) -> float:
    """PSNR in dB of a mean square error on [-1, 1] pixels; infinite for 0."""
    return math.inf if mse == 0 else 10 * math.log10(4 / mse)


def mse_of(psnr_db: float) -> float:
    """The mean square error on [-1, 1] pixels at this PSNR."""
    return float(4 / 10 ** (psnr_db / 10))


def quality(mse: float) -> str:
    """An error with its PSNR: "mse 0.00682 (27.7 dB)"."""
    if math.isnan(mse):
        return "mse unknown"
    return f"mse {mse:.3g} ({psnr(mse):.1f} dB)"


def kbps(count: float, seconds: float, frames: int) -> float | None:
    """Kilobits a second of a file of so many bytes; None for a still picture, whatever time it claims to last."""
    return count * 8 / seconds / 1000 if seconds > 0 and frames > 1 else None


def count(number: int, noun: str) -> str:
    """1 block, 2 blocks."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def speed(frames: int, seconds: float) -> str:
    """30.1 fps, 0.25 fps."""
    rate = frames / max(seconds, 1e-6)
    return f"{rate:.1f} fps" if rate >= 1 else f"{rate:.2f} fps"


def printable(text: str) -> str:
    """Text without what could steer a terminal: names come from files that anyone may have written."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
