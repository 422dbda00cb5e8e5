"""The clock of a program: packets of made-up streams, whose times break in the ways that files break them."""

from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import pytest

from elastictok_cli.video.clock import ProgramClock

TICK = Fraction(1, 1000)


@dataclass
class Packet:
    """What ProgramClock sees of a packet; times in ms."""

    index: int
    type: str
    dts: int | None
    pts: int | None
    duration: int
    size: int = 100
    time_base: Fraction = TICK
    stream: SimpleNamespace = field(init=False)

    def __post_init__(self) -> None:
        self.stream = SimpleNamespace(index=self.index, type=self.type)


def picture(dts: int | None, pts: int | None = None) -> Packet:
    return Packet(0, "video", dts, (dts + 80 if dts is not None else None) if pts is None else pts, 40)


def sound(time: int | None) -> Packet:
    return Packet(1, "audio", time, time, 20)


def text(time: int) -> Packet:
    return Packet(2, "subtitle", time, time, 500)


def program(begin: int, length: int, *, ahead: int = 0, sound_length: int | None = None) -> list[Packet]:
    """Pictures and sound of one clock, interleaved; the sound stands `ahead` ms before the pictures in the file."""
    pictures = [picture(begin + t - 80) for t in range(0, length, 40)]
    sounds = [sound(begin + t) for t in range(0, sound_length or length, 20)]
    both = [(p.dts + 80, p) for p in pictures] + [(p.dts - ahead, p) for p in sounds]
    return [p for _, p in sorted(both, key=lambda item: (item[0], item[1].index))]


def mended(
    packets: list[Packet], format_name: str = "mpegts"
) -> tuple[ProgramClock, dict[int, list[int | None]]]:
    clock = ProgramClock(format_name)
    times: dict[int, list[int | None]] = {}
    for packet in clock.mend(iter(packets)):
        times.setdefault(packet.index, []).append(packet.pts)
    return clock, times


def times(packets: list[Packet], index: int) -> list[int | None]:
    return [p.pts for p in packets if p.index == index]


@pytest.mark.parametrize("format_name", ["mpegts", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"])
def test_a_sound_clock_is_left_alone(format_name: str) -> None:
    packets = program(1000, 3000, ahead=200)
    before = times(packets, 0), times(packets, 1)
    clock, after = mended(packets, format_name)
    assert (after[0], after[1]) == before
    assert (clock.jumps, clock.first_jump) == (0, None)


def test_equal_times_pass() -> None:
    """TrueHD in Matroska: packets of 0.83 ms in ticks of 1 ms."""
    packets = [Packet(1, "audio", t * 5 // 6, t * 5 // 6, 0) for t in range(3600)]
    expected = times(packets, 1)
    assert len(set(expected)) < len(expected)
    assert mended(packets)[1][1] == expected


@pytest.mark.parametrize("ahead", [0, 300, -300])
@pytest.mark.parametrize(
    "second", [0, 200, 2600, 40_000_000], ids=["reset", "back", "back a little", "far ahead"]
)
def test_streams_of_a_joined_file_move_together(second: int, ahead: int) -> None:
    """However the streams are interleaved, one offset is added to all that stands after the join."""
    first, then = program(0, 3000, ahead=ahead, sound_length=3100), program(second, 2000, ahead=ahead)
    packets = first + then
    clock, after = mended(packets)
    assert clock.jumps == 1
    pictures, sounds = len(times(first, 0)), len(times(first, 1))
    assert after[0][:pictures] == times(program(0, 3000), 0)
    # the sound ends last, at 3100: there the second part begins, pictures and sound alike
    assert after[1][sounds:] == [3100 + t for t in range(0, 2000, 20)]
    assert after[0][pictures:] == [3100 + t for t in range(0, 2000, 40)]


def test_a_join_whose_streams_overlap_in_the_file() -> None:
    """The last sound of the first part stands after the first pictures of the second."""
    first, then = program(5000, 3000), program(0, 2000)
    late = [p for p in first if p.index == 1][-10:]
    early = [p for p in then if p.index == 0][:3]
    packets = [p for p in first if p not in late] + early + late + [p for p in then if p not in early]
    clock, after = mended(packets)
    assert clock.jumps == 1
    assert after[0] == list(range(5000, 10_000, 40))
    assert after[1] == list(range(5000, 10_000, 20))


def test_subtitles_follow_the_program() -> None:
    packets = [*program(0, 3000), *program(0, 2000)]
    packets.append(text(1500))
    assert mended(packets)[1][2] == [4500]


def test_jumps_add_up() -> None:
    clock, after = mended([*program(0, 3000), *program(0, 3000), *program(100, 3000)])
    assert clock.jumps == 2
    assert clock.first_jump == 3
    assert after[1] == list(range(0, 9000, 20))


def test_one_stray_packet_moves_nothing_else() -> None:
    packets = program(0, 4000)
    strays = [n for n, p in enumerate(packets) if p.index == 1 and p.dts in (1000, 2000)]
    packets[strays[0]] = sound(200)
    packets[strays[1]] = sound(900_000)
    expected = list(range(0, 4000, 20))
    expected[50], expected[100] = 980, 1980  # that of the packet before
    clock, after = mended(packets)
    assert clock.jumps == 0
    assert after[1] == expected
    assert after[0] == times(program(0, 4000), 0)


def test_a_stream_that_is_late_catches_up() -> None:
    """Sound that runs back by less than a second, alone, is no new clock: nothing else moves, nothing stays moved."""
    packets = program(0, 6000)
    for packet in packets:
        if packet.index == 1 and 1000 <= packet.dts < 1500:
            packet.dts = packet.pts = packet.dts - 300
    clock, after = mended(packets)
    assert clock.jumps == 0
    assert after[1] == [*range(0, 1000, 20), *[980] * 15, *range(1000, 1200, 20), *range(1500, 6000, 20)]
    assert after[0] == times(program(0, 6000), 0)


def test_a_long_gap_is_a_jump_only_where_the_format_has_jumps() -> None:
    packets = [*program(0, 1000), *program(60_000, 1000)]
    assert mended(packets, "matroska,webm")[1][1][50] == 60_000
    assert mended([*program(0, 1000), *program(60_000, 1000)], "mpegts")[1][1][50] == 1000


def test_sound_without_times_goes_on() -> None:
    packets = [sound(0), sound(None), sound(None), sound(60)]
    assert mended(packets)[1][1] == [0, 20, 40, 60]


def test_pictures_out_of_order_are_no_jump() -> None:
    """Presentation times go back with B-frames; where there is no decode time, nothing can be said."""
    packets = [picture(None, pts) for pts in (0, 600, 120, 40, 1800, 700)]
    assert mended(packets)[1][0] == [0, 600, 120, 40, 1800, 700]


def test_little_is_held_back() -> None:
    """A jump of one stream alone is settled after two seconds of it, not at the end of the file."""
    packets = [*program(10_000, 2000), *[sound(t) for t in range(0, 60_000, 20)]]
    clock = ProgramClock("mpegts")
    taken = 0

    def source() -> object:
        nonlocal taken
        for packet in packets:
            taken += 1
            yield packet

    given, most = 0, 0
    for _ in clock.mend(source()):  # type: ignore[arg-type]
        given += 1
        most = max(most, taken - given)
    assert given == len(packets)
    assert most <= 2000 / 20 + 2
