"""The one look of `stats --plot` and `compare`: colours, fonts, line widths."""

from typing import Any

# Paul Tol's "bright" scheme: told apart by colour-blind readers and in print. One for each file, in order.
TRACK_COLORS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#66ccee", "#ccbb44")
INK = "#22252a"
SOFT = "#6b7280"  # of what is said on the side
GRID = "#e3e6ea"
PAPER = "#ffffff"
ALARM = "#cc3311"  # targets and what misses them
CURSOR = "#22252a"

MAX_CUT_LINES = 60  # scene cuts drawn as lines: more would be hatching


def track_color(number: int) -> str:
    """Of the file with this number, from 0."""
    return TRACK_COLORS[number % len(TRACK_COLORS)]


def rgb(color: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers from 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def chart_settings(font_points: float) -> dict[str, Any]:
    """Settings for `matplotlib.rc_context`, with text of this size."""
    return {
        "font.family": "DejaVu Sans",  # it comes with matplotlib
        "font.size": font_points,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.titlesize": "medium",
        "axes.titlecolor": INK,
        "axes.titley": 1.0,  # looking for a free place takes half of the time of drawing
        "axes.titlepad": font_points * 0.55,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "text.color": INK,
        "text.parse_math": False,  # a file may be called $x$.etk
        "legend.frameon": False,
        "legend.fontsize": "small",
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
        "axes.formatter.useoffset": False,
        "path.simplify_threshold": 0.1,
    }
