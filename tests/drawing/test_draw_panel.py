"""What is on the chart, read back from its pixels."""

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from elastictok_cli.drawing import style
from elastictok_cli.drawing.panel import ChartPanel
from elastictok_cli.drawing.tracks import Track

BLOCKS = [(400, 1), (80, 4), (100, 4), (60, 4), (500, 1), (90, 4), (70, 4)]  # tokens, frames
RATE = 25


def make_track(factor: int = 1, *, label: str = "one") -> Track:
    track = Track(label, capacity=2000 * factor, target_mse=0.007)
    frame = 0
    for number, (tokens, length) in enumerate(BLOCKS):
        for place in range(length):
            track.add(
                frame / RATE,
                1 / RATE,
                0.006 + 0.0005 * (frame % 3),
                block=number,
                block_tokens=tokens * factor,
                scene_cut=number == 4 and place == 0,
            )
            frame += 1
    return track


def near(pixels: np.ndarray, color: str, reach: int = 60) -> np.ndarray:
    return np.abs(pixels.astype(int) - style.rgb(color)).sum(-1) < reach


def test_curves_hold_the_numbers_they_were_given() -> None:
    panel = ChartPanel([make_track()], 900, 240, 12)
    patches = [curve for curve in panel.chart.curves if isinstance(curve, StepPatch)]
    for patch in patches:
        values, edges, _ = patch.get_data()
        assert list(values) == [tokens for tokens, _ in BLOCKS]
        starts = np.cumsum([0, *(length for _, length in BLOCKS)]) / RATE
        assert list(edges) == pytest.approx(list(starts))
    assert len(patches) == 2  # the line and what is below it
    (line,) = [curve for curve in panel.chart.curves if hasattr(curve, "get_xdata")]
    assert list(line.get_ydata()) == pytest.approx([0.006 + 0.0005 * (frame % 3) for frame in range(22)])
    assert list(line.get_xdata()) == pytest.approx([frame / RATE for frame in range(22)])


@pytest.mark.parametrize("frame", [0, 1, 7, 13, 14, 21])
def test_cursor_and_curve_are_where_they_belong(frame: int) -> None:
    track = make_track()
    panel = ChartPanel([track], 900, 240, 12)
    time = frame / RATE
    shown, end = panel.at(time), panel.at(track.end)
    column = int(panel.x_of(time))
    top, bottom = (round(panel.y_of_tokens(tokens)) for tokens in (540, 10))
    dark = near(shown[top : bottom - 12, :, :], style.CURSOR, 30).mean(0)
    dot = 7  # its radius
    assert dark[column] > 0.6
    assert (np.delete(dark, range(column - dot, column + dot + 1))[60:-60] < 0.2).all()
    # Behind the cursor the whole curve, before it none of it.
    assert np.array_equal(shown[:, : column - dot], end[:, : column - dot])
    color = near(shown, style.track_color(0))
    assert not color[:, column + dot + 1 :].any()
    # The top of the curve over the middle of each block that was passed.
    begin = 0
    for tokens, length in BLOCKS:
        middle = (begin + length / 2) / RATE
        begin += length
        x = int(panel.x_of(middle))
        if x > column - dot:
            break
        rows = np.flatnonzero(near(shown[:, x], style.track_color(0), 90))
        assert abs(rows[0] + 1 - panel.y_of_tokens(tokens)) <= 1.5
    # The dot is on the value of the current block, and on the error of the current frame.
    value = track.usage.at(time)
    for y in (panel.y_of_tokens(value), panel.y_of_error(0.006 + 0.0005 * (frame % 3))):
        assert near(shown[round(y - 0.5), column], style.track_color(0), 40).all()


def drawn(panel: ChartPanel, shown: np.ndarray, tokens: int) -> np.ndarray:
    """In which columns a step of this height is drawn."""
    y = round(panel.y_of_tokens(tokens) - 0.5)
    return np.flatnonzero(near(shown[y - 1 : y + 2], style.track_color(0)).any(0))


def test_the_step_of_a_block_is_seen_from_its_first_frame() -> None:
    """Up to the end of the frame that is shown, and nothing of what comes after it."""
    track = make_track()
    panel = ChartPanel([track], 900, 240, 12)
    frame, dot = 0, 7
    for number, (tokens, length) in enumerate(BLOCKS):
        for place in range(length):
            time, end = frame / RATE, (frame + 1) / RATE
            frame += 1
            shown = panel.at(time, end)
            x, ahead = panel.x_of(time), panel.x_of(end)
            columns = drawn(panel, shown, tokens)
            assert set(range(int(x) + dot + 1, int(ahead) - 2)) <= set(columns.tolist())
            if frame < sum(count for _, count in BLOCKS):
                assert columns.max() <= ahead
                if place == length - 1:
                    later = drawn(panel, shown, BLOCKS[number + 1][0])
                    assert not (later > ahead - 1).any()
            # of the error, nothing is known but that of this frame
            y0, y1 = round(panel.y_of_error(0.0079)), round(panel.y_of_error(0.0051))
            errors = near(shown[y0:y1], style.track_color(0)).any(0)
            assert not errors[int(x) + dot + 1 :].any()


