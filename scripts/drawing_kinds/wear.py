"""What happens to pictures of screens on their way: colour at half the resolution, JPEG, H.264. And lossless files."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

Pictures = list[np.ndarray]  # (height, width, 3) uint8 each
RATE = 30


def worn(rng: random.Random, pictures: Pictures) -> Pictures:
    """The pictures after one kind of wear, drawn at random."""
    kind: Callable[[random.Random, Pictures], Pictures] = rng.choice((subsampled, jpeg, h264, h264))
    return kind(rng, pictures)


def subsampled(rng: random.Random, pictures: Pictures) -> Pictures:
    """Through YUV 4:2:0 and back, nothing else lost."""
    return [_to_rgb(_to_yuv(picture, "yuv420p"), *picture.shape[:2]) for picture in pictures]


def jpeg(rng: random.Random, pictures: Pictures) -> Pictures:
    """Each picture through JPEG, with colour at full or half resolution."""
    quality, subsampling = rng.randint(55, 95), rng.choice(("4:4:4", "4:2:2", "4:2:0"))
    made = []
    for picture in pictures:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling=subsampling)
        made.append(np.asarray(Image.open(stream).convert("RGB")))
    return made


def h264(rng: random.Random, pictures: Pictures) -> Pictures:
    """Through H.264, from nearly without loss to visibly worn."""
    crf, pixels = rng.randint(10, 32), rng.choice(("yuv420p", "yuv420p", "yuv420p", "yuv444p"))
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        # one thread: the result must not depend on how many cores there are
        options = {"crf": str(crf), "preset": rng.choice(("ultrafast", "veryfast", "medium")), "threads": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        first = _to_yuv(pictures[0], pixels)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pixels
        for picture in pictures:
            container.mux(stream.encode(_to_yuv(picture, pixels)))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        return [_to_rgb(frame, *pictures[0].shape[:2]) for frame in source.decode(video=0)]


def _to_yuv(picture: np.ndarray, pixels: str) -> av.VideoFrame:
    """BT.601, limited range; sides are made even by repeating the last row or column."""
    height, width = picture.shape[:2]
    even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(format=pixels)


def _to_rgb(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")[:height, :width]


def write(path: Path, pictures: Pictures) -> None:
    """A lossless clip, FFV1 in Matroska."""
    # without +bitexact a file begins with a random number
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=Fraction(RATE))
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
            )
        container.mux(stream.encode(None))
