"""The tables of the quality benchmark in Markdown, from what was measured.

Those of the promise `video` stand beside those of `block` where both were measured (`promise_tables`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import get_args

from elastictok_cli.codec.budget import Promise
from elastictok_cli.evaluation import anchors
from elastictok_cli.evaluation.anchors import Anchor
from elastictok_cli.evaluation.comparison import (
    LEAST_COMMON_RANGE,
    Compared,
    NotComparable,
    Summary,
    against_ours,
    ratio_at_our_error,
    summarize,
)
from elastictok_cli.evaluation.markdown import UNKNOWN, captioned, means, missed, ratio_text, wrapped
from elastictok_cli.evaluation.measurements import Run, by_clip, by_target, with_promise
from elastictok_cli.evaluation.promise_tables import VIDEO_FACTS, video_facts, video_table
from elastictok_cli.evaluation.tokens import Measured, geometric_mean

MAIN_TARGET = 0.007
FACTS = ("clip", "MSE reached", "tokens", "bytes", "blocks that miss")


def tables(run: Run, val: dict[str, Anchor], hard: dict[str, Anchor]) -> str:
    """All that belongs into a document; speeds do not, as they hold for one machine at one hour."""
    parts = []
    if run.val:
        parts += _val_tables(run.val, val)
    for promise in _promises(run.hard):
        parts.append(hard_table(with_promise(run.hard, promise), hard))
    if run.baseline:
        parts.append(against_baseline(run))
    return "\n\n".join(parts)


def _val_tables(measured: Sequence[Measured], found: dict[str, Anchor]) -> list[str]:
    block, video = with_promise(measured, "block"), with_promise(measured, "video")
    parts = [targets_table(block)] if block else []
    if video:
        parts.append(video_table(video, block))
    parts += bd_rate_tables(measured, found)
    if block:
        parts.append(clips_table(block, found))
    if video:
        parts.append(clips_table(video, found, block))
    return parts


def _promises(measured: Sequence[Measured]) -> list[Promise]:
    """Those that were measured, `block` first."""
    return [promise for promise in get_args(Promise) if with_promise(measured, promise)]


def targets_table(measured: Sequence[Measured]) -> str:
    """Tokens, bytes and missed blocks of `block` at each target."""
    rows = [
        [f"{target:g}", f"{fmean(m.mse for m in clips):.5f}", *means(clips), missed(clips)]
        for target, clips in by_target(measured).items()
    ]
    return captioned(
        f"{len(by_clip(measured))} clips, every block under the target (`--promise block`). Tokens and bytes are "
        "geometric means over the clips, per 256x256x4 block. The MSE reached is that of the decoded "
        "pixels, mean over the clips:",
        ["target", "MSE reached", "tokens", "bytes", "blocks that miss"],
        rows,
    )


def bd_rate_tables(measured: Sequence[Measured], found: dict[str, Anchor]) -> list[str]:
    """Our bytes over each encoder's at the same PSNR: all clips, then each; for every promise that was measured."""
    encoders = anchors.encoders(found)
    promises = _promises(measured)
    ours = {promise: by_clip(with_promise(measured, promise)) for promise in promises}
    summaries = {
        promise: [summarize(clips, found, encoder) for encoder in encoders] for promise, clips in ours.items()
    }
    rows = [
        [encoder, promise, *_summary(summaries[promise][number])]
        for number, encoder in enumerate(encoders)
        for promise in promises
    ]
    if len(promises) > 1:
        rows.append(["ours, `block`", "video", *_summary(against_ours(ours["video"], ours["block"]))])
    all_clips = captioned(
        "BD-rate: our bytes over the other encoder's at the same PSNR (below 1, ours are fewer), mean over the PSNRs "
        f"at which both were run. A clip is compared where these span at least {LEAST_COMMON_RANGE:g} dB. The ratio is "
        "the geometric mean over the clips compared:",
        ["against", "promise", "bytes, ratio", "clips compared", "not comparable", "best clip", "worst clip"],
        rows,
    )
    return [all_clips, *(_each_clip(promise, of_all) for promise, of_all in summaries.items())]


def _summary(s: Summary) -> list[str]:
    """Ratio, clips compared and not, best and worst clip."""
    compared = [f"{c.ratio:.2f} ({c.clip})" for c in s.compared]
    ends = [compared[0], compared[-1]] if compared else [UNKNOWN, UNKNOWN]
    return [ratio_text(s.ratio), str(len(s.compared)), str(len(s.not_comparable)), *ends]


