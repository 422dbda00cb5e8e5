"""The aspect of a pixel: read from a source, and turned into the display size that Matroska files have."""

from fractions import Fraction
from typing import Any

_SQUARE = Fraction(1)


def pixel_aspect(stream: Any) -> Fraction:
    """The width of a stored pixel of a video stream over its height.

    What the container says wins over what the codec says, as in FFmpeg's `av_guess_sample_aspect_ratio`; a
    source that says nothing, or nonsense, has square pixels.
    """
    for declared in (stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio):
        if declared is not None and declared > 0:
            return Fraction(declared)
    return _SQUARE


def limited(aspect: Fraction, most: int) -> Fraction:
    """The nearest aspect whose numerator and denominator are at most `most`."""
    if aspect > 1:
        return 1 / limited(1 / aspect, most)
    return max(aspect.limit_denominator(most), Fraction(1, most))


def display_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size to show a picture of `width` x `height` pixels at, about its own height.

    The ratio is exact: a player computes `aspect` back from it. Only where that would take sides of more
    than 16 bits it is the nearest that does not.
    """
    most = 0xFFFF
    shape = limited(Fraction(width, height) * aspect, most)
    times = max(1, min(round(height / shape.denominator), most // max(shape.numerator, shape.denominator)))
    return shape.numerator * times, shape.denominator * times
