"""Tables of the promise `video` beside the promise `block`: what one lambda for a whole video is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from elastictok_cli.codec.budget import DEFAULT_WORST
from elastictok_cli.evaluation.markdown import UNKNOWN, captioned, means, missed, ratio_text
from elastictok_cli.evaluation.measurements import by_clip, by_target
from elastictok_cli.evaluation.tokens import Measured, geometric_mean

ABOVE_WORST = f"blocks above {DEFAULT_WORST:g} times the target"


def video_table(video: Sequence[Measured], block: Sequence[Measured]) -> str:
    """Errors, tokens and bytes of `video` at each target, and their ratios to those of `block` at the same target."""
    pairs = _paired(video, block)
    rows = []
    for target, clips in by_target(video).items():
        tokens, size = means(clips)
        rows.append(
            [
                f"{target:g}",
                f"{fmean(m.mse / target for m in clips):.3f}",
                f"{sum(m.mse > target for m in clips)} of {len(clips)}",
                _worst(clips),
                missed(clips),
                tokens,
                _ratio(clips, pairs, _tokens),
                size,
                _ratio(clips, pairs, _bytes),
            ]
        )
    return captioned(
        f"{len(by_clip(video))} clips, the mean error of the video under the target and no block above "
        f"{DEFAULT_WORST:g} times the target (`--promise video`). The errors are those of the decoded pixels "
        "in parts of the target, mean over the clips and the worst block of all. Ratios are to `block` at the "
        "same target, geometric means over the clips:",
        [
            "target",
            "mean error",
            "clips above the target",
            "worst block",
            ABOVE_WORST,
            "tokens",
            "to `block`",
            "bytes",
            "to `block`",
        ],
        rows,
    )


def video_facts(m: Measured, block: Sequence[Measured]) -> list[str]:
    """One clip at one target, as VIDEO_FACTS."""
    pairs = _paired([m], block)
    return [
        f"{m.mse:.5f}",
        _worst([m]),
        missed([m]),
        f"{m.tokens_per_block:.0f}",
        _ratio([m], pairs, _tokens),
        f"{m.bytes_per_block:.0f}",
        _ratio([m], pairs, _bytes),
    ]


VIDEO_FACTS = (
    "MSE reached",
    "worst block / target",
    ABOVE_WORST,
    "tokens",
    "to `block`",
    "bytes",
    "to `block`",
)

_Key = tuple[str, float]  # clip and target


def _paired(video: Sequence[Measured], block: Sequence[Measured]) -> dict[_Key, tuple[Measured, Measured]]:
    """`video` and `block` of the same clip at the same target, where both were measured."""
    found = {(m.clip, m.target): m for m in block}
    return {(m.clip, m.target): (m, found[m.clip, m.target]) for m in video if (m.clip, m.target) in found}


def _ratio(
    clips: Sequence[Measured],
    pairs: dict[_Key, tuple[Measured, Measured]],
    amount: Callable[[Measured], int],
) -> str:
    known = [pairs[m.clip, m.target] for m in clips if (m.clip, m.target) in pairs]
    return ratio_text(geometric_mean([amount(v) / amount(b) for v, b in known]) if known else None)


def _tokens(m: Measured) -> int:
    return max(m.tokens, 1)


def _bytes(m: Measured) -> int:
    return m.bytes


def _worst(clips: Sequence[Measured]) -> str:
    """The worst block of all, in parts of the target."""
    known = [m.worst_mse / m.target for m in clips if m.worst_mse is not None]
    return f"{max(known):.2f}" if known else UNKNOWN
