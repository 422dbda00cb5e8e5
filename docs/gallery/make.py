"""Make docs/gallery.md and its pictures from the clips in examples/, with the program itself.

    python docs/gallery/make.py [--work DIR] [--only NAME]

Encoded files are kept in the work folder; one that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT / "examples"
HERE = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"


@dataclass(frozen=True)
class Exhibit:
    """One comparison: a clip at some targets, and the moment its picture is taken at."""

    name: str
    title: str
    words: str
    clip: str
    targets: tuple[float, ...]
    poster: str  # seconds
    options: tuple[str, ...] = ()
    width: int = 1080  # at most
    crf: int = 28


EXHIBITS = (
    Exhibit(
        "static",
        "Short and still",
        "The camera does not move. The first picture costs what a picture costs; then only what moves is paid for.",
        "film.mp4",
        (0.007,),
        "1.8",
    ),
    Exhibit(
        "motion",
        "Fast motion",
        "A hand-held shot at three times its speed. Every block needs tokens; `--heat` shows which cells get them.",
        "rabbit-fast.mp4",
        (0.007,),
        "1.2",
        ("--heat",),
    ),
    Exhibit(
        "cuts",
        "Scene cuts",
        "Three shots of one second. At each cut (dotted line) nothing can be predicted: usage spikes, and falls again.",
        "cuts.mp4",
        (0.007,),
        "2.1",
    ),
    Exhibit(
        "long",
        "Half a minute",
        "Five shots of six seconds: the same tokens tell calm from motion, shot by shot.",
        "toys-long.mp4",
        (0.007,),
        "20.0",
        width=660,
        crf=32,
    ),
    Exhibit(
        "thresholds",
        "Two thresholds",
        "The same flower at two targets, with four times the difference below.",
        "flower.mp4",
        (0.001, 0.007),
        "3.5",
        ("--diff",),
    ),
)

_INTRODUCTION = """# Gallery

What `elastictok compare` shows of the clips in `examples/`: the original, what was left of it, and below them the
tokens that each block of frames used, up to the frame shown. Click a picture for the video. Everything here was made
by `scripts/gallery` with the model that shipped on 2026-11-25. Its training data did not hold the originals of
`film.mp4` and `flower.mp4`; it did hold those of the other clips.
"""

_SOURCES = """## The clips

All are CC0-1.0, by mdn. `flower.mp4`, `film.mp4` and the first shot of `cuts.mp4` (both from friday.mp4) are excerpts
of videos in mdn/interactive-examples; the figures in `rabbit-fast.mp4`, `toys-long.mp4` and `cuts.mp4` (rabbit,
crystal, elf, frog, monster) are from mdn/learning-area. They were scaled down, cropped, sped up (`rabbit-fast.mp4`)
and joined (`cuts.mp4`, `toys-long.mp4`).
"""


def main() -> None:
    """Make what was asked for, and the page once everything is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "gallery")
    parser.add_argument("--only", choices=[exhibit.name for exhibit in EXHIBITS])
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for exhibit in EXHIBITS:
        if asked.only in (None, exhibit.name):
            facts = show(exhibit, asked.work)
            (asked.work / f"{exhibit.name}.json").write_text(json.dumps(facts))
    facts_of = {e.name: asked.work / f"{e.name}.json" for e in EXHIBITS}
    if all(path.exists() for path in facts_of.values()):
        sections = [section(e, json.loads(facts_of[e.name].read_text())) for e in EXHIBITS]
        PAGE.write_text("\n".join([_INTRODUCTION, *sections, _SOURCES]), encoding="utf-8")


def show(exhibit: Exhibit, work: Path) -> dict[str, Any]:
    """Encode, compare, take the picture; gives the summary of the comparison."""
    clip = CLIPS / exhibit.clip
    coded = [work / f"{clip.stem}-{target:g}.etk" for target in exhibit.targets]
    for target, path in zip(exhibit.targets, coded, strict=True):
        if not path.exists():
            program("encode", clip, path, "--mse", target)
    common = ("--width", exhibit.width, "--crf", exhibit.crf, *exhibit.options, "-y")
    made = program("compare", clip, *coded, "-o", HERE / f"{exhibit.name}.mp4", *common, "--json")
    poster = HERE / f"{exhibit.name}.jpg"
    program("compare", clip, *coded, "-o", poster, "--start", exhibit.poster, *common)
    summary: dict[str, Any] = json.loads(made.splitlines()[-1])
    return summary


def program(*arguments: object) -> str:
    """Run elastictok; gives what it printed."""
    command = [sys.executable, "-m", "elastictok_cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def section(exhibit: Exhibit, summary: dict[str, Any]) -> str:
    """The part of the page about one exhibit."""
    rows = "\n".join(map(_row, exhibit.targets, summary["files"]))
    names = " ".join(f"{Path(exhibit.clip).stem}-{target:g}.etk" for target in exhibit.targets)
    commands = [
        f"$ elastictok encode {exhibit.clip} {Path(exhibit.clip).stem}-{target:g}.etk --mse {target:g}"
        for target in exhibit.targets
    ]
    options = "".join(f" {option}" for option in exhibit.options)
    return f"""## {exhibit.title}

{exhibit.words}

[![{exhibit.title}](gallery/{exhibit.name}.jpg)](gallery/{exhibit.name}.mp4)

| target (mse) | tokens, {summary["frames"]} frames | of a full block | size | PSNR | SSIM | MS-SSIM |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

```console
{chr(10).join(commands)}
$ elastictok compare {exhibit.clip} {names} -o {exhibit.name}.mp4{options}
```
"""


def _row(target: float, file: dict[str, Any]) -> str:
    figures = (
        f"{target:g}",
        f"{file['tokens']:,}",
        f"{file['share']:.1%}",
        f"{file['bytes'] / 1000:.1f} kB",
        f"{file['psnr']:.1f} dB",
        _or_dash(file["ssim"]),
        _or_dash(file["ms_ssim"]),
    )
    return f"| {' | '.join(figures)} |"


def _or_dash(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"  # noqa: RUF001


if __name__ == "__main__":
    main()
