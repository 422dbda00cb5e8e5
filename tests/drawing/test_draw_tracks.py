import math

from hypothesis import given
from hypothesis import strategies as st

from elastictok_cli.drawing.tracks import Envelope, Point, Track


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(2, 20))
def test_an_envelope_never_loses_a_peak_and_stays_small(values: list[float], most: int) -> None:
    envelope = Envelope(most)
    for place, value in enumerate(values):
        envelope.add(Point(float(place), value, cut=value > 9e5, missed=value > 5e5))
    points = envelope.points
    assert len(points) <= max(2, most)
    assert [point.time for point in points] == sorted({point.time for point in points})
    assert envelope.top == max(values)
    for number, point in enumerate(points):
        end = points[number + 1].time if number + 1 < len(points) else len(values)
        span = values[int(point.time) : int(end)]
        assert point.value == max(span)
        assert point.cut == any(value > 9e5 for value in span)
        assert point.missed == any(value > 5e5 for value in span)


def test_a_short_series_is_kept_as_it_is() -> None:
    envelope = Envelope(8)
    points = [Point(0.1 * place, float(place % 3)) for place in range(8)]
    for point in points:
        envelope.add(point)
    assert envelope.points == points


def test_what_is_unknown_gives_way_and_is_no_peak() -> None:
    envelope = Envelope(2)
    for place, value in enumerate([math.nan, 3.0, math.nan, math.nan]):
        envelope.add(Point(float(place), value))
    first, second = envelope.points
    assert first.value == 3.0
    assert math.isnan(second.value)
    assert envelope.top == 3.0


def test_the_value_at_a_time_is_that_of_the_step() -> None:
    envelope = Envelope()
    for time, value in ((1.0, 10.0), (2.0, 20.0), (4.0, 5.0)):
        envelope.add(Point(time, value))
    assert math.isnan(envelope.at(0.99))
    assert [envelope.at(time) for time in (1.0, 1.99, 2.0, 3.9, 4.0, 99.0)] == [10, 10, 20, 20, 5, 5]
    assert [envelope.after(time) for time in (0.0, 1.0, 3.9)] == [1.0, 2.0, 4.0]
    assert envelope.after(4.0) == math.inf


def test_a_track_has_a_step_for_each_block_and_an_error_for_each_frame() -> None:
    track = Track("x", capacity=100, target_mse=0.1)
    for frame, (block, tokens) in enumerate([(0, 50), (0, 50), (1, 20), (2, 20)]):
        track.add(frame / 4, 0.25, 0.01 * frame, block=block, block_tokens=tokens, scene_cut=frame == 2)
    assert [(p.time, p.value, p.cut) for p in track.usage.points] == [
        (0.0, 50, False),
        (0.5, 20, True),
        (0.75, 20, False),
    ]
    assert [p.value for p in track.error.points] == [0.0, 0.01, 0.02, 0.03]
    assert (track.begin, track.end) == (0.0, 1.0)
