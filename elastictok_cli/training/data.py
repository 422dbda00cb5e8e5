"""Training clips: folders of videos and photos, decoded once into memory, cropped at random."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from elastictok_cli.video.colour import tags_of, to_rgb

VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".mpg", ".y4m", ".gif"}
PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one source, (T, H, W, 3) uint8; a photo has T = 1."""

    name: str
    frames: np.ndarray


def find_media(folders: list[Path]) -> list[Path]:
    """Every video and photo below the folders, sorted so that a run can be repeated."""
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEOS | PHOTOS and path.is_file()
    )


def load_clips(
    paths: list[Path], *, most_frames: int, short_side: int | None, seed: int, limit_bytes: int
) -> Iterator[Clip]:
    """Decode each source: at most `most_frames` consecutive frames from a random place, short side at most
    `short_side` pixels; None keeps every size. Unreadable files are skipped. Stops when `limit_bytes` of pixels
    are held.
    """
    rng = random.Random(seed)
    order = paths.copy()
    rng.shuffle(order)
    held = 0
    for path in order:
        try:
            frames = _decode(path, most_frames, short_side, rng)
        except (av.FFmpegError, ValueError, OSError):
            continue
        if frames is None:
            continue
        held += frames.nbytes
        yield Clip(path.stem, frames)
        if held > limit_bytes:
            return


def _decode(path: Path, most: int, short_side: int | None, rng: random.Random) -> np.ndarray | None:
    with av.open(str(path)) as container:
        if not container.streams.video:
            return None
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        tags = tags_of(stream)
        first = rng.randrange(max(1, (stream.frames or 0) - most + 1))
        pictures: list[np.ndarray] = []
        size: tuple[int, int] | None = None
        for number, frame in enumerate(container.decode(stream)):
            if number < first:
                continue
            if size is None:
                scale = 1.0 if short_side is None else min(1.0, short_side / min(frame.width, frame.height))
                size = (round(frame.width * scale), round(frame.height * scale))
            pictures.append(to_rgb(frame, *size, tags))
            if len(pictures) == most:
                break
    return np.stack(pictures) if pictures else None


class _Pool:
    """Clips that samples are drawn from: those of at least `crop` pixels in both directions."""

    def __init__(self, clips: Sequence[Clip], *, crop: int, frames: int, name: str) -> None:
        """Raises ValueError when no clip is large enough; `name` is for the message."""
        usable = [c for c in clips if min(c.frames.shape[1:3]) >= crop]
        if not usable:
            raise ValueError(f"no video or photo of at least {crop} x {crop} pixels in the {name}")
        self.videos = [c for c in usable if len(c.frames) >= frames]
        self.photos = [c for c in usable if len(c.frames) < frames]
        # long clips are seen more often, but not in proportion
        self.weights = [len(c.frames) ** 0.5 for c in self.videos]

    def __len__(self) -> int:
        return len(self.videos) + len(self.photos)


class Sampler:
    """Random crops: several scales, frame steps, flips, reversed time; photos as still or gliding blocks."""

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        crop: int,
        frames: int,
        seed: int,
        graphics: Sequence[Clip] = (),
        graphics_share: float = 0.0,
    ) -> None:
        """`graphics_share` (0 to 1): how many of the samples come from `graphics` instead of `clips`.

        Clips smaller than `crop` in any direction are left out. Raises ValueError when none is left.
        """
        self.clips = _Pool(clips, crop=crop, frames=frames, name="training data")
        self.graphics: _Pool | None = None
        if graphics_share:
            self.graphics = _Pool(graphics, crop=crop, frames=frames, name="graphics")
        self.graphics_share = graphics_share
        self.crop, self.frames = crop, frames
        self.rng = random.Random(seed)

    def batch(self, size: int, photo_share: float = 0.15) -> torch.Tensor:
        """(size, frames, 3, crop, crop) float32 in [-1, 1]."""
        out = []
        for _ in range(size):
            pool = self.clips
            # no random number is drawn without graphics: runs from before there were any go on as they were
            if self.graphics is not None and self.rng.random() < self.graphics_share:
                pool = self.graphics
            use_photo = pool.photos and (not pool.videos or self.rng.random() < photo_share)
            out.append(self._photo(pool) if use_photo else self._video(pool))
        return torch.stack(out)

    def _window(self, height: int, width: int, extra: int = 0) -> tuple[int, int, int]:
        """Top, left and side of a source window that becomes one crop; larger sides are scaled down."""
        room = min(height, width)
        largest = min(room - extra, self.crop * 3)
        side = self.crop
        if largest > self.crop and self.rng.random() < 0.5:
            side = self.rng.randint(self.crop, largest)
        top = self.rng.randint(0, height - side)
        left = self.rng.randint(0, width - side)
        return top, left, side

    def _video(self, pool: _Pool) -> torch.Tensor:
        clip = self.rng.choices(pool.videos, pool.weights)[0].frames
        step = 2 if len(clip) >= 2 * self.frames and self.rng.random() < 0.15 else 1
        span = (self.frames - 1) * step + 1
        first = self.rng.randint(0, len(clip) - span)
        top, left, side = self._window(*clip.shape[1:3])
        window = clip[first : first + span : step, top : top + side, left : left + side]
        return self._finish(_to_tensor(window, self.crop))

    def _photo(self, pool: _Pool) -> torch.Tensor:
        picture = self.rng.choice(pool.photos).frames[0]
        room = min(picture.shape[:2]) - self.crop
        glide = min(room, 3 * self.frames) if self.rng.random() < 0.5 else 0
        if glide <= 0:
            top, left, side = self._window(*picture.shape[:2])
            still = _to_tensor(picture[None, top : top + side, left : left + side], self.crop)
            return self._finish(still.expand(self.frames, -1, -1, -1))
        # a window that glides with constant velocity, whole pixels
        reach_y, reach_x = self.rng.randint(0, glide), self.rng.randint(0, glide)
        top = self.rng.randint(0, picture.shape[0] - self.crop - reach_y)
        left = self.rng.randint(0, picture.shape[1] - self.crop - reach_x)
        path = [t / (self.frames - 1) for t in range(self.frames)]
        windows = [
            picture[y : y + self.crop, x : x + self.crop]
            for y, x in ((top + round(reach_y * p), left + round(reach_x * p)) for p in path)
        ]
        return self._finish(_to_tensor(np.stack(windows), self.crop))

    def _finish(self, clip: torch.Tensor) -> torch.Tensor:
        if self.rng.random() < 0.5:
            clip = clip.flip(-1)
        if self.rng.random() < 0.2:
            clip = clip.flip(-2)
        if self.rng.random() < 0.2:
            clip = clip.transpose(-1, -2)
        if self.rng.random() < 0.3:
            clip = clip.flip(0)
        return clip.contiguous()


def _to_tensor(window: np.ndarray, side: int) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (T, 3, side, side) float32 in [-1, 1]."""
    clip = torch.from_numpy(np.ascontiguousarray(window)).permute(0, 3, 1, 2).float()
    if clip.shape[-1] != side:
        clip = F.interpolate(clip, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return clip / 127.5 - 1
