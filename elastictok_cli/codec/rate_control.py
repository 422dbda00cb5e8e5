"""Rate control: the fewest tokens of a block whose decoded, rounded frames meet the target.

Cheap first, exact last. The encoder's error curves say which keep map to try, a few decodes measure the true error and
correct the curves, and the block keeps the tokens of the cheapest probe that passed. A probe is one decode of one keep
map; it passes if the block's MSE is at most the target.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from elastictok_cli.codec.pixels import Job
from elastictok_cli.codec.probing import Coded, Draft, all_tokens, allowed_error, error_model, probe
from elastictok_cli.models.interface import Encoding, NestedTokenizer

Allocation = Literal["cell", "block"]  # a length for each cell, or one length for all cells of a block


@dataclass(frozen=True)
class Effort:
    """How much work goes into a block.

    probes: decodes that a block usually gets at most.
    close: share of the target; a pass with at least this error is not improved further.
    costly: expected tokens per cell above which mode decision drafts shorter blocks too.
    """

    probes: int
    close: float
    costly: float


EFFORTS = (
    Effort(2, 0.9, math.inf),
    Effort(2, 0.95, math.inf),
    Effort(3, 0.96, 8),
    Effort(3, 0.97, 4),
    Effort(3, 0.975, 2),
    Effort(3, 0.975, 0.8),
    Effort(4, 0.985, 0.7),
    Effort(6, 0.993, 0.5),
    Effort(8, 0.996, 0.5),
    Effort(12, 0.998, 0.5),
)
DEFAULT_EFFORT = 5

EXTRA_PROBES = 6  # beyond an effort's own, while no probe has passed
LOW_ERROR_OF_PASS = 0.85  # share of the target: a pass below it gets one probe more
MAX_GROWTH_OF_FIRST_PROBE = (
    1.5  # times the drafted tokens; a first probe with more tries the drafted keep map instead
)
# Error that the n-th probe aims at, as a share of the target. Probes land around their aim, and one that misses the
# target by little is lost. The first probe knows the curves alone, the second what the first showed of each cell, and
# the third starts closer still.
AIMS = (0.99, 0.994, 0.996)
# Range of a draft's lambda, as shares of the squared error that the target leaves a cell of a whole block.
MIN_PRICE_SHARE, MAX_PRICE_SHARE = 0.1, 3.0
# What a miss multiplies the aim of later probes by: an effort's own probes, those up to LATE_PROBES more, and the rest.
AIM_AFTER_NEAR_MISS, AIM_AFTER_MISS, AIM_AFTER_LATE_MISS, AIM_AFTER_LAST_MISSES = 0.99, 0.985, 0.97, 0.9
LATE_PROBES = 3
NEAR_MISS = 1.01  # times the target
AIM_AFTER_REPEAT = 0.9  # where a keep map comes out that has been probed and missed
MIN_SAVING = 0.02  # share of the tokens: a pass that saves less than this on the best one ends the probes


def draft(
    tokenizer: NestedTokenizer,
    job: Job,
    context: Any,
    target: float,
    *,
    allocation: Allocation = "cell",
    price: float | None = None,
    weight: torch.Tensor | None = None,
    bias: float = 1.0,
) -> Draft:
    """Encode one block for `target` (MSE) and see what its curves predict.

    price: lambda expected of the block, None if unknown. weight: (1, h, w), how much the error of each cell matters.
    bias: measured / predicted error to expect.
    With the allocation "block" these are of no effect: one length for all cells leaves nothing to weigh.
    """
    if allocation == "block":
        encoding = _complete(tokenizer, job, context, target)
        model = error_model(tokenizer, job, encoding, None)
        allowed = allowed_error(job, target, encoding.curve.device)
        keep, reaches = model.one_length(allowed)
        return Draft(job, context, encoding, model, keep, int(keep.sum()), reaches, 0.0)
    encoding = all_tokens(tokenizer, job, context, target=target, price=price)
    model = error_model(tokenizer, job, encoding, weight)
    model.expect(bias)
    allowed = allowed_error(job, target, encoding.curve.device)
    keep, found = model.allocate(allowed)
    reaches = model.reaches(keep, allowed)
    lowest, highest = price_range(tokenizer, target)
    found = min(max(found, lowest), highest)
    return Draft(job, context, encoding, model, keep, int(keep.sum()), reaches, found, weight)


def meet_target(
    tokenizer: NestedTokenizer,
    drafted: Draft,
    target: float,
    *,
    allocation: Allocation = "cell",
    effort: Effort = EFFORTS[DEFAULT_EFFORT],
    bias: float = 1.0,
) -> Coded:
    """Code a drafted block with as few tokens as meet `target` (MSE); with all its tokens where none do.

    allocation: that of the draft. bias: measured / predicted error that the first probe expects. The draft stays as
    it is.
    """
    job, context = drafted.job, drafted.context
    if allocation == "block":
        return _probe_lengths(tokenizer, job, drafted.encoding, context, target)
    coded = _probe_cells(tokenizer, drafted, target, effort, bias)
    if not coded.missed:
        return coded
    # The encoder left out tokens of cells that need none for this target. Now every cell has to be able to help.
    encoding = _complete(tokenizer, job, context, target)
    everything = probe(tokenizer, job, encoding, encoding.length, context, target)
    if everything.missed:  # no keep map can meet the target
        return everything
    model = error_model(tokenizer, job, encoding, drafted.weight)
    complete = replace(drafted, encoding=encoding, model=model, keep=encoding.length)
    return _probe_cells(tokenizer, complete, target, effort, bias)


def price_range(tokenizer: NestedTokenizer, target: float) -> tuple[float, float]:
    """The lowest and the highest lambda that a draft for `target` (MSE) has: squared error per token."""
    spec = tokenizer.spec
    error_of_cell = target * spec.frames * 3 * spec.cell[0] * spec.cell[1]
    return MIN_PRICE_SHARE * error_of_cell, MAX_PRICE_SHARE * error_of_cell


def fixed_length(tokenizer: NestedTokenizer, job: Job, context: Any, tokens: int) -> Coded:
    """Code one block with `tokens` tokens in every cell, or all that a cell has where it has fewer."""
    encoding = all_tokens(tokenizer, job, context, complete=True)
    return probe(tokenizer, job, encoding, encoding.length.clamp_max(tokens), context, None)


def _probe_cells(
    tokenizer: NestedTokenizer, drafted: Draft, target: float, effort: Effort, bias: float
) -> Coded:
    """Probe keep maps with a length for each cell; each probe corrects the error model for the next."""
    job, encoding, context = drafted.job, drafted.encoding, drafted.context
    device = encoding.curve.device
    allowed = allowed_error(job, target, device)
    model = copy.copy(drafted.model)  # it replaces its tensors, so the draft's own stay as they are
    model.expect(bias)
    aim_scale = 1.0  # below 1 after a miss: later probes then aim at less error
    best: Coded | None = None
    tried: set[bytes] = set()
    for attempt in range(effort.probes + EXTRA_PROBES):
        aim = AIMS[min(attempt, len(AIMS) - 1)]
        keep, _ = model.allocate(allowed * aim * aim_scale)
        if attempt == 0 and int(keep.sum()) > MAX_GROWTH_OF_FIRST_PROBE * int(drafted.keep.sum()):
            keep = drafted.keep  # where cells are alike, a tiny bias decides for all of them at once
        fingerprint = keep.cpu().numpy().tobytes()
        if fingerprint in tried:
            if best is not None:
                break
            aim_scale *= AIM_AFTER_REPEAT
            continue
        tried.add(fingerprint)
        coded = probe(tokenizer, job, encoding, keep, context, target)
        assert coded.cell_errors is not None
        coded = replace(coded, bias=model.learn(keep, coded.cell_errors))
        little_to_gain = False
        if not coded.missed:
            tokens = int(keep.sum())
            little_to_gain = best is not None and tokens > (1 - MIN_SAVING) * int(best.keep.sum())
            if best is None or tokens < int(best.keep.sum()):
                best = coded
        if best is not None:
            probe_limit = effort.probes if best.mse >= LOW_ERROR_OF_PASS * target else effort.probes + 1
            done = little_to_gain or attempt + 1 >= probe_limit or int(best.keep.sum()) == 0
            if done or best.mse >= effort.close * target:
                break
        if coded.missed and attempt >= 1:
            near = coded.mse < NEAR_MISS * target
            if attempt < effort.probes:
                aim_scale *= AIM_AFTER_NEAR_MISS if near else AIM_AFTER_MISS
            else:
                late = attempt < effort.probes + LATE_PROBES
                aim_scale *= AIM_AFTER_LATE_MISS if late else AIM_AFTER_LAST_MISSES
    if best is not None:
        return best
    return probe(tokenizer, job, encoding, encoding.length, context, target)


def _probe_lengths(
    tokenizer: NestedTokenizer, job: Job, encoding: Encoding, context: Any, target: float
) -> Coded:
    """The smallest passing length of all cells by bisection (the paper, section 3.3); keeps the best passing probe."""
    longest = int(encoding.length.max())
    low, high = 0, longest
    best: Coded | None = None
    while low <= high:
        middle = (low + high) // 2
        coded = probe(tokenizer, job, encoding, encoding.length.clamp_max(middle), context, target)
        if coded.missed:
            low = middle + 1
        else:
            best, high = coded, middle - 1
    return best or probe(tokenizer, job, encoding, encoding.length, context, target)


def _complete(tokenizer: NestedTokenizer, job: Job, context: Any, target: float) -> Encoding:
    """The block with all tokens of every cell."""
    price, _ = price_range(tokenizer, target)
    return all_tokens(tokenizer, job, context, target=target, complete=True, price=price)
