"""What one run of the quality benchmark measured, as JSON: tables are made from it again without encoding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from elastictok_cli.codec.budget import Promise
from elastictok_cli.evaluation.tokens import Measured

VERSION = 2
READABLE = (1, 2)  # 1 knew no promise but that of a block
_TYPES: dict[str, tuple[type, ...]] = {  # what a field may be in JSON, by its annotation
    "str": (str,),
    "Promise": (str,),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, NoneType),
}


@dataclass(frozen=True)
class Run:
    """Everything the tables need but the other encoders' curves.

    The clips are in order of promise, then of target, then of name.
    """

    model: str  # sha256 of the checkpoint, hex
    effort: int
    device: str  # in words
    peak_memory_mb: float
    val: tuple[Measured, ...] = ()
    hard: tuple[Measured, ...] = ()
    baseline: tuple[Measured, ...] = ()  # a second model on `val`, at one target
    version: int = VERSION


def save(run: Run, path: Path) -> None:
    """Write a file that `load` reads."""
    path.write_text(json.dumps(asdict(run), indent=1) + "\n")


def load(path: Path) -> Run:
    """Read it again, to the last digit. Raises ValueError for what is no such file; OSError."""
    try:
        entry = json.loads(path.read_text())
        if entry["version"] not in READABLE:
            raise ValueError(f"version {entry['version']}, this program reads up to {VERSION}")
        entry["version"] = VERSION  # the fields that were new have defaults
        for name in ("val", "hard", "baseline"):
            entry[name] = tuple(_measured(m) for m in entry[name])
        return Run(**entry)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no measurements: {error}") from error


def with_promise(measured: Sequence[Measured], promise: Promise) -> list[Measured]:
    """Those that were encoded with this promise, in the order they come."""
    return [m for m in measured if m.promise == promise]


def by_clip(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Each clip at all its targets, in the order they come."""
    found: dict[str, list[Measured]] = {}
    for m in measured:
        found.setdefault(m.clip, []).append(m)
    return list(found.values())


def by_target(measured: Sequence[Measured]) -> dict[float, list[Measured]]:
    """All clips at each target, in the order they come."""
    found: dict[float, list[Measured]] = {}
    for m in measured:
        found.setdefault(m.target, []).append(m)
    return found


def _measured(entry: dict[str, Any]) -> Measured:
    """Raises ValueError or TypeError for a field too many, too few, or of another type."""
    m = Measured(**entry)
    for field in fields(m):
        value = getattr(m, field.name)
        wanted = _TYPES[str(field.type)]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{field.name} is {value!r}")
    if m.promise not in get_args(Promise):
        raise ValueError(f"the promise is {m.promise!r}")
    return m
