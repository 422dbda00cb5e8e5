"""Figure 4 of the ElasticTok paper on our data: blocks that meet a target against tokens used, adaptive and fixed.

    python benchmarks/adaptive.py --data VIDEOS --photos PHOTOS [--plot out.png] [--json out.json]
    python benchmarks/adaptive.py --data VIDEOS --promises [--frames 48] [--plot out.png] [--json out.json]

Adaptive: each block uses the fewest tokens that meet the target. Fixed: the same weights, with the same number of
tokens in every cell of every block, for each of `--lengths`. Both code the same blocks of crops of at most 256x256: the
first frames of each video, and single pictures (of a video in PHOTOS, its first frame). `--allocation block` gives the
cells of an adaptive block one length too, as in the paper.

The curve of the adaptive model sweeps a cap on the tokens of a block; see `adaptive_curve` for what that means in
videos. Gains are how many times as many tokens the fixed lengths need where the same share of blocks meets the target.
"Uncapped" is the share that the adaptive model reaches, for all the tokens it spent, those of blocks that miss
included; "capped" is the same share under the lowest cap that reaches it.

`--promises` asks the other question, of whole clips: which mean error do how many tokens buy, with the promise `block`
(every block under the target), with `video` (their mean under the target, one lambda for all), and with fixed lengths?
All three go through the real encoder, file and decoder, which cuts the blocks itself.

A video of 16 frames takes about 35 s of one CPU core, a photo about 4 s: four minutes as called above. With
`--promises` 48 frames take from 40 to 160 s, with three targets and six lengths.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import torch

from elastictok_cli.codec.budget import Promise
from elastictok_cli.drawing import style
from elastictok_cli.evaluation import clips, tokens
from elastictok_cli.evaluation.adaptive import (
    Curve,
    Gain,
    Spent,
    adaptive_curve,
    code_adaptive,
    code_fixed,
    fixed_curve,
    gain,
    uncapped_gain,
)
from elastictok_cli.evaluation.tokens import Measured
from elastictok_cli.evaluation.whole_clips import FIXED, WAYS, Whole, measure_fixed, pooled, times_the_tokens
from elastictok_cli.models import checkpoint
from elastictok_cli.models.interface import NestedTokenizer

TARGETS = (0.001, 0.003, 0.007, 0.015)
DASHES = {"video": "-", "block": "-.", FIXED: "--"}
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 44, 58)
SHARES = (0.95, 0.9, 0.5)
PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
PHOTOS_PER_VIDEO = 4  # a photo is one block


@dataclass
class Found:
    """The blocks of one set of clips, coded in all ways."""

    clips: list[str] = field(default_factory=list)
    adaptive: dict[float, list[Spent]] = field(default_factory=dict)  # by target
    fixed: dict[int, list[Spent]] = field(default_factory=dict)  # by tokens in every cell

    def curves(self, target: float) -> tuple[Curve, Curve]:
        """Adaptive and fixed."""
        return adaptive_curve(self.adaptive[target], target), fixed_curve(list(self.fixed.values()), target)


def main() -> None:
    options = parse()
    began = time.monotonic()
    loaded = checkpoint.load(options.model, torch.device(options.device))
    if not loaded.tokenizer.spec.nested:
        sys.exit("the lengths of this model are not nested: only a default model can be measured")
    if options.promises:
        report_promises(loaded, options)
    else:
        report_shares(loaded, options)
    seconds, busy = time.monotonic() - began, time.process_time()
    print(
        f"\n{seconds:.0f} s on {options.device}, {busy:.0f} s of CPU time, {torch.get_num_threads()} threads."
    )


def report_shares(loaded: checkpoint.Loaded, options: argparse.Namespace) -> None:
    """Blocks that meet the target: the paper's figure."""
    tokenizer = cast(NestedTokenizer, loaded.tokenizer)
    sets = {}
    if options.data:
        sets["videos"] = measure(tokenizer, spread(options.data, clips.SUFFIXES, options.most), options)
    if options.photos:
        most = PHOTOS_PER_VIDEO * options.most
        paths = spread(options.photos, PHOTOS | clips.SUFFIXES, most)
        sets["images"] = measure(tokenizer, paths, options, frames=1)
    print(summary(sets, options))
    if options.json:
        options.json.write_text(json.dumps(as_json(sets, loaded, options), indent=1) + "\n")
    if options.plot:
        draw(sets, options)


