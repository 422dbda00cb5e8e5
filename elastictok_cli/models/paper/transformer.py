"""The paper's model: ElasticTok (arXiv 2410.08368) as published, so that its weights load and give its numbers.

A tile of 256x256 pixels x 4 frames is cut into patches, one token each, in raster order. Encoder and decoder are
plain transformers (RMSNorm, SwiGLU, rotary positions) whose attention is block-causal: a block sees itself and the
blocks before it. Between them sits a narrow bottleneck, FSQ or VAE. Only the first k tokens of a block are kept;
the encoder is told which by an embedding, dropped ones reach the decoder as zeros.

Shapes: B tiles, n blocks, N tokens of a block, L = n * N tokens, C hidden, H heads, D = C / H, P values of a
patch, d values of a token (6 digits for FSQ, 8 numbers for the VAE), S = tokens attended to (earlier blocks and L).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from elastictok_cli.models.paper.attention import KV, Attention, Cache, Past, Window, block_mask, rotations
from elastictok_cli.models.paper.bottleneck import fsq
from elastictok_cli.models.paper.config import PaperConfig


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


def _without_cache(
    layer: nn.Module, x: torch.Tensor, *, angles: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    out: torch.Tensor = layer(x, angles, None, mask)[0]  # (B, L, C)
    return out


def _dropped(keep: torch.Tensor) -> int:
    """How many tokens at the end of a block no tile of the batch keeps; never all of them. keep: (B, N)."""
    kept = keep.any(0).nonzero()  # (number, 1)
    return keep.shape[1] - 1 - (int(kept[-1]) if len(kept) else 0)
