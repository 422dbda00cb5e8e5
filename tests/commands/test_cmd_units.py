import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastictok_cli.analysis import units
from elastictok_cli.commands.chart import chart
from elastictok_cli.commands.console import Display


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1:30", 90),
        ("0:01:30.25", 90.25),
        ("2:00:00", 7200),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("45s", 45),
    ],
)
def test_times_people_write(text: str, seconds: float) -> None:
    assert units.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "abc", "1:2:3:4", "nan", "inf", "1e9", "5x", ":", "m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        units.parse_seconds(text)


@given(st.integers(0, 10**8))
def test_clock_can_be_read_back(hundredths: int) -> None:
    assert units.parse_seconds(units.clock(hundredths / 100, 2)) == pytest.approx(hundredths / 100)


@given(st.floats(1, 99))
def test_psnr_and_mse_are_one_knob(decibels: float) -> None:
    assert units.psnr(units.mse_of(decibels)) == pytest.approx(decibels)


def test_figures() -> None:
    assert [units.size(n) for n in (0, 999, 1000, 999_949, 999_950, 4_100_000, 5e9)] == [
        "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "4.1 MB", "5.0 GB",
    ]  # fmt: skip
    assert units.quality(0.007) == "mse 0.007 (27.6 dB)"
    assert units.quality(math.nan) == "mse unknown"
    assert units.clock(-0.05, 2) == "-0:00.05"
    assert units.clock(59.999, 2) == "1:00.00"


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300), st.integers(20, 200))
def test_chart_is_true_at_any_width(values: list[int], width: int) -> None:
    lines = chart(values, [False] * len(values), width=width, height=4)
    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)
    label = len(str(max(values)))
    assert lines[0].split()[0] == str(max(values))
    rows = [line.ljust(width)[label + 2 :] for line in lines]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(row[c]) for row in rows) for c in range(width - label - 2)]
    assert max(heights) == (32 if max(values) else 0)
    if len(values) <= len(heights):  # each value has its bar, as high as it is
        room = min(len(heights), 4 * len(values))
        top = max(max(values), 1)
        for place, value in enumerate(values):
            middle = int((place + 0.5) * room / len(values))
            assert abs(heights[middle] - 32 * value / top) <= 1
            assert (heights[middle] > 0) == (value > 0)


class _Screen(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("width", ["40", "80", "120"])
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    screen = _Screen(terminal=True)
    monkeypatch.setattr("sys.stderr", screen)
    for name, value in (("TERM", "xterm"), ("COLUMNS", width)):
        monkeypatch.setenv(name, value)
    with Display(quiet=False) as display:
        display.show(0.5, "block 3/6  eta 0:01", "14.2 fps  312 kbps")
        display.warn("odd")
    assert "block 3/6  eta 0:01" in screen.getvalue()
    assert "14.2 fps  312 kbps" in screen.getvalue()
    assert "warning: odd" in screen.getvalue()


def test_anything_else_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("FORCE_COLOR", "1")
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Display(quiet=False) as display:
        for _ in range(20):
            now += 1
            display.show(0.5, "block 3/6", "14.2 fps")
    assert screen.getvalue() == "block 3/6  14.2 fps\n" * 4


def test_names_cannot_steer_the_terminal() -> None:
    assert units.printable("a\x1b[2Jb\nc…ü") == "a?[2Jb?c…ü"
