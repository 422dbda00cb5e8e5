"""Measurements as words and tables in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from elastictok_cli.evaluation.tokens import Measured, geometric_mean

UNKNOWN = "-"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown. Raises ValueError for a row of another width than its head."""
    if any(len(row) != len(head) for row in rows):
        raise ValueError("a row has more or fewer cells than the table's head")
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def captioned(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table below its caption."""
    return f"{wrapped(caption)}\n\n{table(head, rows)}"


def wrapped(text: str) -> str:
    """A paragraph."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def ratio_text(ratio: float | None) -> str:
    """Two decimals; "-" where it is not known."""
    return UNKNOWN if ratio is None else f"{ratio:.2f}"


def means(clips: Sequence[Measured]) -> list[str]:
    """Geometric means of tokens and bytes."""
    return [
        f"{geometric_mean([max(m.tokens_per_block, 0.1) for m in clips]):.0f}",
        f"{geometric_mean([m.bytes_per_block for m in clips]):.0f}",
    ]


def missed(clips: Sequence[Measured]) -> str:
    """How many blocks missed."""
    return f"{sum(m.missed for m in clips)} of {sum(m.blocks for m in clips)}"
