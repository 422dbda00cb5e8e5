"""`python -m elastictok_cli`, and the console script: an interrupt while modules load is one line too."""

import sys


def run() -> None:
    """Load the program and run it."""
    try:
        from elastictok_cli.main import run
    except KeyboardInterrupt:
        sys.stderr.write("elastictok: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    run()
