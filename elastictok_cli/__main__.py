"""`python -m elastictok_cli`."""

from elastictok_cli.main import run

run()
