"""The recipe of the paper: which tokens are dropped, how clips grow, what is minimised, and by what.

Numbers are those of the code published with it: `scripts/run_train.sh` of LargeWorldModel/ElasticTok, and the
AdamW of the `tux` library it uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from elastictok_cli.models.paper.bottleneck import KL_WEIGHT
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.patches import unpatchify
from elastictok_cli.models.paper.transformer import Output, PaperModel
from elastictok_cli.training.paper.lpips import LPIPS


@dataclass(frozen=True)
class Recipe:
    """Weights of the loss and settings of AdamW."""

    lr: float = 1e-4  # after the warm-up it stays: the published cosine ends where it begins
    warmup: int = 2000  # steps in which the rate grows from zero
    weight_decay: float = 1e-4  # of all parameters, norms included
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0  # of the gradient's norm
    kl: float = KL_WEIGHT
    lpips: float = 0.1

    def optimizer(self, model: PaperModel) -> torch.optim.AdamW:
        """AdamW; one kernel for all parameters where there is one."""
        fused = next(model.parameters()).device.type == "cuda"
        return torch.optim.AdamW(
            model.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=fused
        )

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, 2, ..."""
        return self.lr * (min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0)


def kept_lengths(c: PaperConfig, blocks: int, generator: torch.Generator) -> torch.Tensor:
    """Tail drop (section 3.2 of the paper): for each block a length, uniform from the shortest to all; (blocks,)."""
    return torch.randint(c.min_tokens, c.block_tokens + 1, (blocks,), generator=generator)


def keep_mask(c: PaperConfig, lengths: torch.Tensor) -> torch.Tensor:
    """Lengths (blocks,) to the mask of a clip, (L,) bool."""
    return (torch.arange(c.block_tokens) < lengths[:, None]).flatten()


def stages(most: int) -> list[int]:
    """Blocks of a clip, stage by stage: 1, 2, 4, ... and at last `most`."""
    doubled = [1 << n for n in range(most.bit_length()) if 1 << n < most]
    return [*doubled, most]


def blocks_at(progress: float, most: int) -> int:
    """Blocks of a clip after this share (0 .. 1) of the budget: every stage gets an equal part of it."""
    steps = stages(most)
    return steps[min(int(progress * len(steps)), len(steps) - 1)]


@dataclass(frozen=True)
class Terms:
    """What one batch of clips is judged by; scalars of float32."""

    loss: torch.Tensor
    first: torch.Tensor  # MSE of first blocks
    later: torch.Tensor | None  # MSE of the others
    lpips: torch.Tensor | None


def judge(
    recipe: Recipe,
    c: PaperConfig,
    patches: torch.Tensor,  # (B, L, P) in [-1, 1]
    output: Output,
    lpips: LPIPS | None = None,
    frames: Sequence[int] = (),  # of each clip, the one that LPIPS looks at
) -> Terms:
    """MSE over all patches, dropped ones too; KL for the VAE; LPIPS of one frame of each clip."""
    error = (output.recon.float() - patches).square()  # (B, L, P)
    blocks = error.reshape(len(error), -1, c.block_tokens, c.patch_values).mean((0, 2, 3))  # (blocks,)
    loss = blocks.mean() + recipe.kl * output.kl
    seen = None
    if lpips is not None:
        number = torch.arange(len(patches), device=patches.device)
        chosen = torch.tensor(frames, device=patches.device)
        shown, real = (unpatchify(x, c)[number, chosen] for x in (output.recon.float(), patches))
        seen = lpips(shown, real).mean()
        loss = loss + recipe.lpips * seen
    later = blocks[1:].mean().detach() if len(blocks) > 1 else None
    return Terms(loss, blocks[0].detach(), later, seen.detach() if seen is not None else None)
