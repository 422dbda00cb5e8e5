"""Training in one process or many: ranks, collective operations, and parameters shared by DDP or FSDP2.

Started by `torchrun`, which sets RANK, WORLD_SIZE and LOCAL_RANK; without it there is one process and nothing here
communicates.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

Parallel = Literal["ddp", "fsdp"]
_TIMEOUT = timedelta(hours=2)  # others wait while the first process validates, or decodes more pictures


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """The one process that writes files."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        return self.maximum([float(flag)])[0] > 0

    def maximum(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all processes."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over all processes."""
        return [value / self.size for value in self._reduced(values, dist.ReduceOp.SUM)]

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, operation)
        out: list[float] = tensor.tolist()
        return out

    def broadcast(self, value: Any) -> Any:
        """`value` of the first process, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, by rank."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)


def rank() -> int:
    """The rank of this process, before anything is started."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def started(device: torch.device) -> Iterator[World]:
    """Join the others, if there are any, and leave them at the end."""
    if "RANK" not in os.environ:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # the device is named so that barriers need not guess it
    named = {"device_id": device} if device.type == "cuda" else {}
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT, **named)  # type: ignore[arg-type]
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def parallelize(model: nn.Module, layers: Sequence[nn.Module], world: World, how: Parallel) -> nn.Module:
    """What to call in place of `model`, which stays the one to take parameters from.

    Both start from the first process's parameters. `fsdp` cuts parameters, gradients and optimizer state into a part
    for each process (FSDP2), one of `layers` at a time.
    """
    if world.size == 1:
        return model
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    if how == "ddp":
        ids = [world.device.index] if world.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    # layers also return the values of their caches, which are views; nobody changes these in place
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def sync_only_last(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around a backward pass that is not the `last` of a step: gradients stay in this process."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    elif isinstance(model, DistributedDataParallel) and not last:
        held: AbstractContextManager[None] = model.no_sync()
        return held
    return nullcontext()


def clip(model: nn.Module, max_norm: float) -> float:
    """Scale the gradient so that its norm is at most `max_norm`. Returns the norm it had."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters, whole and on the CPU, in the first process; all must ask. Elsewhere it may be empty."""
    state: dict[str, Any] = get_model_state_dict(model, options=_WHOLE)
    return state


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The same of the optimizer, by names of parameters; it must have made a step."""
    return dict(get_optimizer_state_dict(model, optimizer, options=_WHOLE))


def restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    world: World,
    model_state: dict[str, Any],
    optimizer_state: dict[str, Any] | None,
) -> None:
    """Inverse of the two above: the first process has the states, others give anything. However many we are."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=world.size > 1)
    set_model_state_dict(model, model_state, options=options)
    if optimizer_state is not None:
        set_optimizer_state_dict(model, optimizer, optimizer_state, options=options)
