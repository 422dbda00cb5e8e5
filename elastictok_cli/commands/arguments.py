"""Arguments that several commands share, and what they mean."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastictok_cli import devices
from elastictok_cli.analysis.units import parse_seconds
from elastictok_cli.commands.failures import ExitCode, Failure

if TYPE_CHECKING:
    import torch

    from elastictok_cli.models.checkpoint import Loaded


class DeviceName(StrEnum):
    """Where the network runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Start = Annotated[
    float | None,
    typer.Option(parser=_seconds, metavar="TIME", help="Begin here: seconds or [hh:]mm:ss."),
]
Duration = Annotated[
    float | None,
    typer.Option(parser=_seconds, metavar="TIME", help="Stop after this long."),
]
NoAudio = Annotated[bool, typer.Option("--no-audio", help="Leave out audio and subtitles.")]
Span = Annotated[
    float | None,
    typer.Option("--time", parser=_seconds, metavar="SPAN", help="Stop after this long: 90m, 2h."),
]
Model = Annotated[
    Path | None,
    typer.Option("--model", metavar="FILE", help="Weights to use.", show_default="the shipped ones"),
]
Device = Annotated[DeviceName, typer.Option("--device", help="auto: cuda, else mps, else cpu.")]
MAX_THREADS = 1024
MAX_TOKENS = 8192  # in a cell of any model, by the file format
MAX_SEED = 2**63 - 1  # what torch takes

Threads = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_THREADS, help="CPU threads of the network.", show_default="all cores"),
]
MAX_JOBS = 256
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_JOBS,
        help="Work on up to N scenes at the same time, each on one CPU thread in a process of its own. The result is "
        "the same. On cuda and mps, and with the paper's model, it is 1.",
        show_default="by cores and memory",
    ),
]
Force = Annotated[bool, typer.Option("-y", "--force", help="Overwrite what exists.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="JSON lines on standard output; docs/json-output.md."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Neither progress nor summary; warnings and errors stay.")
]


def check_window(start: float | None, duration: float | None) -> None:
    """Refuse a window of no length."""
    if duration is not None and duration <= 0:
        raise Failure("--duration must be more than 0", ExitCode.USAGE)


def find_device(name: DeviceName, threads: int | None = None) -> "torch.device":
    """The device to run on. Raises Failure where it is asked for and not there."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return devices.find_device(name.value)
    except devices.NoDevice as error:
        raise Failure(f"{error}; try --device cpu", ExitCode.USAGE) from None


def load_model(path: Path | None, device: "torch.device") -> "Loaded":
    """The model to use. Raises Failure where the file is none."""
    from elastictok_cli.models import checkpoint

    try:
        return checkpoint.load(path, device)
    except checkpoint.CheckpointError as error:
        raise Failure(str(error), ExitCode.BAD_INPUT) from None


def check_jobs(jobs: int | None, loaded: "Loaded", device: "torch.device") -> None:
    """Refuse several jobs where there can only be one."""
    from elastictok_cli.codec.jobs import why_one_job

    if jobs is not None and jobs > 1 and (reason := why_one_job(loaded, device)):
        raise Failure(f"--jobs: {reason}", ExitCode.USAGE)
