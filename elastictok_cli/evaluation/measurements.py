"""What one run of the quality benchmark measured, as JSON: tables are made from it again without encoding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from elastictok_cli.evaluation.tokens import Measured

VERSION = 1


@dataclass(frozen=True)
class Run:
    """Everything the tables need but the other encoders' curves. The clips are in order of target, then of name."""

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
        if entry["version"] != VERSION:
            raise ValueError(f"version {entry['version']}, this program reads {VERSION}")
        for name in ("val", "hard", "baseline"):
            entry[name] = tuple(_measured(m) for m in entry[name])
        return Run(**entry)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no measurements: {error}") from error


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
        wanted: tuple[type, ...] = {"str": (str,), "int": (int,)}.get(str(field.type), (int, float))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{field.name} is {value!r}")
    return m
