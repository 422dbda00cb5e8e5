"""Packages that only some commands need."""

import importlib.util

from elastictok_cli.commands.failures import ExitCode, Failure

# Name of the module, and name of the package that has it.
DRAWING = {"matplotlib": "matplotlib", "PIL": "pillow"}
STRUCTURE = {"pytorch_msssim": "pytorch-msssim"}


def need(what: str, modules: dict[str, str]) -> None:
    """Raise Failure, saying what to install, unless all of the modules are there."""
    missing = [package for module, package in modules.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Failure(
            f"{what} needs {' and '.join(missing)}: pip install {' '.join(missing)}", ExitCode.USAGE
        )
