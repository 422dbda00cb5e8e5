"""`elastictok convert`: an official ElasticTok checkpoint to one of ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import Force, Json
from elastictok_cli.commands.console import JsonLines
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import check_target

if TYPE_CHECKING:
    from elastictok_cli.models.paper.config import PaperConfig
    from elastictok_cli.models.paper.conversion import Array


@guarded
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="OFFICIAL", help="A 'params' or 'streaming_train_state' file.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="fsq-200m, vae-200m, or a JSON file of settings.",
            show_default="the published one that fits",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert an official ElasticTok checkpoint to .safetensors, for --model.

    Every name and shape is checked; numbers are kept bit for bit.
    """
    if target.suffix != ".safetensors":
        raise Failure("OUT must end in .safetensors", ExitCode.USAGE)
    if not source.is_file():
        raise Failure(f"no file at {source}", ExitCode.BAD_INPUT)
    check_target(target, force=force, source=source)

    from elastictok_cli.models import checkpoint
    from elastictok_cli.models.paper import conversion as official
    from elastictok_cli.models.paper.config import PaperConfig

    try:
        asked = PaperConfig.named(config) if config is not None else None
    except ValueError as error:
        raise Failure(f"--config: {error}", ExitCode.USAGE) from None
    try:
        arrays = official.read_stream(source)
        chosen = asked or official.find_config(arrays)
        if chosen is None:
            raise Failure(
                f"{source} has none of the published configs; name its settings with --config FILE",
                ExitCode.BAD_INPUT,
            )
        facts = _facts(arrays, chosen)
        own = official.from_official(arrays, chosen)
    except official.OfficialError as error:
        raise Failure(str(error), ExitCode.BAD_INPUT) from None
    training = {"converted from": source.name, "source sha256": checkpoint.digest(source).hex()}
    tensors = {name: array.as_tensor() for name, array in own.items()}
    checkpoint.write(tensors, target, checkpoint.PAPER, chosen.to_dict(), training)
    if not as_json:
        layout = "stacked" if facts["stacked"] else "one by one"
        typer.echo(
            f"{target}: {chosen.name} ({chosen.bottleneck}), {facts['parameters'] / 1e6:.1f} million parameters, "
            f"{facts['dtype']}, layers {layout}, {units.size(target.stat().st_size)}",
            err=True,
        )
    lines = JsonLines(enabled=as_json)
    sha256 = checkpoint.digest(target).hex()
    lines.write("summary", {"output": str(target), "bytes": target.stat().st_size, "sha256": sha256, **facts})


def _facts(arrays: "dict[str, Array]", config: "PaperConfig") -> dict[str, Any]:
    """What was found in the official file."""
    from elastictok_cli.models.paper import conversion as official

    return {
        "config": config.to_dict(),
        "parameters": sum(array.values.size for array in arrays.values()),
        "dtype": " and ".join(sorted({array.dtype for array in arrays.values()})),
        "stacked": official.is_stacked(arrays),
    }
