"""Tokens, bytes and speed on validation clips, beside what classical encoders need at the same error.

    python benchmarks/quality.py --data DIR [--anchors val.json] [--baseline START.safetensors] [--readme README.md]

Each clip's first 48 frames, cropped to 256x256 at the centre, go through the real encoder, file and decoder at four
targets. A block is 256x256 pixels x 4 frames. Bytes are whole files. `--anchors` holds the bytes of classical
encoders for the same frames at the same MSE; with them, and with all four targets, there is a BD-rate. `--baseline`
names a second model, such as the untrained start (`elastictok train --data DIR --out START.safetensors --steps 0`).
`--readme` replaces the tables there, all but that of speeds.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from pathlib import Path
from statistics import fmean, median

import torch

from elastictok_cli.evaluation import clips
from elastictok_cli.evaluation.bd_rate import bd_rate
from elastictok_cli.evaluation.quality import psnr
from elastictok_cli.evaluation.tokens import Measured, geometric_mean, measure
from elastictok_cli.models import checkpoint

TARGETS = (0.015, 0.007, 0.003, 0.001)
MARKS = ("<!-- quality: begin -->", "<!-- quality: end -->")
CPU = torch.device("cpu")


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    loaded = checkpoint.load(options.model, device)
    videos = [clips.load(path) for path in clips.find([options.data])]
    if not videos:
        sys.exit(f"no videos in {options.data}")
    found = {
        target: [note(measure(loaded, clip, target, device, effort=options.effort)) for clip in videos]
        for target in options.targets
    }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    anchors = json.loads(options.anchors.read_text()) if options.anchors else {}
    parts = [by_target(found, anchors)]
    if anchors and set(TARGETS) <= set(found):
        parts.append(by_bd_rate(found, anchors))
    parts.append(by_clip(found, anchors))
    if options.baseline:
        start = checkpoint.load(options.baseline, device)
        parts.append(against([measure(start, clip, 0.007, device) for clip in videos], found[0.007]))
    text = "\n\n".join(parts)
    print(text, speed(found, memory, device), sep="\n\n")
    if options.readme:
        replace_between(options.readme, text)  # not the speeds: they hold for this machine at this hour


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of validation clips")
    parser.add_argument("--anchors", type=Path, help="bytes of classical encoders, by clip and MSE")
    parser.add_argument("--model", type=Path, help="checkpoint (default: the shipped one)")
    parser.add_argument("--baseline", type=Path, help="a checkpoint to compare tokens with at 0.007")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--effort", type=int, default=5, help="as of encode")
    parser.add_argument("--readme", type=Path, help="file whose tables are replaced")
    return parser.parse_args()


def note(m: Measured) -> Measured:
    """Progress on stderr."""
    print(
        f"{m.target:g} {m.clip}: {m.tokens_per_block:.0f} tokens, {m.bytes_per_block:.0f} bytes per block",
        file=sys.stderr,
        flush=True,
    )
    return m


def by_target(found: dict[float, list[Measured]], anchors: dict) -> str:
    """Geometric means over the clips; ratios of our bytes to each classical encoder's."""
    coders = sorted({c for clip in anchors.values() for c in clip["bytes"]})
    head = ["MSE", "tokens / block", "bytes / block", "blocks that miss", *(f"bytes : {c}" for c in coders)]
    rows = []
    for target, measured in found.items():
        ratios = []
        for coder in coders:
            pairs = [(m.bytes, anchor_bytes(anchors, m, coder)) for m in measured]
            known = [ours / theirs for ours, theirs in pairs if theirs]
            ratios.append(f"{geometric_mean(known):.2f}" if known else "-")
        missed, blocks = sum(m.missed for m in measured), sum(m.blocks for m in measured)
        rows.append(
            [
                f"{target:g}",
                f"{geometric_mean([max(m.tokens_per_block, 0.1) for m in measured]):.0f}",
                f"{geometric_mean([m.bytes_per_block for m in measured]):.0f}",
                f"{missed} of {blocks}",
                *ratios,
            ]
        )
    return "Geometric means over the clips:\n\n" + table(head, rows)


