"""Fit formats/tables.npz, the fixed networks behind keep coding 16 and token coding 4, to .etk files.

    python scripts/fit_tables.py OUT.npz FILES.etk... [--steps 4000] [--held-out FILES.etk...]

The tables are part of the format: once files exist that were written with them, they never change (SPEC.md, 11).
Walks of the coder itself record what the networks see; torch fits them; then they are rounded to integers.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from formats import EtkReader, unpack_tokens
from formats.coding import control_tokens, keep_maps, networks, wavefront

HIDDEN_KEEP, HIDDEN_PATTERN = 32, 16
ONE_LOGIT = 64  # fixed point of logits: networks._EXP_OF_LOGIT
KEEP_UNIT = 16  # features of keep maps: 16 * log2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    torch.manual_seed(0)
    seen = Record()
    for path in options.files:
        seen.file(path)
    data = seen.arrays()
    tables = {
        **network("keep", data["keep"], HIDDEN_KEEP, KEEP_UNIT, len(networks.BIN_EDGES), options.steps),
        **network("pattern", data["pattern"], HIDDEN_PATTERN, 1, networks.PATTERNS, options.steps),
        **vectors(data["row"], data["column"], options.steps),
        "digits": first_counts(seen.digits),
    }
    np.savez_compressed(options.out, **tables)
    known = networks.Networks(
        networks.Tables(*(tables[name].astype(np.int64) for name in networks.Tables._fields))
    )
    for path in options.held_out:
        cost = Cost()
        walk(path, known, cost)
        print(path.stem, {name: round(bits / 8) for name, bits in cost.bits.items()}, flush=True)


class Record:
    """Stands for tables and coder at once, and notes the inputs and the symbols of every prediction."""

    def __init__(self) -> None:
        self.inputs: dict[str, list] = defaultdict(list)
        self.symbols: dict[str, list] = defaultdict(list)
        self.name = ""
        self.digits = np.zeros((6, 8, 8))

    def file(self, path: Path) -> None:
        walk(path, self, self)
        counts = digit_counts(path)
        # a file counts by the root of its size, so that a few large ones do not speak for all
        self.digits += counts / max(1.0, counts[0].sum()) ** 0.5

    def keep(self, near, block, frames):
        inputs = [near, one_hot(np.minimum(block, 2), 3), one_hot(np.clip(frames, 1, 4) - 1, 4)]
        return self.note("keep", np.concatenate(inputs, 1))

    def pattern(self, near, keep, block, frames):
        parts = [one_hot(near[:, i], 6) for i in range(wavefront.NEAREST)]
        parts += [one_hot(np.minimum(networks.bin_of(keep), 12), 13)]
        parts += [one_hot(np.minimum(block, 2), 3), one_hot(np.clip(frames, 1, 4) - 1, 4)]
        return self.note("pattern", np.concatenate(parts, 1))

    def row(self, status, rows, radix):
        return self.note("row", np.stack([status, rows], 1))

    def column(self, status, rows, columns, row, radix):
        off = np.abs(rows - row[:, None])
        return self.note("column", np.stack([status, columns, (off > 0).astype(np.int64) + (off > 2)], 1))

    def note(self, name, inputs):
        self.name = name
        self.inputs[name].append(inputs.astype(np.int16))

    def code(self, starts, symbols):
        self.symbols[self.name].append(symbols)
        return symbols

    def code_uniform(self, sizes, symbols):
        return symbols

    def arrays(self):
        return {
            name: (
                torch.from_numpy(np.concatenate(self.inputs[name])),
                torch.from_numpy(np.concatenate(self.symbols[name])),
            )
            for name in self.inputs
        }


class Cost:
    """A coder that counts bits."""

    def __init__(self) -> None:
        self.bits: dict[str, float] = defaultdict(float)
        self.name = "keep"

    def code(self, starts, symbols):
        rows = np.arange(len(symbols))
        share = (starts[rows, symbols + 1] - starts[rows, symbols]) / 65536
        name = {27: "keep", 4: "pattern"}.get(starts.shape[1] - 1, "vectors")
        self.bits[name] -= float(np.log2(share).sum())
        return symbols

    def code_uniform(self, sizes, symbols):
        self.bits["plain"] += float(np.log2(sizes).sum())
        return symbols


def walk(path: Path, known, coder) -> None:
    """Let a coder visit the keep maps and control tokens of a file."""
    with EtkReader(path) as reader:
        model = reader.header.model
        regular = math.prod(model.levels)
        for segment in reader.segments():
            keeps = np.stack([b.keep for b in segment.blocks])
            frames = np.array([len(b.pts) for b in segment.blocks])
            totals = keeps.reshape(len(keeps), -1).sum(1).astype(np.int64)
            keep_maps.code_keep_maps(keeps, totals, frames, coder, known)
            grid = np.stack(
                [unpack_tokens(b.tokens, b.keep, max(2, int(b.keep.max())))[:2] for b in segment.blocks]
            ).astype(np.int64)
            first, second = (np.where(keeps.ravel() > i, grid[:, i].ravel(), -1) for i in range(2))
            pattern = control_tokens.patterns_of(first, second, regular, model.vocabulary)
            control_tokens.code_control_tokens(
                first, second, pattern, keeps, frames, regular, model.vocabulary, coder, known
            )


def digit_counts(path: Path) -> np.ndarray:
    """How often each digit (6) has each value in each context (8); (6, 8, 8)."""
    counts = np.zeros((6, 8, 8))
    with EtkReader(path) as reader:
        model = reader.header.model
        regular = math.prod(model.levels)
        for segment in reader.segments():
            for number, block in enumerate(segment.blocks):
                grid = unpack_tokens(block.tokens, block.keep, int(block.keep.max())).astype(np.int64)
                told = np.zeros(block.keep.shape, np.int64)
                for index in range(int(block.keep.max())):
                    here = (block.keep > index) & (grid[index] < regular)
                    context = 2 * np.searchsorted([1, 2, 6], told[here], side="right") + (number > 0)
                    rest = grid[index][here]
                    for digit, level in enumerate(model.levels):
                        np.add.at(counts[digit], (context, rest % level), 1)
                        rest = rest // level
                    told += here
    return counts


def first_counts(seen: np.ndarray, total: int = 96) -> np.ndarray:
    """Shares (6, 8, 8) to counts that sum to about `total`, each at least 1: as if so much had been seen already."""
    share = seen / np.maximum(seen.sum(-1, keepdims=True), 1e-9)
    return np.maximum(1, np.rint(share * total)).astype(np.int16)


def network(name: str, data, hidden: int, unit: float, symbols: int, steps: int) -> dict[str, np.ndarray]:
    """Fit two layers, and round them."""
    inputs, told = data
    scale = torch.ones(inputs.shape[1])
    if name == "keep":
        scale[: len(wavefront.NEIGHBOURS) + 1] = 1 / unit
    model = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, symbols)
    )

    def loss(pick: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(inputs[pick].float() * scale), told[pick])

    fit(name, model.parameters(), loss, len(told), steps, 1e-2)
    into, outof = model[0], model[2]
    one_in, one_out = 1 << 2 * networks._HIDDEN_SHIFT, 1 << networks._LOGIT_SHIFT
    weight = (into.weight * scale).t() * one_in
    bias = into.bias * one_in
    # hidden values have _HIDDEN_SHIFT binary places, as logits have
    out = [outof.weight.t() * one_out, outof.bias[None] * one_out * ONE_LOGIT]
    return {
        f"{name}_in": torch.cat([weight, bias[None]]).detach().round().int().numpy(),
        f"{name}_out": torch.cat(out).detach().round().int().numpy(),
    }


def vectors(rows, columns, steps: int) -> dict[str, np.ndarray]:
    """Fit the tables that are summed up for vectors."""
    reach, near = 2 * networks._MAX_DIFFERENCE + 1, wavefront.NEAREST + 1
    slope = -0.15 * (torch.arange(reach) - networks._MAX_DIFFERENCE).abs().clamp_max(6).float()
    tables = [
        torch.nn.Parameter(slope.repeat(near, 3, 1)),
        torch.nn.Parameter(slope.repeat(near, 3, 3, 1)),
    ]
    number, radix = torch.arange(near), torch.arange(39)

    def logits(table, status, value, off=None):
        away = (radix - value[..., None]).clamp(
            -networks._MAX_DIFFERENCE, networks._MAX_DIFFERENCE
        ) + networks._MAX_DIFFERENCE
        chosen = table[number, status] if off is None else table[number, status, off]  # (n, 8, 77)
        return chosen.gather(2, away.long()).sum(1)

    def loss(pick: torch.Tensor) -> torch.Tensor:
        row, column = rows[0][pick].long(), columns[0][pick].long()
        first = F.cross_entropy(logits(tables[0], row[:, 0], row[:, 1]), rows[1][pick])
        second = F.cross_entropy(
            logits(tables[1], column[:, 0], column[:, 1], column[:, 2]), columns[1][pick]
        )
        rough = sum((t[..., 1:] - t[..., :-1]).square().sum() for t in tables)
        return first + second + 3e-5 * rough

    fit("vectors", tables, loss, len(rows[1]), steps, 2e-2)
    names = ("rows", "columns")
    return {
        n: (t * ONE_LOGIT).detach().round().to(torch.int16).numpy()
        for n, t in zip(names, tables, strict=True)
    }


def fit(name, parameters, loss, count: int, steps: int, rate: float) -> None:
    """Adam, the rate falling linearly to zero."""
    optimizer = torch.optim.Adam(parameters, rate)
    smooth = None
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        value = loss(torch.randint(count, (1024,)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        smooth = value.item() if smooth is None else 0.99 * smooth + 0.01 * value.item()
    print(f"{name}: {count} samples, {smooth / math.log(2):.3f} bits", flush=True)


def one_hot(values: np.ndarray, size: int) -> np.ndarray:
    return (values[:, None] == np.arange(size)).astype(np.int64)


if __name__ == "__main__":
    main()
