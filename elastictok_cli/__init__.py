"""elastictok: adaptive video tokenization (ElasticTok, arXiv 2410.08368), on the command line and in Python.

The public names below are those of `import elastictok`. They are loaded on first use, so that the command line starts
without torch and FFmpeg.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from elastictok_cli.version import __version__

if TYPE_CHECKING:
    from elastictok_cli.api import decode, encode, open
    from elastictok_cli.codec.decoder import ModelMismatch
    from elastictok_cli.codec.measurement import SourceMismatch
    from elastictok_cli.model import Model, load_model
    from elastictok_cli.models.checkpoint import CheckpointError
    from elastictok_cli.token_video import TokenVideo
    from elastictok_cli.video import VideoError
    from formats import Block, EtkError

__all__ = [
    "Block",
    "CheckpointError",
    "EtkError",
    "Model",
    "ModelMismatch",
    "SourceMismatch",
    "TokenVideo",
    "VideoError",
    "__version__",
    "decode",
    "encode",
    "load_model",
    "open",
]

_HOMES = {
    "Block": "formats",
    "CheckpointError": "elastictok_cli.models.checkpoint",
    "EtkError": "formats",
    "Model": "elastictok_cli.model",
    "ModelMismatch": "elastictok_cli.codec.decoder",
    "SourceMismatch": "elastictok_cli.codec.measurement",
    "TokenVideo": "elastictok_cli.token_video",
    "VideoError": "elastictok_cli.video",
    "decode": "elastictok_cli.api",
    "encode": "elastictok_cli.api",
    "load_model": "elastictok_cli.model",
    "open": "elastictok_cli.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
