"""What goes wrong before a command begins: signals while it starts, help that standard output has no room for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from cli_samples import start

from elastictok_cli.commands.failures import run_to_exit
from elastictok_cli.commands.signals import Stopped

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("decode", "--help"), ("models",)])
def test_a_full_standard_output_is_one_sentence(arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        process = start(*arguments, stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said.decode() == "elastictok: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_while_arguments_are_parsed(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typer makes exit code 130 of every interruption."""

    def parse() -> None:
        try:
            raise Stopped(number)
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error

    def program() -> None:
        try:
            parse()
        except typer.Exit as error:
            sys.exit(error.exit_code)

    with pytest.raises(SystemExit) as ended:
        run_to_exit(program)
    assert ended.value.code == code
    assert capsys.readouterr().err == "elastictok: interrupted\n"


def test_an_end_without_a_signal_keeps_its_code() -> None:
    with pytest.raises(SystemExit) as ended:
        run_to_exit(lambda: sys.exit(5))
    assert ended.value.code == 5


def test_a_signal_waits_until_a_module_is_loaded(tmp_path: Path) -> None:
    """An exception in the middle of loading torch would abort the process."""
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(0.1)\n"
        "print('loaded', flush=True)\n"
    )
    program = (
        "import time\n"
        "from elastictok_cli.commands import failures, signals\n"
        "signals.handle()\n"
        "def work():\n"
        "    import slow_module\n"
        "    time.sleep(30)\n"
        "failures.run_to_exit(work)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "loaded\n", "elastictok: interrupted\n")
