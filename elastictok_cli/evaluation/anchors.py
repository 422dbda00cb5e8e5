"""What other encoders need for the clips that ours is measured on: bytes and errors at each of their settings.

A file of them is made by `benchmarks/anchor_curves.py`: a JSON object of clips by name, each with `frames`, `height`,
`width` and `curves`; `curves` has a list of `[crf, bytes, mse]` for each encoder.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Point(NamedTuple):
    """One encode of a clip."""

    crf: float
    bytes: int  # of the whole clip
    mse: float  # mean over its frames, on RGB from -1 to 1


@dataclass(frozen=True)
class Anchor:
    """The curves of one clip, and which frames they are of."""

    frames: int
    height: int
    width: int
    curves: dict[str, tuple[Point, ...]]  # by encoder; by CRF, rising


def load(path: Path) -> dict[str, Anchor]:
    """Curves by clip. Raises ValueError, which names the clip, for what is no such file; OSError."""
    clips = json.loads(path.read_text())
    if not isinstance(clips, dict):
        raise ValueError(f"{path}: curves are an object of clips")
    return {name: _anchor(entry, f"{path}, {name}") for name, entry in clips.items()}


def save(found: dict[str, Anchor], path: Path) -> None:
    """Write a file that `load` reads, one line for each curve."""
    clips = []
    for name, anchor in found.items():
        curves = ",\n".join(f"  {json.dumps(coder)}: {json.dumps(c)}" for coder, c in anchor.curves.items())
        size = f'"frames": {anchor.frames}, "height": {anchor.height}, "width": {anchor.width}'
        clips.append(f'{json.dumps(name)}: {{{size}, "curves": {{\n{curves}\n}}}}')
    path.write_text("{\n" + ",\n".join(clips) + "\n}\n")


def encoders(found: dict[str, Anchor]) -> list[str]:
    """Names of all encoders, in the order of the file."""
    return list(dict.fromkeys(coder for anchor in found.values() for coder in anchor.curves))


def _anchor(entry: Any, where: str) -> Anchor:
    try:
        curves = {coder: tuple(Point(*point) for point in curve) for coder, curve in entry["curves"].items()}
        anchor = Anchor(entry["frames"], entry["height"], entry["width"], curves)
        for coder, points in curves.items():
            if not all(p.bytes > 0 and 0 < p.mse < math.inf for p in points):
                raise ValueError(f"{coder} has a point without bytes, or without a finite error above 0")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: no curves: {error!r}") from error
    return anchor
