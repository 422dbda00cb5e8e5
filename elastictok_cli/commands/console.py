"""What people and programs get to see: progress and warnings on standard error, JSON lines on standard output."""

import json
import math
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from elastictok_cli.analysis import units

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

_SECONDS_BETWEEN_LINES = 5.0  # seconds between lines where there is no terminal
_REFRESHES_PER_SECOND = 8  # a second


class Display:
    """Progress on standard error: a bar on a terminal, a line every few seconds elsewhere, nothing if `quiet`.

    `note` is for what a person wants to know and is hidden by `quiet` too; `warn` is always shown.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Live | None = None
        self._shown_at = time.monotonic()
        self._has_shown = False
        self._fraction: float | None = None
        self._head = self._facts = ""

    def __enter__(self) -> Self:
        # Asked of the stream itself: FORCE_COLOR makes rich take anything for a terminal.
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, highlight=False)
            if not console.is_dumb_terminal:
                self._live = Live(
                    console=console,
                    get_renderable=self._render,
                    refresh_per_second=_REFRESHES_PER_SECOND,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with suppress(OSError):  # a terminal that was closed: there is more to tidy up
                self._live.stop()
            self._live = None

    def show(self, fraction: float | None, head: str, facts: str, *, last: bool = False) -> None:
        """The state of the work: share done (None: not known), how far in words, and figures.

        The `last` state follows in every case where earlier ones were shown.
        """
        self._fraction, self._head, self._facts = fraction, head, facts
        now = time.monotonic()
        if self._quiet or self._live is not None:
            return
        if now - self._shown_at >= _SECONDS_BETWEEN_LINES or (last and self._has_shown):
            self._shown_at, self._has_shown = now, True
            typer.echo(f"{head}  {facts}", err=True)

    def note(self, text: str) -> None:
        """A line for people."""
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """A line that says what went wrong without stopping the work."""
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        text = units.printable(text)
        if self._live is not None:
            self._live.console.print(text, markup=False, soft_wrap=True)
        else:
            typer.echo(text, err=True)

    def _render(self) -> "Group":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = ProgressBar(
            total=None if self._fraction is None else 1.0,
            completed=self._fraction or 0.0,
            pulse=self._fraction is None,
        )
        first = Table.grid(padding=(0, 1), expand=True)
        first.add_column(ratio=1)
        first.add_column(no_wrap=True)
        first.add_row(bar, Text(self._head))
        return Group(first, Text(self._facts, style="dim", no_wrap=True, overflow="ellipsis"))


class JsonLines:
    """One JSON object a line on standard output, each with its `type`; nothing unless `enabled`."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    def write(self, type_: str, facts: dict[str, Any]) -> None:
        """One line, at once. Numbers that JSON does not have (infinite, unknown) become null."""
        if self._enabled:
            sys.stdout.write(json.dumps({"type": type_, **_plain(facts)}, allow_nan=False) + "\n")
            sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
