"""The paper's model as the codec sees it: pictures of any size as a batch of square tiles, each on its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from elastictok_cli.models.interface import TokenizerSpec, Trial
from elastictok_cli.models.paper.attention import KV, Cache, Past
from elastictok_cli.models.paper.bottleneck import codes_to_index, index_to_codes
from elastictok_cli.models.paper.cache import CacheStore, cache_bytes
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.patches import patchify, unpatchify
from elastictok_cli.models.paper.transformer import PaperModel

_GPU_BATCH = 8  # tiles or lengths at once
_MAX_FLOAT16 = 65504.0


class TileContext(NamedTuple):
    """The keys and values of one tile's earlier blocks; none at a keyframe."""

    encoder: Past  # empty also when only decoding
    decoder: Past


class TileState(NamedTuple):
    """The keys and values of one trial."""

    encoder: Cache
    decoder: Cache


class PaperTokenizer:
    """See `interface.LengthTokenizer`. One tile is one cell."""

    def __init__(self, model: PaperModel, batch: int | None = None, room: int | None = None) -> None:
        """`room`: see `CacheStore`."""
        self.model = model
        self.device = next(model.parameters()).device
        # one at a time keeps a CPU just as busy, and its caches and memory small
        self.batch = batch or (1 if self.device.type == "cpu" else _GPU_BATCH)
        self.spec = make_spec(model.config)
        self.caches = CacheStore(self.device, room)

    def start(self, height: int, width: int) -> tuple[TileContext, ...]:
        """See `interface.Tokenizer.start`: nothing is known of any tile."""
        rows, cols = self.spec.grid(height, width)
        return (TileContext((), ()),) * (rows * cols)

    def trials(
        self,
        frames: torch.Tensor,  # (1, T, 3, H, W)
        context: tuple[TileContext, ...],
        wanted: Sequence[tuple[int, int]],
    ) -> Iterator[Trial]:
        """See `interface.LengthTokenizer.trials`."""
        for first in range(0, len(wanted), self.batch):
            yield from self._try(frames, context, wanted[first : first + self.batch])

    @torch.inference_mode()
    def _try(
        self,
        frames: torch.Tensor,
        context: tuple[TileContext, ...],
        group: Sequence[tuple[int, int]],
    ) -> list[Trial]:
        c = self.model.config
        keep = self._mask(torch.tensor([length for _, length in group], device=self.device))  # (M, N)
        past = [context[cell] for cell, _ in group]
        tiles = torch.cat([self._tile(frames, cell) for cell, _ in group])  # (M, T, 3, size, size)
        codes, encoder = self.model.encode(patchify(tiles, c), keep, _together([p.encoder for p in past]))
        tokens = self._tokens(codes, keep)  # (M, N) or (M, N, D)
        # from the tokens, not from the codes: what is measured is what a file can hold
        recon, decoder = self.model.decode(
            self._codes(tokens, keep), keep, _together([p.decoder for p in past])
        )
        shown = unpatchify(recon, c)  # (M, T, 3, size, size)
        needed = len(context) * c.window * cache_bytes(c, encoding=True)
        states = [
            TileState(*(self.caches.put(_one(cache, n), needed) for cache in (encoder, decoder)))
            for n in range(len(group))
        ]
        return [Trial(tokens[n], shown[n], state) for n, state in enumerate(states)]

    def commit(self, context: tuple[TileContext, ...], chosen: Sequence[Trial]) -> tuple[TileContext, ...]:
        """See `interface.LengthTokenizer.commit`."""
        extend = self.model.extend
        return tuple(
            TileContext(extend(past.encoder, trial.state.encoder), extend(past.decoder, trial.state.decoder))
            for past, trial in zip(context, chosen, strict=True)
        )

    @torch.inference_mode()
    def decode(
        self, tokens: torch.Tensor, keep: torch.Tensor, context: tuple[TileContext, ...], *, count: int
    ) -> tuple[torch.Tensor, tuple[TileContext, ...]]:
        """See `interface.Tokenizer.decode`; tokens (1, N, h, w) or (1, N, h, w, D)."""
        c = self.model.config
        _, _, rows, cols = tokens.shape[:4]
        flat = tokens[0].flatten(1, 2).transpose(0, 1)  # (h * w, N) or (h * w, N, D)
        masks = self._mask(keep.flatten())  # (h * w, N)
        needed = rows * cols * c.window * cache_bytes(c, encoding=False)
        shown, left = [], []
        for first in range(0, rows * cols, self.batch):
            part = slice(first, first + self.batch)
            past = [tile.decoder for tile in context[part]]
            recon, decoder = self.model.decode(
                self._codes(flat[part], masks[part]), masks[part], _together(past)
            )
            shown.append(unpatchify(recon, c))
            for n, old in enumerate(past):
                new = self.caches.put(_one(decoder, n), needed)
                left.append(TileContext((), self.model.extend(old, new)))
        return _assemble(torch.cat(shown), rows, cols), tuple(left)

    def _mask(self, lengths: torch.Tensor) -> torch.Tensor:
        """(M,) lengths to (M, N) bool."""
        return torch.arange(self.model.config.block_tokens, device=self.device) < lengths[:, None]

    def _tile(self, frames: torch.Tensor, cell: int) -> torch.Tensor:
        """(1, T, 3, H, W) to one tile of it, (1, T, 3, size, size)."""
        side = self.model.config.size
        row, col = divmod(cell, frames.shape[-1] // side)
        return frames[..., row * side : (row + 1) * side, col * side : (col + 1) * side]

    def _tokens(self, codes: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Codes (M, N, d) to what the file stores, zero where dropped."""
        c = self.model.config
        if c.bottleneck == "fsq":
            return codes_to_index(codes, c.levels) * keep
        return (codes * keep.unsqueeze(-1)).clamp(-_MAX_FLOAT16, _MAX_FLOAT16).to(torch.float16)

    def _codes(self, tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """What the file stores to codes (M, N, d), zero where dropped."""
        c = self.model.config
        if c.bottleneck == "fsq":
            return index_to_codes(tokens, c.levels) * keep.unsqueeze(-1)
        return tokens.float() * keep.unsqueeze(-1)


def make_spec(c: PaperConfig) -> TokenizerSpec:
    """What codec and container need to know of a model with this config."""
    discrete = c.bottleneck == "fsq"
    return TokenizerSpec(
        name=c.name,
        frames=c.frames,
        cell=(c.size, c.size),
        tokens_per_cell=c.block_tokens,
        levels=c.levels if discrete else (),
        vocabulary=math.prod(c.levels) if discrete else 0,
        nested=False,
        vector=0 if discrete else c.latent,
        shortest=c.min_tokens,
    )


def _together(pasts: Sequence[Past]) -> Past:
    """What single tiles attend to (their blocks are in step, so numbers agree) as that of a batch."""
    if len(pasts) == 1:
        return pasts[0]
    return tuple(
        tuple(KV(torch.cat([kv.k for kv in layer]), torch.cat([kv.v for kv in layer])) for layer in layers)
        for layers in (zip(*blocks, strict=True) for blocks in zip(*pasts, strict=True))
    )


def _one(cache: Cache, number: int) -> Cache:
    """One tile's part of a batch's cache; a copy, so that the rest can be freed."""
    if cache[0].k.shape[0] == 1:
        return cache
    return tuple(KV(kv.k[number : number + 1].clone(), kv.v[number : number + 1].clone()) for kv in cache)


def _assemble(tiles: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """(h * w, T, 3, size, size) to (1, T, 3, h * size, w * size)."""
    _, frames, channels, side, _ = tiles.shape
    grid = tiles.reshape(rows, cols, frames, channels, side, side).permute(2, 3, 0, 4, 1, 5)
    return grid.reshape(1, frames, channels, rows * side, cols * side)
