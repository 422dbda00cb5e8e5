"""elastictok in Python: the public names of `elastictok_cli`, loaded on first use. docs/python.md shows them.

import elastictok

model = elastictok.load_model()
video = elastictok.encode("clip.mp4", model, mse=0.007)
frames = elastictok.decode(video, model)
"""

from typing import TYPE_CHECKING

import elastictok_cli
from elastictok_cli import __all__ as __all__

if TYPE_CHECKING:
    from elastictok_cli import *  # noqa: F403


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(elastictok_cli, name)


def __dir__() -> list[str]:
    return __all__
