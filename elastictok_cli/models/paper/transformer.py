"""The paper's model: ElasticTok (arXiv 2410.08368) as published, so that its weights load and give its numbers.

A tile of 256x256 pixels x 4 frames is cut into patches, one token each, in raster order. Encoder and decoder are
plain transformers (RMSNorm, SwiGLU, rotary positions) whose attention is block-causal: a block sees itself and the
blocks before it. Between them sits a narrow bottleneck, FSQ or VAE. Only the first k tokens of a block are kept;
the encoder is told which by an embedding, dropped ones reach the decoder as zeros.

Shapes: B tiles, n blocks, N tokens of a block, L = n * N tokens, C hidden, H heads, D = C / H, P values of a
patch, d values of a token (6 digits for FSQ, 8 numbers for the VAE), S = tokens attended to (earlier blocks and L).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

KL_WEIGHT = 1e-8  # of the VAE's KL divergence in the loss, as published


@dataclass(frozen=True)
class PaperConfig:
    """Sizes of a model; stored in the checkpoint."""

    name: str = "elastictok-fsq-200m"
    bottleneck: Literal["fsq", "vae"] = "fsq"
    patch: tuple[int, int, int] = (1, 8, 8)  # frames, height, width
    frames: int = 4  # of a block
    size: int = 256  # side of a tile in pixels
    min_tokens: int = 256  # shortest length seen in training; the longest is all of them
    hidden: int = 1024
    mlp: int = 2048
    encoder_layers: int = 10
    decoder_layers: int = 10
    heads: int = 8
    eps: float = 1e-5
    theta: float = 5e7
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)  # FSQ
    latent: int = 8  # VAE
    window: int = 4  # blocks that attention spans, the current one included: those of a chunk in training

    def __post_init__(self) -> None:
        sizes = [getattr(self, f.name) for f in fields(self) if type(f.default) is int]
        if not all(type(n) is int and n > 0 for n in [*sizes, *self.patch, *self.levels]):
            raise ValueError("sizes must be whole numbers above 0")
        if len(self.patch) != 3 or self.bottleneck not in ("fsq", "vae"):
            raise ValueError("patch has three sides, bottleneck is fsq or vae")
        if self.frames % self.patch[0] or self.size % self.patch[1] or self.size % self.patch[2]:
            raise ValueError("patches do not fill a tile")
        if self.hidden % (2 * self.heads):
            raise ValueError("hidden must be heads times an even number")
        if self.min_tokens > self.block_tokens:
            raise ValueError("min_tokens is more than a block has")
        if self.block_tokens > 8192 or math.prod(self.levels) > 65536 or self.latent > 64 or self.frames > 32:
            raise ValueError(
                "sizes are beyond what a file holds: 8192 tokens, 65536 codes, 64 numbers, 32 frames"
            )

    @property
    def block_tokens(self) -> int:
        """N, tokens of a block: the longest length."""
        return self.frames // self.patch[0] * (self.size // self.patch[1]) * (self.size // self.patch[2])

    @property
    def patch_values(self) -> int:
        """P, numbers in a patch."""
        return 3 * math.prod(self.patch)

    @property
    def code_dim(self) -> int:
        """d, numbers in a token as the decoder gets it."""
        return len(self.levels) if self.bottleneck == "fsq" else self.latent

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PaperConfig:
        """Inverse of `to_dict`. Raises TypeError for unknown keys, ValueError for sizes that do not fit."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise TypeError(f"unknown settings {sorted(unknown)}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def named(cls, name: str) -> PaperConfig:
        """A published config ("fsq-200m", "vae-200m"), or that of a JSON file of settings.

        Raises ValueError with one sentence for the user.
        """
        if name in PRESETS:
            return PRESETS[name]
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"{name} is neither a config ({', '.join(PRESETS)}) nor a file")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError("it must be an object")
            return cls.from_dict(values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is no config: {error}") from None


PRESETS = {
    "fsq-200m": PaperConfig(),
    "vae-200m": PaperConfig(
        name="elastictok-vae-200m", bottleneck="vae", patch=(2, 8, 8), min_tokens=128, theta=5e6
    ),
}


class KV(NamedTuple):
    """What one layer remembers of one block. Keys are not yet turned to a position: that changes as blocks pass by."""

    k: torch.Tensor  # (B, H, N, D)
    v: torch.Tensor  # (B, H, N, D)


Cache = tuple[KV, ...]  # of one block, one for each layer
Past = tuple[Cache, ...]  # the earlier blocks that a block attends to, oldest first


class Window(NamedTuple):
    """What one layer attends to besides the block itself, and where all of it is laid out, over and over."""

    blocks: tuple[KV, ...]  # oldest first
    room: KV  # (B, H, S, D): fresh memory has its price, so one room serves all layers

    def lay_out(self, own: KV, angles: torch.Tensor) -> KV:
        """Keys and values (B, H, S, D) of all blocks, `own` last; keys turned by angles (S, D/2)."""
        end = 0
        for block in (*self.blocks, own):
            start, end = end, end + block.k.shape[2]
            k = block.k.to(angles.device, non_blocking=True)  # blocks at rest may lie elsewhere
            self.room.k[:, :, start:end] = rotate(k, angles[start:end])  # (B, H, N, D)
            self.room.v[:, :, start:end] = block.v  # (B, H, N, D)
        return self.room


class Output(NamedTuple):
    """A whole pass."""

    recon: torch.Tensor  # (B, L, P) in [-1, 1]
    codes: torch.Tensor  # (B, L, d), zero where dropped
    kl: torch.Tensor  # () VAE: divergence from the unit Gaussian, not weighted; FSQ: 0


class PaperModel(nn.Module):
    """Encoder, bottleneck and decoder. `forward` is for training; the codec encodes and decodes block by block."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)
        self.initialize()

    def initialize(self, std: float = 0.02) -> None:
        """Random weights as in the paper: normal of width `std`, norms 1."""
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                continue
            if "norm" in name:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=std)

    def forward(
        self,
        patches: torch.Tensor,  # (B, L, P) in [-1, 1], L a multiple of N
        keep: torch.Tensor,  # (B, L) bool, which tokens are kept
        segments: torch.Tensor | None = None,  # (B, L) ids; tokens see their own segment only
        *,
        noise: torch.Tensor
        | None = None,  # (B, L, d) normal; VAE: draws codes from the posterior, else its mean
    ) -> Output:
        """All blocks at once, differentiable: through FSQ's rounding the gradient goes straight."""
        raw, _ = self.encoder(patches, keep, segments=segments)  # (B, L, d), VAE (B, L, 2d)
        codes, kl = self.bottleneck(raw, keep, noise)  # (B, L, d), ()
        codes = codes * keep.unsqueeze(-1)  # (B, L, d)
        recon, _ = self.decoder(codes, segments=segments)  # (B, L, P)
        return Output(recon, codes, kl)

    def bottleneck(
        self, raw: torch.Tensor, keep: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output to codes (B, L, d), nothing dropped yet, and the VAE's KL over kept tokens.

        The KL is a sum over the kept tokens of a block and a mean over blocks; training adds KL_WEIGHT times it.
        """
        raw = raw.float()
        if self.config.bottleneck == "fsq":
            return fsq(raw, self.config.levels), raw.new_zeros(())
        mean, logvar = raw.chunk(2, -1)  # (B, L, d) each
        logvar = logvar.clamp(-30, 20)
        codes = mean if noise is None else mean + (0.5 * logvar).exp() * noise
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1) * keep  # (B, L)
        return codes, kl.reshape(-1, self.config.block_tokens).sum(-1).mean()

    @torch.no_grad()
    def encode(
        self, patches: torch.Tensor, keep: torch.Tensor, past: Past = ()
    ) -> tuple[torch.Tensor, Cache]:
        """Codes (B, N, d) of one block after those in `past`, zero where dropped, and the block's own cache."""
        dropped = _dropped(keep)
        raw, cache = self.encoder(patches, keep, past, unread=dropped)  # (B, N - dropped, d)
        raw = F.pad(raw, (0, 0, 0, dropped))  # (B, N, d)
        return self.bottleneck(raw, keep)[0] * keep.unsqueeze(-1), cache

    @torch.no_grad()
    def decode(self, codes: torch.Tensor, keep: torch.Tensor, past: Past = ()) -> tuple[torch.Tensor, Cache]:
        """Patches (B, N, P) in [-1, 1] of one block after those in `past`, and the block's own cache.

        codes must be zero where not kept.
        """
        recon, cache = self.decoder(codes, past, zeros=_dropped(keep))
        return recon, cache

    def extend(self, past: Past, new: Cache) -> Past:
        """What the next block attends to: `past` and `new`, without what has left the window. Nothing is copied."""
        return (*past, new)[max(0, len(past) + 2 - self.config.window) :]


class Encoder(nn.Module):
    """Patches to what the bottleneck quantizes."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        out = c.code_dim * (2 if c.bottleneck == "vae" else 1)  # mean and log-variance
        self.in_proj = nn.Linear(c.patch_values, c.hidden, bias=False)
        self.is_kept_embed = nn.Parameter(torch.zeros(1, c.hidden))
        self.is_masked_embed = nn.Parameter(torch.zeros(1, c.hidden))
        self.blocks = Transformer(c, c.encoder_layers)
        self.pre_quant = nn.Linear(c.hidden, out, bias=False)

    def forward(
        self,
        patches: torch.Tensor,  # (B, L, P)
        keep: torch.Tensor,  # (B, L)
        past: Past = (),
        segments: torch.Tensor | None = None,
        unread: int = 0,
    ) -> tuple[torch.Tensor, Cache]:
        """(B, L, d), for a VAE (B, L, 2d), without the last `unread` tokens.

        Dropped positions carry their pixels too, and are attended to.
        """
        x = self.in_proj(patches)  # (B, L, C)
        x = x + torch.where(keep.unsqueeze(-1), self.is_kept_embed, self.is_masked_embed)  # (B, L, C)
        x, cache = self.blocks(x, past, segments, unread=unread)  # (B, L - unread, C)
        with torch.autocast(x.device.type, enabled=False):  # half precision would merge codes
            return self.pre_quant(x.float()), cache


class Decoder(nn.Module):
    """Codes to patches."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        self.post_quant = nn.Linear(c.code_dim, c.hidden, bias=False)
        self.blocks = Transformer(c, c.decoder_layers)
        self.out_proj = nn.Linear(c.hidden, c.patch_values, bias=False)

    def forward(
        self,
        codes: torch.Tensor,  # (B, L, d)
        past: Past = (),
        segments: torch.Tensor | None = None,
        zeros: int = 0,
    ) -> tuple[torch.Tensor, Cache]:
        """(B, L, P) in [-1, 1]. There are no biases: dropped tokens (the last `zeros`) enter as exact zeros."""
        x = self.post_quant(codes)  # (B, L, C)
        x, cache = self.blocks(x, past, segments, zeros=zeros)  # (B, L, C)
        return torch.tanh(self.out_proj(x).float()), cache


class Transformer(nn.Module):
    """Layers and a last norm."""

    def __init__(self, c: PaperConfig, layers: int) -> None:
        super().__init__()
        self.config = c
        self.recompute = False  # in training: layers are run again for the gradient, to save memory
        self.layers = nn.ModuleList(Layer(c) for _ in range(layers))
        self.norm = nn.RMSNorm(c.hidden, c.eps)

    def forward(
        self,
        x: torch.Tensor,  # (B, L, C)
        past: Past = (),
        segments: torch.Tensor | None = None,
        *,
        zeros: int = 0,
        unread: int = 0,
    ) -> tuple[torch.Tensor, Cache]:
        """(B, L - unread, C), and the cache of these L tokens alone.

        Of one block, work that dropped tokens do not need can be saved: if the last `zeros` come in as zeros, the
        first layer makes the same of all of them; what the last layer makes of the last `unread`, nobody reads.
        """
        before = sum(block[0].k.shape[2] for block in past)
        angles = rotations(before + x.shape[1], self.config, x.device)  # (S, D/2)
        mask = None if segments is None else block_mask(segments, self.config.block_tokens)  # (B, 1, L, L)
        if self.recompute and not past and torch.is_grad_enabled():
            for layer in self.layers:
                run = partial(_without_cache, layer, angles=angles, mask=mask)
                x = checkpoint(run, x, use_reentrant=False)  # (B, L, C)
            return self.norm(x), ()
        room = self._room(x, len(angles)) if past else None
        cache = []
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            old = Window(tuple(block[number] for block in past), room) if room else None
            alike = max(0, zeros - 1) if number == 0 else 0  # of the zeros, one stands for all
            rows = x.shape[1] - unread if number == last else None
            x, new = layer(x[:, : x.shape[1] - alike], angles, old, mask, alike=alike, rows=rows)  # (B, L, C)
            cache.append(new)
        return self.norm(x), tuple(cache)

    def _room(self, x: torch.Tensor, length: int) -> KV:
        """Memory for keys and values of a window. x: (B, L, C)."""
        shape = (len(x), self.config.heads, length, self.config.hidden // self.config.heads)  # (B, H, S, D)
        return KV(x.new_empty(shape), x.new_empty(shape))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(c.hidden, c.eps)
        self.attention = Attention(c)
        self.mlp_norm = nn.RMSNorm(c.hidden, c.eps)
        self.mlp = SwiGLU(c)

    def forward(
        self,
        x: torch.Tensor,  # (B, L, C)
        angles: torch.Tensor,  # (S, D/2)
        past: Window | None = None,
        mask: torch.Tensor | None = None,
        *,
        alike: int = 0,  # further tokens, left out, that are zeros as the last one is
        rows: int | None = None,  # only so many tokens are wanted
    ) -> tuple[torch.Tensor, KV]:
        """(B, L, C) to the same."""
        attended, new = self.attention(self.attention_norm(x), angles, past, mask, alike, rows)  # (B, L, C)
        x = x[:, :rows] + attended  # (B, L, C)
        x = x + self.mlp(self.mlp_norm(x))  # (B, L, C)
        return (torch.cat([x, x[:, -1:].expand(-1, alike, -1)], 1) if alike else x), new


class Attention(nn.Module):
    """Block-causal attention with rotary positions."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        self.heads, self.block = c.heads, c.block_tokens
        self.wq = nn.Linear(c.hidden, c.hidden, bias=False)
        self.wk = nn.Linear(c.hidden, c.hidden, bias=False)
        self.wv = nn.Linear(c.hidden, c.hidden, bias=False)
        self.wo = nn.Linear(c.hidden, c.hidden, bias=False)

    def forward(
        self,
        x: torch.Tensor,  # (B, L, C)
        angles: torch.Tensor,  # (S, D/2), of the window and these tokens
        past: Window | None,
        mask: torch.Tensor | None,
        alike: int = 0,
        rows: int | None = None,
    ) -> tuple[torch.Tensor, KV]:
        """(B, L, C) to the same, and the keys and values of these tokens. `alike` and `rows` as in `Layer`."""
        q = self.split(self.wq(x[:, :rows]))  # (B, H, L, D)
        k = self.split(self.wk(x))  # (B, H, L, D)
        v = self.split(self.wv(x))  # (B, H, L, D)
        if alike:  # a zero's key and value are zeros
            k, v = F.pad(k, (0, 0, 0, alike)), F.pad(v, (0, 0, 0, alike))
        new = KV(k, v)
        before = len(angles) - k.shape[2]
        q = rotate(q, angles[before:])  # (B, H, L, D)
        k, v = past.lay_out(new, angles) if past else KV(rotate(k, angles), v)  # (B, H, S, D)
        if mask is not None:
            out = F.scaled_dot_product_attention(q, k, v, mask)  # (B, H, L, D)
        else:
            out = self.block_by_block(q, k, v, before)  # (B, H, L, D)
        return self.wo(out.transpose(1, 2).flatten(2)), new  # (B, L, C)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, C) to (B, H, L, D)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def block_by_block(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, before: int) -> torch.Tensor:
        """Each block's queries over its own keys and all before: no mask, and nothing computed to be masked.

        `before`: how many of the keys belong to earlier blocks than the first query.
        """
        parts = []
        for start in range(0, q.shape[2], self.block):
            queries, end = q[:, :, start : start + self.block], before + start + self.block
            parts.append(
                F.scaled_dot_product_attention(queries, k[:, :, :end], v[:, :, :end])
            )  # (B, H, N, D)
        return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, c: PaperConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(c.hidden, c.mlp, bias=False)
        self.w2 = nn.Linear(c.mlp, c.hidden, bias=False)
        self.w3 = nn.Linear(c.hidden, c.mlp, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, C) to the same."""
        if torch.is_grad_enabled():
            out: torch.Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        else:  # in place: a twentieth faster, as fresh memory has its price
            out = self.w2(F.silu(self.w1(x), inplace=True).mul_(self.w3(x)))
        return out


def rotations(length: int, c: PaperConfig, device: torch.device | str = "cpu") -> torch.Tensor:
    """Rotary angles of positions 0 on, (length, D/2) complex64: position * theta^(-2i/D)."""
    half = c.hidden // c.heads // 2
    speed = c.theta ** (-torch.arange(half, dtype=torch.float32, device=device) / half)  # (D/2,)
    position = torch.arange(length, dtype=torch.float32, device=device)  # (length,)
    angle = position[:, None] * speed  # (length, D/2)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary positions: values 2i and 2i + 1 are one complex number, turned.

    x: (B, H, L, D); angles (L or more, D/2).
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], x.shape[-1] // 2, 2))  # (B, H, L, D/2)
    return torch.view_as_real(pairs * angles[: x.shape[2]]).flatten(-2).to(x.dtype)  # (B, H, L, D)


def block_mask(segments: torch.Tensor, block: int) -> torch.Tensor:
    """(B, 1, L, L) bool: query's block at or after the key's, and the same segment. segments: (B, L)."""
    number = torch.arange(segments.shape[1], device=segments.device) // block  # (L,)
    causal = number[:, None] >= number  # (L, L)
    return (causal & (segments[:, :, None] == segments[:, None])).unsqueeze(1)


def _without_cache(
    layer: nn.Module, x: torch.Tensor, *, angles: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    out: torch.Tensor = layer(x, angles, None, mask)[0]  # (B, L, C)
    return out


def _dropped(keep: torch.Tensor) -> int:
    """How many tokens at the end of a block no tile of the batch keeps; never all of them. keep: (B, N)."""
    kept = keep.any(0).nonzero()  # (number, 1)
    return keep.shape[1] - 1 - (int(kept[-1]) if len(kept) else 0)


def fsq(raw: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Finite scalar quantization (arXiv 2309.15505): raw (..., d) to codes in [-1, 1], gradient of the rounding 1."""
    bound = fsq_bound(raw, levels)
    rounded = bound + (bound.round() - bound).detach()
    return rounded / _half_width(levels, raw)


def fsq_bound(raw: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Squash (..., d) so that rounding gives each digit its number of levels."""
    count = raw.new_tensor(levels)  # (d,)
    half = (count - 1) * (1 - 1e-3) / 2
    offset = torch.where(count % 2 == 0, 0.5, 0.0)
    shift = (
        offset / half
    ).tan()  # the published code has tan where atanh was meant; the weights are made for it
    return (raw + shift).tanh() * half - offset


def codes_to_index(codes: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """FSQ codes (..., d) to token numbers (...) int64, first digit fastest."""
    half = _half_width(levels, codes)
    digits = (codes * half + half).round().to(torch.int64)  # (..., d)
    return (digits * _basis(levels, codes.device)).sum(-1)


def index_to_codes(index: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Inverse of `codes_to_index`: (...) to (..., d) float32."""
    count = torch.tensor(levels, device=index.device)
    digits = index.unsqueeze(-1) // _basis(levels, index.device) % count  # (..., d)
    half = count // 2
    return (digits - half).float() / half.float()


def _half_width(levels: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor([n // 2 for n in levels])


def _basis(levels: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor([math.prod(levels[:i]) for i in range(len(levels))], device=device)


def patchify(frames: torch.Tensor, c: PaperConfig) -> torch.Tensor:
    """(B, T, 3, size, size) to (B, L, P): tokens ordered time, row, column; values time, row, column, channel."""
    b, t, _, h, w = frames.shape
    pt, ph, pw = c.patch
    x = frames.reshape(b, t // pt, pt, 3, h // ph, ph, w // pw, pw)
    return x.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(b, -1, c.patch_values)


def unpatchify(patches: torch.Tensor, c: PaperConfig) -> torch.Tensor:
    """Inverse of `patchify`."""
    b = patches.shape[0]
    pt, ph, pw = c.patch
    x = patches.reshape(b, -1, c.size // ph, c.size // pw, pt, ph, pw, 3)  # (B, T/pt, h, w, pt, ph, pw, 3)
    return x.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(b, -1, 3, c.size, c.size)
