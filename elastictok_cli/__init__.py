"""elastictok: adaptive video tokenization on the command line (ElasticTok, arXiv 2410.08368)."""

from elastictok_cli.version import __version__

__all__ = ["__version__"]