def test_a_frame_that_is_said_to_last_longer_shows_no_later_block() -> None:
    panel = ChartPanel([make_track()], 900, 240, 12)
    assert np.array_equal(panel.at(12 / RATE, 20 / RATE), panel.at(12 / RATE, 13 / RATE))


def test_the_cut_is_the_peak() -> None:
    panel = ChartPanel([make_track()], 900, 240, 12)
    end = panel.at(BLOCKS and 22 / RATE)
    tops = [
        np.flatnonzero(near(end[:, int(panel.x_of(t))], style.track_color(0), 90))[0]
        for t in (0.5, 0.53, 0.54, 0.62)
    ]
    assert min(tops) in tops[1:3]
    assert tops[0] - min(tops) > 40
    assert tops[3] - min(tops) > 40


def test_several_files_share_one_scale_and_have_their_own_colors() -> None:
    tracks = [make_track(label="a"), make_track(label="b")]
    tracks[1].usage.points[0] = tracks[1].usage.points[0]._replace(value=900)
    panel = ChartPanel(tracks, 900, 240, 12)
    labels = [text.get_text() for text in panel.chart.usage.get_legend().get_texts()]
    assert labels == ["a", "b"]
    shown = panel.at(0.4)
    for number in (0, 1):
        assert near(shown, style.track_color(number)).any()
    assert panel.chart.usage.get_ylim()[1] > 900


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([("block", 0.007)], "- - target 0.007, mean of a block"),
        ([("video", 0.007)], "- - target 0.007, mean of the video"),
        ([("video", 0.007), ("video", 0.003)], "- - targets 0.003, 0.007, mean of the video"),
        (
            [("video", 0.007), ("block", 0.007)],
            "- - targets 0.007, mean of a block; 0.007, mean of the video",
        ),
        ([("video", None)], ""),
    ],
)
def test_the_line_of_a_target_says_what_it_is_one_of(
    targets: list[tuple[str, float | None]], words: str
) -> None:
    tracks = [make_track(label=str(number)) for number in range(len(targets))]
    for track, (promise, target) in zip(tracks, targets, strict=True):
        track.promise, track.target_mse = promise, target
    error = ChartPanel(tracks, 900, 240, 12).chart.error
    assert error.get_title("right") == words
    lines = [line for line in error.lines if line.get_color() == style.ALARM]
    assert sorted(line.get_ydata()[0] for line in lines) == sorted({t for _, t in targets if t is not None})


@pytest.mark.parametrize(
    ("promise", "words"), [("block", "missed the target"), ("video", "far above the target")]
)
def test_marks_of_missed_blocks_are_called_what_they_mean(promise: str, words: str) -> None:
    track = make_track()
    track.promise = promise
    track.usage.points[2] = track.usage.points[2]._replace(missed=True)
    usage = ChartPanel([track], 900, 240, 12).chart.usage
    assert usage.get_legend_handles_labels()[1][-1] == words


def test_a_legend_of_several_files_names_marks_once_and_is_one_line_high() -> None:
    tracks = [make_track(label="a"), make_track(label="b")]
    plain = ChartPanel(tracks, 900, 240, 12).chart.usage.get_legend()
    for track in tracks:
        track.usage.points[2] = track.usage.points[2]._replace(missed=True)
    legend = ChartPanel(tracks, 900, 240, 12).chart.usage.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "missed the target"]
    assert legend.get_window_extent().height == pytest.approx(plain.get_window_extent().height, abs=1)


def test_a_long_video_costs_no_more_and_keeps_its_peaks() -> None:
    track = Track("long", capacity=1000, target_mse=None)
    peaks = (7_001, 60_000, 119_999)
    for block in range(120_000):
        track.add(4.0 * block, 4.0, 0.01, block=block, block_tokens=999 if block in peaks else 10)
    assert len(track.usage.points) <= 4096
    panel = ChartPanel([track], 900, 240, 12)
    shown = panel.at(track.end)
    for peak in peaks:
        x = min(int(panel.x_of(4.0 * peak)), int(panel.x_of(track.end)) - 1)
        columns = shown[:, x - 1 : x + 2]
        rows = np.flatnonzero(near(columns, style.track_color(0), 120).any(1))
        assert rows[0] <= panel.y_of_tokens(999) + 2


def test_a_single_frame_of_unknown_length_and_error_can_be_drawn() -> None:
    track = Track("one", capacity=10, target_mse=None)
    track.add(3.0, 0.0, float("nan"), block=0, block_tokens=0)
    assert ChartPanel([track], 400, 200, 12).at(3.0).shape == (200, 400, 3)


def test_a_picture_of_its_own_shows_the_whole_curve() -> None:
    track = make_track()
    shown = ChartPanel([track], 900, 240, 12, whole=True).at(3 / RATE)
    end = ChartPanel([track], 900, 240, 12).at(track.end)
    column = int(ChartPanel([track], 900, 240, 12).x_of(3 / RATE))
    after = slice(column + 10, int(ChartPanel([track], 900, 240, 12).x_of(track.end)) - 10)
    assert np.array_equal(shown[:, after], end[:, after])
    assert near(shown[:, after], style.track_color(0)).any()