def by_bd_rate(found: dict[float, list[Measured]], anchors: dict) -> str:
    """BD-rate of our bytes against each classical encoder: the mean over the clips, and the ends of their range.

    A point is left out where blocks of ours missed the target, since its bytes bought less than it says, and where
    the other encoder's bytes are unknown; a clip where what is left makes no two curves that can be compared.
    """
    rows = []
    for coder in sorted({c for clip in anchors.values() for c in clip["bytes"]}):
        known: dict[str, float] = {}
        missed = unknown = 0
        for points in zip(*found.values(), strict=True):  # of one clip
            kept = [m for m in points if not m.missed]
            theirs = [(m.target, b) for m in points if (b := anchor_bytes(anchors, m, coder))]
            missed += len(points) - len(kept)
            unknown += len(points) - len(theirs)
            try:
                known[points[0].clip] = bd_rate(
                    [m.bytes for m in kept],
                    [psnr(m.target) for m in kept],
                    [count for _, count in theirs],
                    [psnr(target) for target, _ in theirs],
                )
            except ValueError as error:
                print(f"BD-rate, {coder}, {points[0].clip}: left out, {error}", file=sys.stderr)
        if not known:
            continue
        (best, least), (worst, most) = (end(known.items(), key=lambda item: item[1]) for end in (min, max))
        rows.append(
            [
                coder,
                f"{fmean(known.values()):+.0f} %",
                f"{least:+.0f} % ({best})",
                f"{most:+.0f} % ({worst})",
                f"{len(known)} of {len(found[TARGETS[0]])}",
                f"{missed} missed, {unknown} unknown",
            ]
        )
    return (
        "BD-rate of our bytes (more is worse; PCHIP over the PSNR of the targets, mean over the clips):\n\n"
        + table(["against", "BD-rate", "best clip", "worst clip", "clips", "points left out"], rows)
    )


def by_clip(found: dict[float, list[Measured]], anchors: dict) -> str:
    """Tokens and bytes per block of every clip at 0.007, or the first target there is."""
    target = 0.007 if 0.007 in found else next(iter(found))
    coders = sorted({c for clip in anchors.values() for c in clip["bytes"]})
    rows = []
    for m in found[target]:
        theirs = [anchor_bytes(anchors, m, coder) for coder in coders]
        rows.append(
            [
                m.clip,
                f"{m.tokens_per_block:.0f}",
                f"{m.bytes_per_block:.0f}",
                *(f"{4 * b / m.frames:.0f}" if b else "-" for b in theirs),
            ]
        )
    return f"At MSE {target:g}, per 256x256x4 block:\n\n" + table(
        ["clip", "tokens", "bytes", *(f"bytes, {c}" for c in coders)], rows
    )


def anchor_bytes(anchors: dict, m: Measured, coder: str) -> float | None:
    """Bytes of the classical encoder for as many frames."""
    entry = anchors.get(m.clip)
    if entry is None:
        return None
    whole = entry["bytes"].get(coder, {}).get(f"{m.target:g}")
    return whole * m.frames / entry["frames"] if whole else None


def speed(found: dict[float, list[Measured]], memory: float, device: torch.device) -> str:
    """Frames per second at 256x256, median over the clips."""
    rows = [
        [
            f"{target:g}",
            f"{median(m.frames / m.encode_seconds for m in measured):.1f}",
            f"{median(m.frames / m.decode_seconds for m in measured):.1f}",
        ]
        for target, measured in found.items()
    ]
    where = (
        f"{torch.get_num_threads()} CPU threads"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device)
    )
    return (
        f"Frames per second at 256x256 ({where}, median over the clips; peak memory {memory:.0f} MB):\n\n"
        + table(["MSE", "encode", "decode"], rows)
    )


def against(baseline: list[Measured], ours: list[Measured]) -> str:
    """Tokens of the shipped model over tokens of the baseline at 0.007."""
    ratios = [max(m.tokens, 1) / max(b.tokens, 1) for m, b in zip(ours, baseline, strict=True)]
    start = geometric_mean([max(b.tokens_per_block, 0.1) for b in baseline])
    return (
        f"Tokens at 0.007 against the untrained start ({start:.0f} per block): {geometric_mean(ratios):.2f} times as "
        f"many (geometric mean; best clip {min(ratios):.2f}, worst {max(ratios):.2f})."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def replace_between(path: Path, text: str) -> None:
    """Put `text` between the marks of a file. Exits if they are not there."""
    before, found, rest = path.read_text().partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not found or not closed:
        sys.exit(f"{path} has no {MARKS[0]} ... {MARKS[1]}")
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
