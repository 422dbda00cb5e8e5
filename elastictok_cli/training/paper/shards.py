"""Clips of a batch, each process its own: the data is cut into shards, and each part of the batch draws from one.

What a place of the batch gets follows from the seed, the step and the place alone, and from the number of shards.
So it does not matter which process asks, or what was asked before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.training import data
from elastictok_cli.training.paper.recipe import kept_lengths


class Batch(NamedTuple):
    """Clips of one process."""

    pictures: torch.Tensor  # (B, T, 3, size, size) in [-1, 1]
    lengths: torch.Tensor  # (B, blocks)
    noise: torch.Tensor | None  # (B, L, d) normal, for a VAE
    frames: list[int]  # of each clip, one at random


class Shards:
    """The shards that some places of a batch draw from."""

    def __init__(
        self,
        c: PaperConfig,
        batch: int,
        own: Sequence[int],
        shards: int,
        seed: int,
        *,
        graphics_share: float = 0.0,
    ) -> None:
        """`own`: places among the `batch` that are asked for here. `graphics_share` (0 to 1): of the samples."""
        self.config, self.own, self.seed, self.shards = c, own, seed, shards
        self.graphics_share = graphics_share
        self.of = {place: place * shards // batch for place in own}
        self.clips: dict[int, list[data.Clip]] = {shard: [] for shard in sorted(set(self.of.values()))}
        self.graphics: dict[int, list[data.Clip]] = {shard: [] for shard in self.clips}
        self._samplers: dict[tuple[int, int], data.Sampler] = {}

    def load(
        self, folders: Sequence[Path], most_frames: int, limit_bytes: int, graphics: Sequence[Path] = ()
    ) -> Iterator[tuple[int, int]]:
        """Decode the shards; after each clip, how many clips and bytes are held.

        `graphics`: folders of clips of screens, read where there is a share for them and kept at their size.
        Raises ValueError where there are none, or a shard has none that is large enough.
        """
        c = self.config
        side: int | None = c.size * 9 // 8
        parts = [(self.clips, folders, side, 1.0, "data")]
        if self.graphics_share:
            # graphics first: what they leave of the memory is for the data
            parts = [(self.graphics, graphics, None, self.graphics_share, "graphics"), *parts]
        count = held = 0
        for held_by_shard, searched, short_side, share, name in parts:
            paths = data.find_media(list(searched))
            if not paths:
                raise ValueError(f"no videos or photos in {', '.join(map(str, searched))}")
            limit = (round(limit_bytes * share) - held) // len(self.clips)
            for shard, clips in held_by_shard.items():
                # with fewer files than shards, everyone sees all
                part = paths[shard :: self.shards] if len(paths) >= self.shards else paths
                for clip in data.load_clips(
                    part, most_frames=most_frames, short_side=short_side, seed=self.seed, limit_bytes=limit
                ):
                    clips.append(clip)
                    count, held = count + 1, held + clip.frames.nbytes
                    yield count, held
                if not any(min(clip.frames.shape[1:3]) >= c.size for clip in clips):
                    where = f", part {shard + 1} of {self.shards}" if self.shards > 1 else ""
                    raise ValueError(
                        f"no video or photo of at least {c.size} x {c.size} pixels in the {name}{where}"
                    )

    def batch(self, step: int, blocks: int) -> Batch:
        """Clips of `blocks` blocks for each of our places."""
        c = self.config
        pictures, lengths, noise, frames = [], [], [], []
        for place in self.own:
            name = f"{self.seed}-{step}-{place}"
            sampler = self._sampler(self.of[place], blocks * c.frames)
            sampler.rng.seed(name)
            pictures.append(sampler.batch(1)[0])
            generator = torch.Generator().manual_seed(random.Random(name).getrandbits(63))
            lengths.append(kept_lengths(c, blocks, generator))
            frames.append(int(torch.randint(blocks * c.frames, (), generator=generator)))
            if c.bottleneck == "vae":
                noise.append(torch.randn(blocks * c.block_tokens, c.latent, generator=generator))
        return Batch(
            torch.stack(pictures), torch.stack(lengths), torch.stack(noise) if noise else None, frames
        )

    def _sampler(self, shard: int, frames: int) -> data.Sampler:
        if (shard, frames) not in self._samplers:
            self._samplers[shard, frames] = data.Sampler(
                self.clips[shard],
                crop=self.config.size,
                frames=frames,
                seed=0,
                graphics=self.graphics[shard],
                graphics_share=self.graphics_share,
            )
        return self._samplers[shard, frames]
