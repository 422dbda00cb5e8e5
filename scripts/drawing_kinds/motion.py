"""How things move on screens: scrolling by wheel, touch and keys; pointers; easing. All in whole pixels."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import pairwise

MAX_WHEEL_STEP = 48  # pixels a frame


def ease(time: float) -> float:
    """0..1 to 0..1, slow at both ends; times outside are held."""
    time = min(1.0, max(0.0, time))
    return time * time * (3 - 2 * time)


def ease_out(time: float) -> float:
    """0..1 to 0..1, fast at first."""
    return 1 - (1 - min(1.0, max(0.0, time))) ** 3


def scrolled(rng: random.Random, frames: int, reach: int) -> list[int]:
    """How far a page of which `reach` pixels lie outside the window is scrolled in each frame."""
    steps = rng.choice((_steady, _wheel, _wheel, _eased, _flicked))(rng)
    top = rng.randint(0, reach) if rng.random() < 0.5 else 0
    down = 1 if rng.random() < 0.75 else -1
    tops = []
    for _ in range(frames):
        tops.append(top)
        step = down * next(steps)
        if not 0 <= top + step <= reach:
            down = -down
        top = min(reach, max(0, top + step))
    return tops


def _steady(rng: random.Random) -> Iterator[int]:
    """The same every frame, or every second or third, as held keys and slow films of pages do."""
    step, every = rng.choice((1, 1, 2, 3, 4, 6, 8, 12, 16)), rng.choice((1, 1, 1, 2, 3))
    while True:
        yield step
        yield from [0] * (every - 1)


def _wheel(rng: random.Random) -> Iterator[int]:
    """Bursts of uneven steps, then pauses."""
    while True:
        largest = rng.choice((8, 16, 24, MAX_WHEEL_STEP))
        notch = rng.randint(4, largest) if rng.random() < 0.4 else None
        for _ in range(rng.randint(2, 12)):
            yield notch if notch is not None else rng.randint(1, largest)
            yield from [0] * (rng.random() < 0.25)
        yield from [0] * rng.choice((0, 1, 2, 4, 8))


def _eased(rng: random.Random) -> Iterator[int]:
    """Jumps of 40 to 400 pixels that start and stop smoothly."""
    while True:
        far, takes = rng.randint(40, 400), rng.randint(6, 24)
        places = [round(far * ease(n / takes)) for n in range(takes + 1)]
        yield from (b - a for a, b in pairwise(places))
        yield from [0] * rng.randint(0, 10)


def _flicked(rng: random.Random) -> Iterator[int]:
    """Fast at first, slower and slower, as after a finger has let go."""
    while True:
        speed, place = rng.uniform(6, MAX_WHEEL_STEP), 0.0
        slower = rng.uniform(0.85, 0.95)
        while speed > 0.4:
            before, place = place, place + speed
            yield round(place) - round(before)
            speed *= slower
        yield from [0] * rng.randint(1, 8)


def wander(rng: random.Random, frames: int, width: int, height: int) -> list[tuple[int, int]]:
    """Where a pointer is: moves that start and stop smoothly, a little bent, with rests between."""
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    places: list[tuple[int, int]] = []
    while len(places) < frames:
        near = rng.random() < 0.5
        reach = 0.2 if near else 1.0
        to_x = min(width, max(0.0, x + rng.uniform(-reach, reach) * width))
        to_y = min(height, max(0.0, y + rng.uniform(-reach, reach) * height))
        takes, bend = rng.randint(4, 22), rng.uniform(-0.15, 0.15)
        for n in range(1, takes + 1):
            path = ease(n / takes)
            aside = bend * math.sin(math.pi * path)
            places.append(
                (
                    round(x + (to_x - x) * path - (to_y - y) * aside),
                    round(y + (to_y - y) * path + (to_x - x) * aside),
                )
            )
        x, y = to_x, to_y
        places += [(round(x), round(y))] * rng.choice((0, 3, 10))
    return places[:frames]


def typing(rng: random.Random) -> Iterator[int]:
    """Letters typed in each frame: uneven, with short pauses; or fast, as pasted or replayed."""
    fast = rng.random() < 0.3
    while True:
        yield rng.randint(1, 3) if fast else 1
        yield from [0] * (0 if fast else rng.choice((0, 1, 1, 2, 2, 3, 5)))
