"""Token usage as a picture, with matplotlib (extra `plot`)."""

from typing import BinaryIO

from elastictok_cli.commands.failures import ExitCode, Failure
from elastictok_cli.commands.usage import Totals


def check_plot(suffix: str) -> None:
    """Raise Failure where no picture of this kind can be drawn."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise Failure("--plot needs matplotlib: pip install 'elastictok[plot]'", ExitCode.USAGE) from None
    kinds = sorted(FigureCanvasAgg.get_supported_filetypes())
    if suffix.removeprefix(".").lower() not in kinds:
        raise Failure(f"--plot: the name must end in one of .{', .'.join(kinds)}", ExitCode.USAGE)


def draw(
    totals: Totals, capacity: int, target_mse: float | None, title: str, file: BinaryIO, suffix: str
) -> None:
    """Tokens of each block over time, above the error of each frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    times = list(totals.block_times)
    upper.stairs(totals.block_tokens, [*times, max(totals.end, times[-1])], fill=True, color="#4477aa")
    upper.set_ylabel("tokens per block")
    upper.set_ylim(bottom=0)
    upper.secondary_yaxis(
        "right", functions=(lambda count: 100 * count / capacity, lambda share: share * capacity / 100)
    ).set_ylabel("% of the most possible")
    missed = [(t, n) for t, n, m in zip(times, totals.block_tokens, totals.block_missed, strict=True) if m]
    if missed:
        upper.plot(*zip(*missed, strict=True), "v", color="#cc3311", label="missed the target")
        upper.legend(loc="upper right")
    lower.plot(totals.frame_times, totals.frame_mse, linewidth=0.8, color="#444444")
    if target_mse is not None:
        lower.axhline(
            target_mse, color="#cc3311", linewidth=0.8, linestyle="--", label=f"target {target_mse:g}"
        )
        lower.legend(loc="lower right")
    lower.set_ylabel("mse per frame")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("seconds")
    figure.suptitle(title, parse_math=False)
    figure.savefig(file, format=suffix.removeprefix(".").lower(), dpi=120)
