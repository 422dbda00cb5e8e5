"""Bounded data: nothing lost that matters, nothing that grows."""

import base64
import io
import tracemalloc
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from elastictok_cli.report.gather import cards, charts, gather, strip
from elastictok_cli.report.page import Content, render
from elastictok_cli.report.series import Chosen, Series, Strip, numbers, pack
from formats import Block, EtkReader, EtkWriter, Header, ModelRef

_OPS = {"at": "first", "end": "last", "top": "max", "low": "min", "all": "sum"}


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 4097])
def test_series_keeps_every_peak_and_sum(count: int) -> None:
    rng = np.random.default_rng(count)
    values = rng.random(count)
    series = Series(8, _OPS)  # type: ignore[arg-type]
    for at, value in enumerate(values):
        series.add(at=at, end=at + 1, top=value, low=value, all=value)
    assert len(series) <= 8
    assert sum(series.column("all")) == pytest.approx(values.sum())
    starts, ends = series.column("at"), series.column("end")
    assert starts[1:] == ends[:-1]
    for start, end, top, low in zip(starts, ends, series.column("top"), series.column("low"), strict=True):
        assert top == values[int(start) : int(end)].max()
        assert low == values[int(start) : int(end)].min()
    if count <= 8:
        assert series.step == 1
        assert series.column("top") == values.tolist()


def test_unknown_is_no_peak() -> None:
    series = Series(2, {"top": "max"})
    for value in (float("nan"), 3.0, float("nan"), float("nan"), 1.0):
        series.add(top=value)
    assert series.column("top")[0] == 3.0
    assert numbers([float("nan"), float("inf"), 2.0, 0.00123456, 1.23456], 3) == [
        None,
        None,
        2,
        0.00123,
        1.235,
    ]


def test_chosen_are_the_heaviest_of_their_neighbours() -> None:
    chosen = Chosen(4)
    for number in range(64):
        chosen.add(100 if number in (9, 50) else number % 3, number)
    left = chosen.things()
    assert len(left) == 4
    assert left == sorted(left)
    assert {9, 50} <= set(left)


def test_strip_is_the_keep_map_by_rows() -> None:
    found = Strip(16, (3, 5), most_rows=24)
    found.add(0, 1, np.full((3, 5), 2, np.uint16))
    found.add(1, 2, np.array([[4] * 5, [0] * 5, [1] * 5], np.uint16))
    facts = found.facts()
    shown = np.frombuffer(base64.b64decode(facts["data"]), np.uint8).reshape(2, 3) / 255 * facts["top"]
    assert shown == pytest.approx(np.array([[2, 2, 2], [4, 0, 1]]), abs=0.01)
    assert pack(np.zeros(3))["top"] == 0


_HEADER = Header(
    model=ModelRef("m<script>", bytes(32), (8, 8, 8, 5, 5, 5), 65524, 58),
    width=96,
    height=64,
    grid=(4, 6),
    time_base=(1, 30),
    target_mse=0.007,
    average_rate=(30, 1),
    metadata={"title": "</script><b>"},
)


@cache
def _long_bytes(segments: int) -> bytes:
    """Segments of 5 s, one frame of which costs most."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    with EtkWriter(file, _HEADER) as writer:
        for number in range(segments):
            blocks = []
            for place in range(38):
                keep = rng.integers(0, 4, _HEADER.grid).astype(np.uint16)
                if (number, place) == (segments // 3, 17):
                    keep[:] = 50
                first = 4 * (38 * number + place)
                tokens = np.zeros(int(keep.sum()), np.uint16)
                worst = 0.05 if (number, place) == (segments // 2, 3) else 0.005
                blocks.append(
                    Block(
                        tuple(range(first, first + 4)), (1,) * 4, keep, tokens, (0.004, worst, 0.004, 0.004)
                    )
                )
            writer.write_segment(blocks)
    return file.getvalue()


def _long(segments: int) -> io.BytesIO:
    return io.BytesIO(_long_bytes(segments))


def _page(segments: int, cards_shown: int = 48) -> tuple[str, int]:
    """The page, and the peak of memory (bytes) that making it took."""
    file = _long(segments)
    tracemalloc.start()
    with EtkReader(file) as reader:
        found = gather(reader, None, cards_shown, lambda count: None)
        content = Content(
            name="a<b.etk",
            size=len(file.getvalue()),
            header=reader.header,
            found=found,
            strip=strip(reader),
            cards=cards(reader, found, None, lambda count: None),
            damage=[],
            source=None,
        )
        text = render(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return text, peak


def test_a_long_video_makes_no_larger_page_and_keeps_its_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("MAX_BLOCK_POINTS", 64), ("MAX_FRAME_POINTS", 128), ("MAX_STEP_POINTS", 32)):
        monkeypatch.setattr(f"elastictok_cli.report.gather.{name}", most)
    half, peak_half = _page(8, cards_shown=4)
    full, peak_full = _page(16, cards_shown=4)
    assert len(full) < 1.1 * len(half)
    assert peak_full < 1.2 * peak_half
    with EtkReader(_long(16)) as reader:
        found = gather(reader, None, 4, lambda count: None)
    made = charts(found)
    assert found.count == 16 * 38 * 4
    assert 32 <= len(made["blocks"]["start"]) <= 64
    assert 64 <= len(made["frames"]["start"]) <= 128
    assert max(made["blocks"]["tokens"]) == 50 * 24
    assert max(made["frames"]["worst"]) == pytest.approx(0.05, rel=1e-3)
    assert found.moments[0]["block"] == 5 * 38 + 17
    assert found.moments[0]["start"] == pytest.approx(4 * (5 * 38 + 17) / 30)
    assert 2 <= len(found.segments.things()) <= 4
    assert 5 in [card["number"] for card in found.segments.things()]


def test_cards_of_a_file_cut_short_are_those_of_the_whole() -> None:
    whole = _long_bytes(4)
    with EtkReader(io.BytesIO(whole)) as reader:
        assert reader.index is not None
        end = reader.index[3].offset
    made = []
    for data in (whole, whole[:end]):
        with EtkReader(io.BytesIO(data)) as reader:
            found = gather(reader, None, 48, lambda count: None)
            made.append(cards(reader, found, None, lambda count: None))
    assert [card["number"] for card in made[0]] == [0, 1, 2, 3]
    assert made[0][:3] == made[1]


def test_names_from_files_are_text() -> None:
    text, _ = _page(1)
    assert "a&lt;b.etk" in text
    assert "m&lt;script&gt;" in text
    assert text.count("</script>") == 2


def test_measured_errors_take_the_place_of_recorded_ones() -> None:
    def measured() -> Iterator[float]:
        while True:
            yield 0.01

    with EtkReader(_long(1)) as reader:
        found = gather(reader, measured(), 4, lambda count: None)
    assert found.mse == pytest.approx(0.01)
    assert set(charts(found)["frames"]["worst"]) == {0.01}
