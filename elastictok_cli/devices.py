"""Which device a network runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DEVICES = ("cuda", "mps", "cpu")  # in the order in which `auto` prefers them


class NoDevice(ValueError):
    """torch cannot use the device asked for; the message is one sentence for the user."""


def find_device(name: str = "auto") -> torch.device:
    """The device of this name: auto (the first of `DEVICES` that is there), cpu, cuda, cuda:1, mps.

    Raises NoDevice where it is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in DEVICES if there[kind]))
    kind, _, number = name.partition(":")
    if kind not in there:
        raise NoDevice(f"device must be auto, {', '.join(DEVICES)} or cuda:N, not {name}")
    if not there[kind]:
        raise NoDevice(f"this machine has no {kind} device that torch can use")
    if number and not (number.isdecimal() and (kind != "cuda" or int(number) < torch.cuda.device_count())):
        raise NoDevice(f"this machine has no device {name}")
    return torch.device(name)
