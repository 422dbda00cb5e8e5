"""Refusing `nan` and `inf`: Python reads both as numbers, but no option has such a value."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints


class OutOfRange(Exception):
    """An option's value is no number that the program can work with; the message is one sentence for the user."""


def check_finite(command: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise OutOfRange where a value of `given`, the arguments of a typer command, is no finite number."""
    for name, value in given.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise OutOfRange(f"{option_name(command, name)} must be a finite number, not {one}")


def option_name(command: Callable[..., Any], parameter: str) -> str:
    """What the user calls a parameter of a typer command: --keyframe-interval."""
    hint = get_type_hints(command, include_extras=True).get(parameter)
    for extra in getattr(hint, "__metadata__", ()):
        # In an annotation, typer takes the first name for a default at first.
        for name in (getattr(extra, "default", None), *(getattr(extra, "param_decls", None) or ())):
            if isinstance(name, str) and name.startswith("--"):
                return name
    return "--" + parameter.strip("_").replace("_", "-")