def report_promises(loaded: checkpoint.Loaded, options: argparse.Namespace) -> None:
    """Mean errors of whole clips: both promises beside fixed lengths."""
    paths = spread(options.data, clips.SUFFIXES, options.most)
    coded = code_whole(loaded, paths, options)
    print(promises_summary(coded))
    if options.json:
        entry = {
            "model": {"name": loaded.tokenizer.spec.name, "sha256": loaded.sha256.hex()},
            "targets": options.targets,
            "lengths": options.lengths,
            "clips": {way: [whole_json(m) for m in measured] for way, measured in coded.items()},
        }
        options.json.write_text(json.dumps(entry, indent=1) + "\n")
    if options.plot:
        draw_promises(coded, options.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of videos")
    parser.add_argument("--photos", type=Path, help="folder of pictures, or of videos for their first frames")
    parser.add_argument("--frames", type=int, default=16, help="of each video")
    parser.add_argument("--most", type=int, default=4, help="videos; four times as many photos")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="fixed tokens in every cell")
    parser.add_argument(
        "--promises", action="store_true", help="mean errors of whole clips with both promises instead"
    )
    parser.add_argument("--allocation", choices=("cell", "block"), default="cell")
    parser.add_argument("--model", type=Path, help="checkpoint (default: the shipped one)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, help="picture to write (needs matplotlib)")
    parser.add_argument("--json", type=Path, help="file for every block and both curves")
    options = parser.parse_args()
    if not options.data and not options.photos:
        parser.error("nothing to measure: give --data or --photos")
    if options.promises and (options.photos or not options.data):
        parser.error("--promises is of videos: give --data alone")
    return options


def spread(folder: Path, suffixes: set[str], most: int) -> list[Path]:
    """At most `most` files of a folder, evenly spread over their names."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not paths:
        sys.exit(f"nothing to measure in {folder}")
    count = min(most, len(paths))
    return [paths[n * len(paths) // count] for n in range(count)]


def measure(
    tokenizer: NestedTokenizer,
    paths: list[Path],
    options: argparse.Namespace,
    *,
    frames: int | None = None,
) -> Found:
    """Code every clip in every way, telling of it on stderr."""
    device = torch.device(options.device)
    found = Found()
    for number, path in enumerate(paths, 1):
        began = time.monotonic()
        clip = clips.load(path, frames=frames or options.frames)
        for target in options.targets:
            spent = code_adaptive(tokenizer, clip, target, device, allocation=options.allocation)
            found.adaptive.setdefault(target, []).extend(spent)
        for length in options.lengths:
            found.fixed.setdefault(length, []).extend(code_fixed(tokenizer, clip, length, device))
        found.clips.append(clip.name)
        seconds = time.monotonic() - began
        print(f"{number} of {len(paths)}: {clip.name}, {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def summary(sets: dict[str, Found], options: argparse.Namespace) -> str:
    """A markdown table: what both reach, and how many times as many tokens fixed lengths need."""
    head = ["", "MSE", "blocks", "adaptive meets", "with tokens", "fixed meets at most"]
    head += ["gain, uncapped", "capped", *(f"at {share:.0%}" for share in SHARES)]
    rows = []
    for name, found in sets.items():
        for target in options.targets:
            adaptive, fixed = found.curves(target)
            reached = float(adaptive.met[-1])
            rows.append(
                [
                    name,
                    f"{target:g}",
                    f"{len(found.adaptive[target])}",
                    f"{reached:.0%}",
                    f"{adaptive.tokens[-1]:.1%}",
                    f"{fixed.met.max():.0%}",
                    times(uncapped_gain(adaptive, fixed)),
                    times(gain(adaptive, fixed, reached) if reached else None),
                    *(times(gain(adaptive, fixed, share)) for share in SHARES),
                ]
            )
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def times(found: Gain | None) -> str:
    """3.4x, > 2.1x (the baseline never got there), or - (the adaptive model did not)."""
    if found is None:
        return "-"
    return f"{'> ' if found.at_least else ''}{found.times:.1f}x"


def as_json(sets: dict[str, Found], loaded: checkpoint.Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """Every block ({tokens: share of the most, mse}) and both curves."""
    return {
        "model": {"name": loaded.tokenizer.spec.name, "sha256": loaded.sha256.hex()},
        "frames": options.frames,
        "allocation": options.allocation,
        "sets": {
            name: {
                "clips": found.clips,
                "adaptive": {f"{t:g}": [asdict(b) for b in blocks] for t, blocks in found.adaptive.items()},
                "fixed": {str(k): [asdict(b) for b in blocks] for k, blocks in found.fixed.items()},
                "curves": {f"{target:g}": curves_json(found, target) for target in options.targets},
            }
            for name, found in sets.items()
        },
    }


def curves_json(found: Found, target: float) -> dict[str, Any]:
    both = zip(("adaptive", "fixed"), found.curves(target), strict=True)
    return {how: {"tokens": curve.tokens.tolist(), "met": curve.met.tolist()} for how, curve in both}


def draw(sets: dict[str, Found], options: argparse.Namespace) -> None:
    """A row of axes for each set, a column for each target. Tokens are on a logarithmic axis: gains are distances."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    targets = sorted(options.targets, reverse=True)
    with mpl.rc_context({**style.chart_settings(10.0), "axes.grid.axis": "both"}):
        figure = Figure(
            figsize=(2.9 * len(targets) + 0.6, 2.6 * len(sets) + 0.8), dpi=120, layout="constrained"
        )
        grid = figure.subplots(len(sets), len(targets), sharex=True, sharey=True, squeeze=False)
        for row, (name, found) in zip(grid, sets.items(), strict=True):
            for axes, target in zip(row, targets, strict=True):
                adaptive, fixed = found.curves(target)
                lines = [
                    line(axes, adaptive, "adaptive", style.track_color(0), "-"),
                    line(axes, fixed, "fixed length", style.track_color(1), "--"),
                ]
                axes.set_title(f"{name}, MSE {target:g}", loc="left")
                axes.set_xscale("log")
                axes.set_ylim(0, 1.03)
                axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
                axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
        figure.supxlabel("tokens used, of the most possible", fontsize="medium")
        figure.supylabel("blocks that meet the target", fontsize="medium")
        figure.legend(handles=lines, loc="outside upper right", ncols=2)
        figure.savefig(options.plot)


def code_whole(
    loaded: checkpoint.Loaded, paths: list[Path], options: argparse.Namespace
) -> dict[str, list[Measured]]:
    """Every clip in every way of WAYS with every setting; in the order of clips, then of settings."""
    device = torch.device(options.device)
    coded: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number, path in enumerate(paths, 1):
        began = time.monotonic()
        clip = clips.load(path, frames=options.frames)
        for promise in get_args(Promise):
            coded[promise] += [
                tokens.measure(loaded, clip, target, device, promise=promise) for target in options.targets
            ]
        coded[FIXED] += [measure_fixed(loaded, clip, length, device) for length in options.lengths]
        seconds = time.monotonic() - began
        print(f"{number} of {len(paths)}: {clip.name}, {seconds:.0f} s", file=sys.stderr, flush=True)
    return coded


def whole_json(m: Measured) -> dict[str, Any]:
    """JSON knows no infinite target."""
    return {**asdict(m), "target": m.target if math.isfinite(m.target) else None}


def promises_summary(coded: dict[str, list[Measured]]) -> str:
    """A markdown table: errors and tokens of both promises, all clips as one video, and what the others need."""
    curves = curves_of(coded)
    head = ["MSE", "promise", "mean error", "worst block", "tokens", *(f"{way} needs" for way in WAYS)]
    rows = []
    for target in sorted({m.target for m in coded["block"]}, reverse=True):
        for promise in get_args(Promise):
            point = pooled([m for m in coded[promise] if m.target == target])
            needs = [None if way == promise else times_the_tokens(curves[way], point) for way in WAYS]
            rows.append(
                [
                    f"{target:g}",
                    promise,
                    f"{point.mse:.5f}",
                    f"{point.worst:.5f}",
                    f"{point.tokens:.0f}",
                    *("-" if times is None else f"{times:.2f}x" for times in needs),
                ]
            )
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def curves_of(coded: dict[str, list[Measured]]) -> dict[str, list[Whole]]:
    """By way: a point for each setting, all clips of it as one video."""
    found = {}
    for way, measured in coded.items():
        settings = len(measured) // len({m.clip for m in measured})
        found[way] = [pooled(measured[number::settings]) for number in range(settings)]
    return found


def draw_promises(coded: dict[str, list[Measured]], plot: Path) -> None:
    """Axes for all clips as one video, then for each clip. A distance to the right is a factor of tokens."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    names = list(dict.fromkeys(m.clip for m in coded["block"]))
    targets = {m.target for m in coded["block"]}
    low, high = 0.6 * min(targets), 2 * max(targets)
    panels = {"all clips": curves_of(coded)}
    for name in names:
        panels[name] = curves_of({way: [m for m in of if m.clip == name] for way, of in coded.items()})
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context({**style.chart_settings(10.0), "axes.grid.axis": "both"}):
        figure = Figure(figsize=(3.4 * columns + 0.6, 2.8 * rows + 0.8), dpi=120, layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for (name, curves), axes in zip(panels.items(), grid, strict=False):
            lines = [
                axes.plot(
                    [p.tokens for p in points],
                    [p.mse for p in points],
                    DASHES[way],
                    color=style.track_color(number),
                    marker="o",
                    markersize=3.5,
                    label="fixed length" if way == FIXED else f"promise {way}",
                )[0]
                for number, (way, points) in enumerate((way, curves[way]) for way in WAYS)
            ]
            axes.set_title(name, loc="left")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(low, high)
            seen = [p.tokens for points in curves.values() for p in points if low < p.mse < high and p.tokens]
            axes.set_xlim(min(seen) / 1.3, max(seen) * 1.3)
            axes.set_yticks(sorted(targets))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        for axes in list(grid):
            axes.remove()  # more places than panels
        figure.supxlabel("tokens per 256x256x4 pixels", fontsize="medium")
        figure.supylabel("mean error (MSE)", fontsize="medium")
        figure.legend(handles=lines, loc="outside upper right", ncols=3)
        figure.savefig(plot)


def line(axes: Any, curve: Curve, label: str, color: str, dashes: str) -> Any:
    """One curve, its points marked where they are few. No tokens at all have no place on a logarithmic axis."""
    some = curve.tokens > 0
    marker = "o" if some.sum() <= len(LENGTHS) else ""
    (drawn,) = axes.plot(
        curve.tokens[some],
        curve.met[some],
        dashes,
        color=color,
        linewidth=1.6,
        marker=marker,
        markersize=3.5,
        label=label,
    )
    return drawn


if __name__ == "__main__":
    main()
