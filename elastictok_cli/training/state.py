"""Files of a training run besides its checkpoint: the state to go on from, and the validation figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elastictok_cli.training.events import TrainingError


def state_path(out: Path) -> Path:
    """Where the resumable state of a run stands, beside its checkpoint."""
    return out.with_suffix(".state.pt")


def split(path: Path, size: int) -> None:
    """Copies of a file in numbered pieces, for links that carry only small files; `join` undoes it."""
    for old in path.parent.glob(path.name + ".[0-9][0-9][0-9]"):
        old.unlink()
    with path.open("rb") as whole:
        for number, piece in enumerate(iter(lambda: whole.read(size), b"")):
            path.with_name(f"{path.name}.{number:03d}").write_bytes(piece)


def join(path: Path) -> None:
    """Put the pieces of `path` together again."""
    pieces = sorted(path.parent.glob(path.name + ".[0-9][0-9][0-9]"))
    if not pieces:
        raise TrainingError(f"no pieces of {path}")
    with path.open("wb") as whole:
        for piece in pieces:
            whole.write(piece.read_bytes())


def log_validation(out: Path, figures: dict[str, Any]) -> None:
    """Append the validation figures of a run as a line of the JSONL file beside its checkpoint `out`."""
    with out.with_suffix(".jsonl").open("a") as log:
        log.write(json.dumps(figures) + "\n")
