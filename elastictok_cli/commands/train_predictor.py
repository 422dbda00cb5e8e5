"""`elastictok train-predictor`: what `encode --search predict` begins with."""

import time
from pathlib import Path
from typing import Annotated

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import (
    MAX_SEED,
    Device,
    DeviceName,
    Force,
    Json,
    Quiet,
    Threads,
    find_device,
    load_model,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import check_target


@guarded
def train_predictor(
    model: Annotated[
        Path, typer.Option(metavar="FILE", help="The weights whose lengths are to be predicted.")
    ],
    data: Annotated[
        list[Path], typer.Option(metavar="DIR", help="Videos and photos; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")],
    mse: Annotated[
        list[float] | None,
        typer.Option(
            help="Targets to learn; may be given several times.", show_default="0.015 0.007 0.003 0.001"
        ),
    ] = None,
    clips: Annotated[int, typer.Option(min=2, max=1 << 20, help="Largest number of clips.")] = 200,
    blocks: Annotated[int, typer.Option(min=1, max=1 << 10, help="Blocks in a clip.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random numbers.")] = 0,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn to guess how many tokens a block will need, for models whose encoder sees the length.

    Blocks of the data are coded at a dozen lengths; a small network learns from their statistics where errors meet
    the targets.
    """
    for folder in data:
        if not folder.is_dir():
            raise Failure(f"{folder} is not a folder", ExitCode.BAD_INPUT)
    if out.suffix != ".safetensors":
        raise Failure("--out must end in .safetensors", ExitCode.USAGE)
    if mse and not all(0 < target <= 4 for target in mse):
        raise Failure("--mse must be more than 0 and at most 4", ExitCode.USAGE)
    check_target(out, force=force, source=model)

    where = find_device(device, threads)
    from typing import cast

    from elastictok_cli.models.interface import LengthTokenizer
    from elastictok_cli.models.paper import length_predictor as predictor
    from elastictok_cli.training import length_predictor as training

    loaded = load_model(model, where)
    if loaded.tokenizer.spec.nested:
        raise Failure(
            f"{model}: the encoder of {loaded.tokenizer.spec.name} does not see the length; nothing is to be guessed",
            ExitCode.BAD_INPUT,
        )
    options = training.PredictorOptions(tuple(data), clips=clips, blocks=blocks, seed=seed)
    if mse:
        options = training.PredictorOptions(tuple(data), tuple(mse), clips, blocks, seed)
    lines = JsonLines(enabled=as_json)
    began = time.monotonic()
    fitted: training.Fitted | None = None
    try:
        with Display(quiet=quiet) as display:
            for event in training.train(cast(LengthTokenizer, loaded.tokenizer), options, where):
                if isinstance(event, training.Collected):
                    display.show(None, f"{units.count(event.clips, 'clip')} of {clips} at most", "")
                    lines.write("collected", {"clips": event.clips, "examples": len(event.examples)})
                else:
                    fitted = event
    except ValueError as error:
        raise Failure(str(error), ExitCode.BAD_INPUT) from None
    assert fitted is not None
    facts = {
        "examples": fitted.examples,
        "held_out": fitted.held_out,
        "factor": fitted.factor,
        "constant_factor": fitted.constant_factor,
    }
    training_facts = {"model sha256": loaded.sha256.hex(), **facts}
    predictor.save(fitted.predictor, out, training_facts)
    display.note(
        f"{out}: half of the guesses on held-out clips are within a factor of {fitted.factor:.2f} "
        f"(always guessing the same: {fitted.constant_factor:.2f})"
    )
    lines.write("summary", {"output": str(out), **facts, "seconds": time.monotonic() - began})
