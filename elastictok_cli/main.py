"""The command line: what verbs there are, and how the program starts and stops."""

import sys
from typing import Annotated

import typer

from elastictok_cli.commands import signals
from elastictok_cli.commands.compare import compare
from elastictok_cli.commands.convert import convert
from elastictok_cli.commands.decode import decode
from elastictok_cli.commands.encode import encode
from elastictok_cli.commands.failures import run_to_exit
from elastictok_cli.commands.models import models
from elastictok_cli.commands.report import report
from elastictok_cli.commands.stats import stats
from elastictok_cli.commands.thin import thin
from elastictok_cli.commands.train import train
from elastictok_cli.commands.train_predictor import train_predictor
from elastictok_cli.files import named_stdout
from elastictok_cli.version import __version__

# \b keeps the lines of a paragraph as they are.
_EXAMPLES = """\b
Examples:
  elastictok encode clip.mp4
  elastictok stats clip.etk
  elastictok decode clip.etk back.mp4

\b
Exit codes:
  0 done               3 bad input           5 target missed, with --strict
  2 wrong usage        4 damaged .etk file   130 interrupted (SIGTERM 143, SIGHUP 129)"""

_ENCODE_EXAMPLES = """\b
Examples:
  elastictok encode clip.mp4 --psnr 30
  elastictok encode long.mkv part.etk --start 1:30 --duration 20
  ffmpeg -i clip.avi -f nut - | elastictok encode - clip.etk"""

_DECODE_EXAMPLES = """\b
Examples:
  elastictok decode clip.etk exact.mkv --lossless
  elastictok decode clip.etk frames/ --start 0:10 --duration 2
  elastictok decode clip.etk - | ffplay -"""

_STATS_EXAMPLES = """\b
Examples:
  elastictok stats clip.etk --plot usage.png
  elastictok stats clip.etk --json | jq 'select(.type == "frame" and .missed)'"""

_COMPARE_EXAMPLES = """\b
Examples:
  elastictok compare clip.mp4 clip.etk -o side.mp4
  elastictok compare clip.mp4 fine.etk rough.etk -o both.mp4 --heat
  elastictok compare clip.mp4 clip.etk -o frame.png --start 0:03 --heat --diff"""

_REPORT_EXAMPLES = """\b
Examples:
  elastictok report clip.etk
  elastictok report clip.etk usage.html --source clip.mp4"""

_THIN_EXAMPLES = """\b
Examples:
  elastictok thin clip.etk small.etk --keep 0.5
  elastictok thin clip.etk small.etk --kbps 200 --source clip.mp4"""

_TRAIN_EXAMPLES = """\b
Examples:
  elastictok train --data videos/ --data photos/ --val held-out/ --out my.safetensors --time 90m
  torchrun --nproc-per-node 8 -m elastictok_cli train --arch paper --config vae-200m --data videos/ \\
      --out my.safetensors --batch 64 --time 12h"""

_CONVERT_EXAMPLES = """\b
Example:
  elastictok convert elastictok-vae.params vae.safetensors
  elastictok encode in.mp4 out.etk --model vae.safetensors --mse 0.003"""

_PREDICTOR_EXAMPLES = """\b
Example:
  elastictok train-predictor --model vae.safetensors --data videos/ --out guess.safetensors
  elastictok encode in.mp4 --model vae.safetensors --search predict --predictor guess.safetensors"""

app = typer.Typer(
    name="elastictok",
    help="Compress video to as many tokens as each block needs to stay under an error target, and no more.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=_ENCODE_EXAMPLES)(encode)
app.command(epilog=_DECODE_EXAMPLES)(decode)
app.command(epilog=_STATS_EXAMPLES)(stats)
app.command(epilog=_COMPARE_EXAMPLES)(compare)
app.command(epilog=_REPORT_EXAMPLES)(report)
app.command(epilog=_THIN_EXAMPLES)(thin)
app.command(epilog=_TRAIN_EXAMPLES)(train)
app.command()(models)
app.command(epilog=_CONVERT_EXAMPLES)(convert)
app.command("train-predictor", epilog=_PREDICTOR_EXAMPLES)(train_predictor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"elastictok {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    pass


def run() -> None:
    """The console script."""
    signals.handle()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without the characters of a chart
    sys.stdout = named_stdout()
    run_to_exit(lambda: app(prog_name="elastictok"))
