"""Token usage as a picture, with matplotlib (extra `plot`)."""

from typing import Any, BinaryIO

from elastictok_cli.commands.failures import ExitCode, Failure
from elastictok_cli.drawing import style, usage_chart
from elastictok_cli.drawing.tracks import Track

_SIZE_INCHES = (10.0, 5.0)  # inches
_DPI = 120
_FONT_POINTS = 10.0  # points


def check_plot(suffix: str) -> None:
    """Raise Failure where no picture of this kind can be drawn."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise Failure("--plot needs matplotlib: pip install matplotlib", ExitCode.USAGE) from None
    kinds = sorted(FigureCanvasAgg.get_supported_filetypes())
    if suffix.removeprefix(".").lower() not in kinds:
        raise Failure(f"--plot: the name must end in one of .{', .'.join(kinds)}", ExitCode.USAGE)


def draw(track: Track, title: str, file: BinaryIO, suffix: str) -> None:
    """Tokens of each block over time, above the error of each frame."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = style.chart_settings(_FONT_POINTS)
    with mpl.rc_context(settings):
        figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI)
        chart = usage_chart.draw(figure, [track], _FONT_POINTS * _DPI / 72, title=title)
        if any(point.missed for point in track.usage.points):
            chart.usage.legend(*_only_missed(chart), loc="upper right")
        figure.savefig(file, format=suffix.removeprefix(".").lower(), dpi=_DPI)


def _only_missed(chart: usage_chart.UsageChart) -> tuple[list[Any], list[str]]:
    handles, labels = chart.usage.get_legend_handles_labels()
    return handles[-1:], labels[-1:]
