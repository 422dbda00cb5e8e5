"""Tensor operations and host reads a frame, of an encode and of a decode.

    PYTHONPATH=. python benchmarks/count_ops.py examples/toys-long.mp4 [--frames 8] [--side 0] [--mse 0.007]

The speed of a GPU hangs on both: small frames leave it waiting for the next kernel to be launched, and each host read
(a number or an index that Python asks a tensor for) makes the program wait for the GPU. They are counted on the CPU,
where every operation is seen by torch's dispatcher, and are the same on every machine and whatever else runs on it.
Views, which launch nothing, are not counted. A convolution is one operation, as on a GPU; the CPU has it in several
steps. `--side` cuts the centre out of the frames; 0 takes them whole.

The last line is JSON: operations and host_reads a frame, under encode and decode.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import elastictok
from elastictok_cli.models.cell import layers
from elastictok_cli.video import VideoReader

# Operations that give a new look at the same memory, or memory without content: no kernel is launched.
_VIEW_NAMES = """
    _reshape_alias _unsafe_view alias as_strided chunk detach diagonal empty empty_like
    empty_strided expand expand_as flatten lift_fresh mT movedim narrow new_empty new_empty_strided
    numpy_T permute reshape resize_ select slice split split_with_sizes squeeze swapaxes t transpose
    unbind unflatten unfold unsqueeze view view_as
"""
VIEWS = frozenset(_VIEW_NAMES.split())
# Operations that end in Python or whose result has a size that only the device knows.
HOST_READS = frozenset(["_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero"])
MOST_FREQUENT = 12  # operations that are named


class Counted(TorchDispatchMode):
    """Counts the operations inside a `with` statement by their names, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def operations(self) -> int:
        """All but views."""
        return sum(count for name, count in self.names.items() if name not in VIEWS)

    @property
    def host_reads(self) -> int:
        """At least so many: a boolean index hides one."""
        return sum(count for name, count in self.names.items() if name in HOST_READS)

    def report(self, name: str, frames: int) -> dict[str, float]:
        """Print it for people, and give the numbers a frame."""
        often = [(name, count) for name, count in self.names.most_common() if name not in VIEWS]
        print(
            f"{name}: {self.operations / frames:,.0f} operations and {self.host_reads / frames:.1f} or more host reads "
            f"a frame; most often " + ", ".join(f"{name} {count}" for name, count in often[:MOST_FREQUENT]),
            flush=True,
        )
        return {"operations": self.operations / frames, "host_reads": self.host_reads / frames}


def load(path: Path, frames: int, side: int) -> tuple[np.ndarray, list[float]]:
    """The first `frames` frames (T, H, W, 3), cut to `side` pixels at the centre (0: whole), and their times."""
    with VideoReader(path, aux=False) as reader:
        taken = list(islice(reader, frames))
        times = [float(frame.pts * reader.info.time_base) for frame in taken]
    pictures = np.stack([frame.rgb for frame in taken])
    height, width = pictures.shape[1:3]
    if side:
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        pictures = pictures[:, top : top + side, left : left + side]
    return pictures, times


def _one_operation(block: layers.ResBlock, layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The convolution as a GPU has it."""
    out: torch.Tensor = layer(x)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=0, metavar="PIXELS")
    parser.add_argument("--mse", type=float, default=0.007)
    parser.add_argument("--model", type=Path, help="weights; those of the package by default")
    options = parser.parse_args()

    layers.ResBlock._convolve = _one_operation  # type: ignore[method-assign]
    model = elastictok.load_model(options.model, device="cpu")
    pictures, times = load(options.clip, options.frames, options.side)
    with Counted() as encoding:
        video = elastictok.encode(pictures, model, options.mse, times=times)
    result = {"encode": encoding.report("encode", len(pictures))}
    with Counted() as decoding:
        elastictok.decode(video, model)
    result["decode"] = decoding.report("decode", len(pictures))
    print(json.dumps({"clip": options.clip.name, "frames": len(pictures), "mse": options.mse, **result}))


if __name__ == "__main__":
    main()
