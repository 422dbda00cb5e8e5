"""What the tokens of a file are spent on, and how to say it. Needs no model, but reads every token."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from formats import EtkReader, KindCounts

# In the order in which they are shown: what codes a cell, what its control tokens say, and what needs no codes.
NAMES = {
    "fsq": "FSQ codes",
    "vector": "vectors",
    "dct": "DCT",
    "palette": "palettes",
    "other": "others",
    "motion_vector": "motion vectors",
    "whole_vector": "whole vectors",
    "pan": "camera pans",
    "shake": "camera shakes",
    "gain": "gains",
    "control_alone": "control tokens alone",
    "none": "no token",
}


def count_kinds(reader: "EtkReader", tick: Callable[[int], None] = lambda _: None) -> "KindCounts":
    """The counts of all segments whose tokens can be read. `tick` is called with the frames read so far."""
    from formats import KindCounter, KindCounts

    counter, total, frames = KindCounter(reader.header), KindCounts(), 0
    for segment in reader.segments():
        total += counter.count(segment.blocks)
        frames += sum(len(block.pts) for block in segment.blocks)
        tick(frames)
    return total


def cells_of(counts: "KindCounts") -> int:
    """All cells of all blocks, those without a token too."""
    from formats.kinds import CELL_KINDS

    return sum(counts.cells[kind] for kind in CELL_KINDS)


def table(counts: "KindCounts") -> list[str]:
    """A heading, and a line for each kind that there is: tokens and cells, each with its share of all."""
    tokens, cells = sum(counts.tokens.values()), cells_of(counts)
    lines = [f"{'kind':20} {'tokens':>11} {'':>6} {'cells':>11} {'':>6}".rstrip()]
    for kind, name in NAMES.items():
        own_tokens, own_cells = counts.tokens.get(kind), counts.cells[kind]
        if own_tokens or own_cells:
            lines.append(f"{name:20} {_of(own_tokens, tokens)} {_of(own_cells, cells)}")
    return lines


def _of(count: int | None, total: int) -> str:
    return f"{'-':>11} {'-':>6}" if count is None else f"{count:>11,} {_share(count, total):>6}"


def sentence(counts: "KindCounts") -> str:
    """The kinds by their share of all tokens, largest first: "62.0% of tokens palettes, 38.0% FSQ codes"."""
    total = sum(counts.tokens.values())
    if not total:
        return "no token"
    kinds = sorted((kind for kind in NAMES if counts.tokens.get(kind)), key=lambda kind: -counts.tokens[kind])
    shares = [_share(counts.tokens[kind], total) for kind in kinds]
    first, *others = [f"{share} {NAMES[kind]}" for share, kind in zip(shares, kinds, strict=True)]
    return ", ".join([first.replace("% ", "% of tokens ", 1), *others])


def _share(count: int, total: int) -> str:
    """A percentage, never 0.0% of something nor 100.0% of a part."""
    share = count / total if total else 0.0
    text = f"{share:.1%}"
    if count and text == "0.0%":
        return "<0.1%"
    return ">99.9%" if count < total and text == "100.0%" else text