def _each_clip(promise: Promise, summaries: Sequence[Summary]) -> str:
    """The clips of all summaries are the same, in the same order."""
    names = [c.clip for c in summaries[0].clips] if summaries else []
    rows = [[name, *(_in_range(s.clips[number]) for s in summaries)] for number, name in enumerate(names)]
    return captioned(
        f"The same for each clip with the promise `{promise}`, and the PSNRs at which both were run:",
        ["clip", *(s.encoder for s in summaries)],
        rows,
    )


def clips_table(
    measured: Sequence[Measured], found: dict[str, Anchor], block: Sequence[Measured] | None = None
) -> str:
    """Every clip at 0.007, or at the first target there is.

    block: the same clips with the promise `block`, where `measured` has the promise `video`.
    """
    targets = by_target(measured)
    target = MAIN_TARGET if MAIN_TARGET in targets else next(iter(targets))
    encoders = anchors.encoders(found)
    head = FACTS if block is None else ("clip", *VIDEO_FACTS)
    rows = [
        [m.clip, *(_facts(m) if block is None else video_facts(m, block)), *_ratios(m, found, encoders)]
        for m in targets[target]
    ]
    return captioned(
        f"Each clip at {target:g} with the promise `{measured[0].promise}`, per 256x256x4 block. The last columns are "
        "our bytes over the other encoder's at the MSE reached, where it was run at such an MSE:",
        [*head, *encoders],
        rows,
    )


def hard_table(measured: Sequence[Measured], found: dict[str, Anchor]) -> str:
    """Clips that are hard, whole: every target, and the means of the ratios that are known."""
    encoders = anchors.encoders(found)
    rows = []
    for target, clips in by_target(measured).items():
        rows += [[f"{target:g}", m.clip, *_facts(m), *_ratios(m, found, encoders)] for m in clips]
        mean_ratios = []
        for encoder in encoders:
            every = [ratio_at_our_error(m, found.get(m.clip), encoder) for m in clips]
            known = [ratio for ratio in every if ratio is not None]
            mean_ratios.append(
                f"{geometric_mean(known):.2f} ({len(known)} of {len(clips)})" if known else UNKNOWN
            )
        rows.append([f"{target:g}", "geometric mean", "", *means(clips), missed(clips), *mean_ratios])
    return captioned(
        f"Drawn clips of text and fine detail, whole pictures, per 256x256x4 block, with the promise "
        f"`{measured[0].promise}`. The last columns are our bytes over "
        "the other encoder's at the MSE reached, where it was run at such an MSE, with the number of clips in a mean:",
        ["target", *FACTS, *encoders],
        rows,
    )


def against_baseline(run: Run) -> str:
    """Tokens of the model over tokens of the baseline, clip by clip at the baseline's target."""
    target = run.baseline[0].target
    ours = {m.clip: m for m in by_target(with_promise(run.val, "block"))[target]}
    ratios = [max(ours[b.clip].tokens, 1) / max(b.tokens, 1) for b in run.baseline]
    start = geometric_mean([max(b.tokens_per_block, 0.1) for b in run.baseline])
    return wrapped(
        f"Tokens at {target:g} against the baseline ({start:.0f} per block, {missed(run.baseline)} blocks missed): "
        f"{geometric_mean(ratios):.2f} times as many (geometric mean; best clip {min(ratios):.2f}, worst "
        f"{max(ratios):.2f})."
    )


def speed_table(run: Run) -> str:
    """Frames per second at 256x256, median over the clips."""
    rows = [
        [
            f"{target:g}",
            promise,
            f"{median(m.frames / m.encode_seconds for m in clips):.1f}",
            f"{median(m.frames / m.decode_seconds for m in clips):.1f}",
        ]
        for promise in _promises(run.val)
        for target, clips in by_target(with_promise(run.val, promise)).items()
    ]
    return captioned(
        f"Frames per second at 256x256 ({run.device}, median over the clips; peak memory {run.peak_memory_mb:.0f} MB):",
        ["target", "promise", "encode", "decode"],
        rows,
    )


def _facts(m: Measured) -> list[str]:
    """One clip at one target, all FACTS but its name."""
    return [f"{m.mse:.5f}", f"{m.tokens_per_block:.0f}", f"{m.bytes_per_block:.0f}", missed([m])]


def _ratios(m: Measured, found: dict[str, Anchor], encoders: Sequence[str]) -> list[str]:
    return [ratio_text(ratio_at_our_error(m, found.get(m.clip), encoder)) for encoder in encoders]


def _in_range(c: Compared | NotComparable) -> str:
    if isinstance(c, NotComparable):
        return f"{UNKNOWN} ({c.reason})"
    return f"{c.ratio:.2f} ({c.low:.1f} to {c.high:.1f} dB)"
