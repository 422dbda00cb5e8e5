"""The tables of the quality benchmark in Markdown, from what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import fmean, median

from elastictok_cli.evaluation import anchors
from elastictok_cli.evaluation.anchors import Anchor
from elastictok_cli.evaluation.comparison import (
    LEAST_COMMON_RANGE,
    Compared,
    NotComparable,
    ratio_at_our_error,
    summarize,
)
from elastictok_cli.evaluation.measurements import Run, by_clip, by_target
from elastictok_cli.evaluation.tokens import Measured, geometric_mean

UNKNOWN = "-"
MAIN_TARGET = 0.007
FACTS = ("clip", "MSE reached", "tokens", "bytes", "blocks that miss")


def tables(run: Run, val: dict[str, Anchor], hard: dict[str, Anchor]) -> str:
    """All that belongs into a document; speeds do not, as they hold for one machine at one hour."""
    parts = []
    if run.val:
        parts.append(targets_table(run.val))
        parts.append(bd_rate_tables(run.val, val))
        parts.append(clips_table(run.val, val))
    if run.hard:
        parts.append(hard_table(run.hard, hard))
    if run.baseline:
        parts.append(against_baseline(run))
    return "\n\n".join(parts)


def targets_table(measured: Sequence[Measured]) -> str:
    """Tokens, bytes and missed blocks at each target."""
    rows = [
        [f"{target:g}", f"{fmean(m.mse for m in clips):.5f}", *_means(clips), _missed(clips)]
        for target, clips in by_target(measured).items()
    ]
    return _captioned(
        f"{len(by_clip(measured))} clips. Tokens and bytes are geometric means over the clips, per 256x256x4 block. "
        "The MSE reached is that of the decoded pixels, mean over the clips:",
        ["target", "MSE reached", "tokens", "bytes", "blocks that miss"],
        rows,
    )


def bd_rate_tables(measured: Sequence[Measured], found: dict[str, Anchor]) -> str:
    """Our bytes over each encoder's at the same PSNR: all clips, then each."""
    clips = by_clip(measured)
    summaries = [summarize(clips, found, encoder) for encoder in anchors.encoders(found)]
    rows = []
    for s in summaries:
        compared = [f"{c.ratio:.2f} ({c.clip})" for c in s.compared]
        ends = [compared[0], compared[-1]] if compared else [UNKNOWN, UNKNOWN]
        rows.append([s.encoder, _ratio(s.ratio), str(len(s.compared)), str(len(s.not_comparable)), *ends])
    all_clips = _captioned(
        "BD-rate: our bytes over the other encoder's at the same PSNR (below 1, ours are fewer), mean over the PSNRs "
        f"at which both were run. A clip is compared where these span at least {LEAST_COMMON_RANGE:g} dB. The ratio is "
        "the geometric mean over the clips compared:",
        ["against", "bytes, ratio", "clips compared", "not comparable", "best clip", "worst clip"],
        rows,
    )
    each = [
        [points[0].clip, *(_in_range(s.clips[number]) for s in summaries)]
        for number, points in enumerate(clips)
    ]
    each_clip = _captioned(
        "The same for each clip, with the PSNRs at which both were run:",
        ["clip", *(s.encoder for s in summaries)],
        each,
    )
    return f"{all_clips}\n\n{each_clip}"


def clips_table(measured: Sequence[Measured], found: dict[str, Anchor]) -> str:
    """Every clip at 0.007, or at the first target there is."""
    targets = by_target(measured)
    target = MAIN_TARGET if MAIN_TARGET in targets else next(iter(targets))
    encoders = anchors.encoders(found)
    return _captioned(
        f"Each clip at {target:g}, per 256x256x4 block. The last columns are our bytes over the other encoder's at the "
        "MSE reached, where it was run at such an MSE:",
        [*FACTS, *encoders],
        [[m.clip, *_facts(m), *_ratios(m, found, encoders)] for m in targets[target]],
    )


