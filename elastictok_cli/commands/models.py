"""`elastictok models`: the weights that ship, and the facts of any checkpoint, without torch."""

import hashlib
import json
import math
import struct
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import Json
from elastictok_cli.commands.console import JsonLines
from elastictok_cli.commands.failures import ExitCode, Failure, guarded

_MAX_HEADER_BYTES = 1 << 24  # bytes


@guarded
def models(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A checkpoint.", show_default="what ships")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the models that ship, or the facts of a checkpoint."""
    if file is not None:
        files = [file]
    else:
        folder = Path(str(resources.files("elastictok_cli") / "weights"))
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise Failure(f"no model ships with this installation: {folder} is empty", ExitCode.BAD_INPUT)
    lines = JsonLines(enabled=as_json)
    for path in files:
        facts = describe(path)
        lines.write("model", facts)
        if not as_json:
            typer.echo("\n".join(_report(facts)))


def describe(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint, from its header. Raises Failure if it is none."""
    if not path.is_file():
        raise Failure(f"no model file at {path}", ExitCode.BAD_INPUT)
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"header of {length} bytes")
            tensors = json.loads(stream.read(length))
            metadata = tensors.pop("__metadata__", {})
            config = json.loads(metadata["config"])
            training = json.loads(metadata.get("training", "{}"))
            stream.seek(0)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        parameters = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
        name = config["name"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise Failure(f"{path} is not an elastictok checkpoint", ExitCode.BAD_INPUT) from None
    return {
        "name": name,
        "architecture": metadata.get("architecture"),
        "path": str(path),
        "sha256": sha256,
        "bytes": path.stat().st_size,
        "parameters": parameters,
        "config": config,
        "training": training,
    }


def _report(facts: dict[str, Any]) -> list[str]:
    training = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts["training"].items())
    config = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in facts["config"].items() if name != "name"
    )
    return [
        f"{facts['name']} ({facts['architecture']})",
        f"  file      {facts['path']}",
        f"  sha256    {facts['sha256']}",
        f"  size      {units.size(facts['bytes'])}, {facts['parameters'] / 1e6:.2f} million parameters",
        f"  config    {config}",
        f"  training  {training or 'not recorded'}",
    ]
