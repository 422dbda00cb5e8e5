"""Fit formats/screen_tables.npz, the first counts of token coding 5, to .etk files.

    python scripts/fit_screen_tables.py OUT.npz FILES.etk... [--strength 200]

The tables are part of the format: once files exist that were written with them, they never change (SPEC.md, 11).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import numpy as np

from formats import EtkReader
from formats.coding import range_coding, screen_codes, tokens

EACH_SYMBOL = 0.1  # weight of a symbol that was never seen; one of a segment with n symbols has 1 / sqrt(n)
USUAL_WEIGHT = 1.0  # of the contexts like one, beside itself


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--strength", type=int, default=200, help="sum of the first counts of a context")
    options = parser.parse_args()
    total = np.zeros((screen_codes.CONTEXTS, screen_codes.SYMBOLS))
    for path in options.files:
        for counts in seen(path):
            # a segment counts by the root of its size, so that a few large ones do not speak for all
            total += counts / np.sqrt(np.maximum(1, counts.sum(1, keepdims=True)))
    share = np.zeros_like(total)
    for alike in screen_codes.ALIKE:
        seen_in = total[alike]
        usual = seen_in.sum(0) + EACH_SYMBOL
        # a context that was hardly seen begins as those like it together
        mixed = seen_in + USUAL_WEIGHT * usual / usual.sum()
        share[alike] = mixed / mixed.sum(1, keepdims=True)
    counts = np.maximum(1, np.rint(options.strength * share[screen_codes.FITTED])).astype(np.uint8)
    np.savez_compressed(options.out, counts=counts)


def seen(path: Path) -> list[np.ndarray]:
    """How often each symbol was coded in each context, (CONTEXTS, 40) for each segment."""
    found: list[np.ndarray] = []

    class Counter(screen_codes.Tables):
        def __init__(self) -> None:
            found.append(np.zeros((screen_codes.CONTEXTS, screen_codes.SYMBOLS)))

        def table(self, context, start):
            return Counted(found[-1][context[0]])

    class Counted:
        def __init__(self, counts: np.ndarray) -> None:
            self.counts = counts

        def code(self, symbols, coder):
            self.counts += np.bincount(symbols, minlength=len(self.counts))
            return symbols

    with EtkReader(path) as reader:
        header, segments = reader.header, list(reader.segments())
    modes = screen_codes.modes_of(header.control_tokens)
    with mock.patch.object(screen_codes, "Tables", Counter):
        for segment in segments:
            keeps = np.stack([block.keep for block in segment.blocks])
            frames = np.array([len(block.pts) for block in segment.blocks], np.int64)
            ordered = tokens.in_segment_order([block.tokens for block in segment.blocks], keeps)
            range_coding.encode_predicted(ordered, keeps, frames, header.model, modes)
    return found


if __name__ == "__main__":
    main()
