"""Token coding 3 (SPEC.md, 6.1): what is written is read, by our reader and by one that follows the page literally."""

import json
import math
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from etk_by_the_page import Contexts, Lanes, lanes_for
from etk_samples import MODEL
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import Corrupt, ModelRef
from formats.coding import range_coding as ranged
from formats.coding import tokens

SHIPPED = replace(MODEL, levels=(8, 8, 8, 5, 5, 5), vocabulary=65524, tokens_per_cell=58)


def by_the_page(data: bytes, keeps: np.ndarray, model: ModelRef) -> list[int]:
    """A reader in the words of SPEC.md, one symbol at a time."""
    product = math.prod(model.levels)
    more = model.vocabulary - product
    radix = math.isqrt(more)
    lanes = Lanes(data, lanes_for(int(keeps.sum()), 1024))
    contexts = Contexts(lanes)
    sequence = contexts.sequence

    result: list[int] = []
    told = [0] * keeps.size
    for index in range(int(keeps.max())):
        run = [cell for cell in range(keeps.size) if keeps.flat[cell] > index]
        first = {cell: cell < keeps[0].size for cell in run}
        special = dict.fromkeys(run, 0)
        if more:
            for block in (True, False):
                own = [cell for cell in run if first[cell] == block]
                special |= zip(own, sequence(("s", min(index, 2), block), [16, 2], len(own)), strict=True)
        odd = [cell for cell in run if special[cell]]
        high = sequence(("h",), [2] * (-(-more // radix) if more else 1), len(odd))
        low = sequence(("l",), [2] * max(radix, 1), len(odd))
        value = {cell: product + h * radix + b for cell, h, b in zip(odd, high, low, strict=True)}
        usual = [cell for cell in run if not special[cell]]
        value |= contexts.digits(model.levels, usual, first, told, {})
        result += [value[cell] for cell in run]
    lanes.finish()
    return result


@st.composite
def segments(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, ModelRef]:
    model = draw(
        st.sampled_from(
            [
                SHIPPED,
                replace(SHIPPED, vocabulary=64000),
                replace(SHIPPED, levels=(3,), vocabulary=4),
                replace(SHIPPED, levels=(256, 2), vocabulary=512 + 65025 - 1),
            ]
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    keeps = rng.integers(0, draw(st.sampled_from([1, 3, 12])) + 1, shape).astype(np.uint16)
    middle = sum(math.prod(model.levels[:i]) * (n // 2) for i, n in enumerate(model.levels))
    usual = rng.choice([middle, middle, middle + 1, 1], keeps.sum())
    odd = rng.integers(0, model.vocabulary, len(usual))
    ordered = np.where(rng.random(len(usual)) < draw(st.sampled_from([0, 0.2, 1])), odd, usual)
    return ordered.astype(np.uint16), keeps, model


@given(segments())
@settings(max_examples=60, deadline=None)
def test_both_readers_give_back_what_was_written(case: tuple[np.ndarray, np.ndarray, ModelRef]) -> None:
    ordered, keeps, model = case
    data = ranged.encode(ordered, keeps, model)
    assert ranged.decode(data, keeps, model).tolist() == ordered.tolist()
    if len(ordered):
        assert by_the_page(data, keeps, model) == ordered.tolist()


def test_many_lanes() -> None:
    rng = np.random.default_rng(3)
    keeps = rng.integers(0, 59, (3, 16, 24)).astype(np.uint16)
    ordered = rng.integers(0, 300, keeps.sum()).astype(np.uint16)
    assert ranged.lanes_for(len(ordered)) == 64  # the other tests have few
    data = ranged.encode(ordered, keeps, SHIPPED)
    assert ranged.decode(data, keeps, SHIPPED).tolist() == ordered.tolist()
    assert by_the_page(data, keeps, SHIPPED) == ordered.tolist()


def test_lanes_have_a_limit() -> None:
    assert [ranged.lanes_for(n) for n in (0, 1024, 1025, 1 << 24)] == [1, 1, 2, 1024]


@given(segments(), st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_an_error(case: tuple[np.ndarray, np.ndarray, ModelRef], draw: st.DataObject) -> None:
    ordered, keeps, model = case
    data = bytearray(ranged.encode(ordered, keeps, model))
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data) - 1)) :]
    else:
        data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    # a flipped bit may also spell other tokens; what it may not do is fail in another way
    with suppress(Corrupt):
        assert ranged.decode(bytes(data), keeps, model).max(initial=0) < model.vocabulary


def test_too_many_bytes_are_an_error() -> None:
    keeps = np.full((1, 2, 2), 2, np.uint16)
    data = ranged.encode(np.arange(8, dtype=np.uint16), keeps, SHIPPED)
    with pytest.raises(Corrupt, match="do not end"):
        ranged.decode(data + b"\0\0", keeps, SHIPPED)
    with pytest.raises(Corrupt, match="impossible length"):
        ranged.decode(data[:3], keeps, SHIPPED)


def test_tokens_that_differ_by_index_come_near_their_entropy() -> None:
    rng = np.random.default_rng(1)
    keeps = np.full((6, 16, 16), 2, np.uint16)
    cells = keeps.size
    spread = np.repeat([1.5, 0.4], cells)[:, None]  # first tokens are wild, second ones tame
    digits = np.clip(np.round(rng.normal(0, spread, (2 * cells, 6))) + np.array([4, 4, 4, 2, 2, 2]), 0, 4)
    ordered = (digits @ np.array([1, 8, 64, 512, 2560, 12800])).astype(np.uint16)
    entropy = 0.0
    for part in (digits[:cells], digits[cells:]):
        for column in part.T:
            p = np.bincount(column.astype(int)) / cells
            entropy -= cells * (p[p > 0] * np.log2(p[p > 0])).sum() / 8
    size = len(ranged.encode(ordered, keeps, SHIPPED))
    assert entropy < size < 1.06 * entropy
    blocks = [
        np.concatenate(pair) for pair in zip(*(np.split(o, 6) for o in np.split(ordered, 2)), strict=True)
    ]
    coded = tokens.encode_tokens(blocks, keeps, [4] * 6, SHIPPED)
    assert coded[0] == tokens.PREDICTED_RANGE_CODED  # smaller for real tokens, whose digits it knows
    assert entropy < len(coded) < 1.1 * entropy


def test_wide_alphabets_are_left_to_other_codings() -> None:
    assert ranged.allows(SHIPPED)
    assert not ranged.allows(replace(SHIPPED, levels=(300, 4)))
    assert not ranged.allows(replace(SHIPPED, levels=(2, 3, 4), vocabulary=65536))


def test_golden_tokens() -> None:
    """GENERATE_EXPECTED=1 writes the file anew: 2 blocks of 4 x 5 cells, tokens regular and special."""
    path = Path(__file__).parents[1] / "golden" / "ranged.json"
    rng = np.random.default_rng(11)
    keeps = rng.integers(0, 7, (2, 4, 5)).astype(np.uint16)
    ordered = np.where(
        rng.random(keeps.sum()) < 0.2,
        rng.integers(64000, 65524, keeps.sum()),
        rng.integers(0, 64000, keeps.sum()),
    ).astype(np.uint16)
    if os.environ.get("GENERATE_EXPECTED"):
        coded = ranged.encode(ordered, keeps, SHIPPED).hex()
        facts = {"keeps": keeps.tolist(), "tokens": ordered.tolist(), "coded": coded}
        path.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    stored = json.loads(path.read_text(encoding="utf-8"))
    keeps, ordered = np.array(stored["keeps"], np.uint16), np.array(stored["tokens"], np.uint16)
    assert ranged.encode(ordered, keeps, SHIPPED).hex() == stored["coded"]
    assert ranged.decode(bytes.fromhex(stored["coded"]), keeps, SHIPPED).tolist() == stored["tokens"]