def hard_table(measured: Sequence[Measured], found: dict[str, Anchor]) -> str:
    """Clips that are hard, whole: every target, and the means of the ratios that are known."""
    encoders = anchors.encoders(found)
    rows = []
    for target, clips in by_target(measured).items():
        rows += [[f"{target:g}", m.clip, *_facts(m), *_ratios(m, found, encoders)] for m in clips]
        means = []
        for encoder in encoders:
            every = [ratio_at_our_error(m, found.get(m.clip), encoder) for m in clips]
            known = [ratio for ratio in every if ratio is not None]
            means.append(f"{geometric_mean(known):.2f} ({len(known)} of {len(clips)})" if known else UNKNOWN)
        rows.append([f"{target:g}", "geometric mean", "", *_means(clips), _missed(clips), *means])
    return _captioned(
        "Drawn clips of text and fine detail, whole pictures, per 256x256x4 block. The last columns are our bytes over "
        "the other encoder's at the MSE reached, where it was run at such an MSE, with the number of clips in a mean:",
        ["target", *FACTS, *encoders],
        rows,
    )


def against_baseline(run: Run) -> str:
    """Tokens of the model over tokens of the baseline, clip by clip at the baseline's target."""
    target = run.baseline[0].target
    ours = {m.clip: m for m in by_target(run.val)[target]}
    ratios = [max(ours[b.clip].tokens, 1) / max(b.tokens, 1) for b in run.baseline]
    start = geometric_mean([max(b.tokens_per_block, 0.1) for b in run.baseline])
    return _wrapped(
        f"Tokens at {target:g} against the baseline ({start:.0f} per block, {_missed(run.baseline)} blocks missed): "
        f"{geometric_mean(ratios):.2f} times as many (geometric mean; best clip {min(ratios):.2f}, worst "
        f"{max(ratios):.2f})."
    )


def speed_table(run: Run) -> str:
    """Frames per second at 256x256, median over the clips."""
    rows = [
        [
            f"{target:g}",
            f"{median(m.frames / m.encode_seconds for m in clips):.1f}",
            f"{median(m.frames / m.decode_seconds for m in clips):.1f}",
        ]
        for target, clips in by_target(run.val).items()
    ]
    return _captioned(
        f"Frames per second at 256x256 ({run.device}, median over the clips; peak memory {run.peak_memory_mb:.0f} MB):",
        ["target", "encode", "decode"],
        rows,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown. Raises ValueError for a row of another width than its head."""
    if any(len(row) != len(head) for row in rows):
        raise ValueError("a row has more or fewer cells than the table's head")
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _facts(m: Measured) -> list[str]:
    """One clip at one target, all FACTS but its name."""
    return [f"{m.mse:.5f}", f"{m.tokens_per_block:.0f}", f"{m.bytes_per_block:.0f}", _missed([m])]


def _means(clips: Sequence[Measured]) -> list[str]:
    """Geometric means of tokens and bytes."""
    return [
        f"{geometric_mean([max(m.tokens_per_block, 0.1) for m in clips]):.0f}",
        f"{geometric_mean([m.bytes_per_block for m in clips]):.0f}",
    ]


def _missed(clips: Sequence[Measured]) -> str:
    return f"{sum(m.missed for m in clips)} of {sum(m.blocks for m in clips)}"


def _ratios(m: Measured, found: dict[str, Anchor], encoders: Sequence[str]) -> list[str]:
    return [_ratio(ratio_at_our_error(m, found.get(m.clip), encoder)) for encoder in encoders]


def _ratio(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio:.2f}"


def _in_range(c: Compared | NotComparable) -> str:
    if isinstance(c, NotComparable):
        return f"{UNKNOWN} ({c.reason})"
    return f"{c.ratio:.2f} ({c.low:.1f} to {c.high:.1f} dB)"


def _captioned(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"{_wrapped(caption)}\n\n{table(head, rows)}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
