import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_samples import run

from elastictok_cli import __version__
from elastictok_cli.analysis import units

_PROBE = """
import sys
from elastictok_cli.main import run
sys.argv = ["elastictok", *sys.argv[1:]]
try:
    run()
except SystemExit as stop:
    loaded = {name.partition(".")[0] for name in sys.modules}
    sys.stderr.write(" ".join(sorted(loaded & {"torch", "av", "numpy", "matplotlib", "rich"})))
    sys.exit(stop.code)
"""


def _loaded_by(*arguments: object) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--version"],
        ["encode", "--help"],
        ["compare", "-h"],
        ["train", "-h"],
        ["models"],
        ["convert", "-h"],
        ["train-predictor", "-h"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert _loaded_by(*arguments) == set()


@pytest.mark.parametrize(("given", "wanted"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_waiting_threads_do_not_hold_cores_for_long(given: dict[str, str], wanted: str) -> None:
    code = """
import atexit, os
atexit.register(lambda: print(os.environ.get("GOMP_SPINCOUNT")))
from elastictok_cli.__main__ import run
run()
"""
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, env=clean | given
    )
    assert done.stdout.split()[-1] == wanted


def test_stats_needs_neither_torch_nor_ffmpeg(etk: Path) -> None:
    assert _loaded_by("stats", etk) == {"numpy"}


def test_thin_runs_no_network(etk: Path, tmp_path: Path) -> None:
    assert _loaded_by("thin", etk, tmp_path / "thin.etk", "--keep", 0.5, "--quiet") == {"numpy"}


def test_version() -> None:
    assert run("--version").stdout == f"elastictok {__version__}\n"


def test_python_m_runs_it() -> None:
    command = [sys.executable, "-m", "elastictok_cli", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        == f"elastictok {__version__}\n"
    )


def test_help_has_every_verb_and_examples() -> None:
    text = run("-h").stdout
    assert text == run("--help").stdout
    for word in (
        "encode",
        "decode",
        "stats",
        "compare",
        "report",
        "thin",
        "train",
        "models",
        "convert",
        "train-predictor",
        "Examples:",
        "130 interrupted",
    ):
        assert word in text
    for verb in (
        "encode",
        "decode",
        "stats",
        "compare",
        "report",
        "thin",
        "train",
        "convert",
        "train-predictor",
    ):
        assert f"  elastictok {verb} " in run(verb, "-h").stdout


def test_a_typo_is_2_with_a_suggestion() -> None:
    result = run("encod")
    assert result.exit_code == 2
    assert "encode" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run(env={"_ELASTICTOK_COMPLETE": f"source_{shell}"})
    assert result.exit_code == 0
    assert "elastictok" in result.stdout


def test_an_interrupt_while_modules_load_is_one_line() -> None:
    code = (
        "import builtins, runpy, sys\n"
        "real = builtins.__import__\n"
        "def interrupted(name, *rest, **more):\n"
        "    if name.startswith('typer'): raise KeyboardInterrupt\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = interrupted\n"
        "from elastictok_cli.__main__ import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "elastictok: interrupted\n")


def test_speeds_below_one_are_not_shown_as_zero() -> None:
    assert units.speed(301, 10) == "30.1 fps"
    assert units.speed(1, 40) == "0.03 fps"
    assert units.speed(0, 0) == "0.00 fps"
