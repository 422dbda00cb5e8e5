"""Tokens, bytes and error on validation clips, beside the curves of other encoders.

    python benchmarks/quality.py --data DIR [--hard DIR] [--promise both] [--json OUT.json] [--readme FILE]
    python benchmarks/quality.py --from-json OUT.json [--readme FILE]

Of each clip in `--data`, the first 48 frames, cropped to 256x256 at the centre, go through the real encoder, file and
decoder at four targets; of each in `--hard`, whole pictures and as many frames as its curve has. A block is 256x256
pixels x 4 frames. Bytes are whole files. The error is that of the decoded pixels, mean over the frames.

Clips in `--data` are encoded with both promises, those in `--hard` with `block`, unless `--promise` says which for all.
Other encoders promise a mean over the video at best: `video` is the fair one to compare with them.

Other encoders come in by their curves (benchmarks/anchors, made by benchmarks/anchor_curves.py) and only where they
were run: BD-rate over the PSNRs that both cover, a ratio at an error only inside the curve.

`--json` keeps all measurements, and `--from-json` makes the tables of them again. `--readme` replaces the tables
there, all but that of speeds. `--baseline` names a second model, such as the untrained start (`elastictok train --data
DIR --out START.safetensors --steps 0`).
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

import torch

from elastictok_cli.codec.budget import Promise
from elastictok_cli.evaluation import anchors, clips, measurements
from elastictok_cli.evaluation.anchors import Anchor
from elastictok_cli.evaluation.measurements import Run
from elastictok_cli.evaluation.quality_tables import MAIN_TARGET, speed_table, tables
from elastictok_cli.evaluation.tokens import Measured, measure
from elastictok_cli.models import checkpoint
from elastictok_cli.models.interface import Loaded

TARGETS = (0.015, 0.007, 0.003, 0.001)
PROMISES: dict[str, tuple[Promise, ...]] = {
    "block": ("block",),
    "video": ("video",),
    "both": ("block", "video"),
}
MARKS = ("<!-- quality: begin -->", "<!-- quality: end -->")
CURVES = Path(__file__).parent / "anchors"


def main() -> None:
    options = parse()
    val, hard = anchors.load(options.anchors), anchors.load(options.hard_anchors)
    if options.from_json:
        run = measurements.load(options.from_json)
    else:
        run = measured(options, hard)
    if options.json:
        measurements.save(run, options.json)  # before anything else can fail
    text = tables(run, val, hard)
    print(text, *([speed_table(run)] if run.val else []), sep="\n\n")
    if options.readme:
        replace_between(options.readme, text)  # not the speeds: they hold for this machine at this hour


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of validation clips")
    parser.add_argument("--hard", type=Path, help="folder of clips that are hard, coded whole")
    parser.add_argument("--anchors", type=Path, default=CURVES / "val.json", help="curves for --data")
    parser.add_argument("--hard-anchors", type=Path, default=CURVES / "hard.json", help="curves for --hard")
    parser.add_argument("--model", type=Path, help="checkpoint (default: the shipped one)")
    parser.add_argument("--baseline", type=Path, help="a checkpoint to compare tokens with at 0.007")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--hard-targets", type=float, nargs="+", help="for --hard (default: --targets)")
    parser.add_argument(
        "--promise",
        choices=tuple(PROMISES),
        help="of all encodes (default: both for --data, block for --hard)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--effort", type=int, default=5, help="as of encode")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    parser.add_argument("--from-json", type=Path, help="make the tables of such a file, encode nothing")
    parser.add_argument("--readme", type=Path, help="file whose tables are replaced")
    options = parser.parse_args()
    if bool(options.from_json) == bool(options.data or options.hard):
        parser.error("either --data or --hard, or both, or else --from-json")
    if options.baseline and not options.data:
        parser.error("--baseline needs --data")
    if options.baseline and options.promise == "video":
        parser.error("--baseline is measured with the promise of a block: it needs --promise block or both")
    if options.readme and MARKS[0] not in options.readme.read_text():
        parser.error(f"{options.readme} has no {MARKS[0]}")  # better now than after ten minutes
    return options


def measured(options: argparse.Namespace, hard: dict[str, Anchor]) -> Run:
    """Encode and decode everything that was asked for."""
    device = torch.device(options.device)
    loaded = checkpoint.load(options.model, device)
    if not loaded.tokenizer.spec.nested and options.promise not in (None, "block"):
        sys.exit("the lengths of this model are not nested: it can only promise a target of every block")
    videos = [clips.load(path) for path in found_in(options.data)]
    promises = PROMISES[options.promise or ("both" if loaded.tokenizer.spec.nested else "block")]
    val = measure_all(loaded, videos, options.targets, device, options.effort, promises)
    drawn = [clips.load(path, side=None, frames=frames_of(path, hard)) for path in found_in(options.hard)]
    targets = options.hard_targets or options.targets
    more = measure_all(loaded, drawn, targets, device, options.effort, PROMISES[options.promise or "block"])
    baseline: tuple[Measured, ...] = ()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.baseline:
        target = MAIN_TARGET if MAIN_TARGET in options.targets else options.targets[0]
        start = checkpoint.load(options.baseline, device)
        baseline = measure_all(start, videos, [target], device, options.effort)
    return Run(loaded.sha256.hex(), options.effort, in_words(device), memory, val, more, baseline)


def found_in(folder: Path | None) -> list[Path]:
    """Videos there, none without a folder. Exits if it has none."""
    paths = clips.find([folder]) if folder else []
    if folder and not paths:
        sys.exit(f"no videos in {folder}")
    return paths


def frames_of(path: Path, curves: dict[str, Anchor]) -> int | None:
    """As many frames as the clip's curve is of; all where it has none."""
    return curves[path.stem].frames if path.stem in curves else None


def measure_all(
    loaded: Loaded,
    videos: list[clips.Clip],
    targets: list[float],
    device: torch.device,
    effort: int,
    promises: tuple[Promise, ...] = ("block",),
) -> tuple[Measured, ...]:
    return tuple(
        note(measure(loaded, clip, target, device, effort=effort, promise=promise))
        for promise in promises
        for target in targets
        for clip in videos
    )


def note(m: Measured) -> Measured:
    """Progress on stderr."""
    print(
        f"{m.promise} {m.target:g} {m.clip}: {m.tokens_per_block:.0f} tokens, {m.bytes_per_block:.0f} bytes per block, "
        f"MSE {m.mse:.5f}, {m.missed} of {m.blocks} blocks missed, {m.encode_seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return m


def in_words(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{torch.get_num_threads()} CPU threads"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def replace_between(path: Path, text: str) -> None:
    """Put `text` between the marks of a file. Exits if they are not there."""
    before, found, rest = path.read_text().partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not found or not closed:
        sys.exit(f"{path} has no {MARKS[0]} ... {MARKS[1]}")
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
