"""Times that a file may have left out or out of order."""

from fractions import Fraction


class Timeline:
    """Gives each item of one stream a time, in ticks, that never runs backwards.

    Good times pass through untouched. A missing one is the last plus the last step. One that runs back by
    less than a second is put just after the last; by more, the clock was reset (joined recordings), and
    everything after it is moved on. `repaired` counts the times that were made up.
    """

    def __init__(self, time_base: Fraction, step: int = 1, *, strict: bool = True) -> None:
        self.repaired = 0
        self._second = max(1, round(1 / time_base))
        self._step = max(1, step)
        self._least = 1 if strict else 0
        self._last: int | None = None
        self._offset = 0

    def place(self, time: int | None) -> int:
        """Return the time to use for an item that claims `time` (ticks)."""
        last = self._last
        if last is None:
            self.repaired += time is None
            self._last = time or 0
            return self._last
        if time is None:
            self.repaired += 1
            placed = last + self._step
        elif time + self._offset >= last + self._least:
            placed = time + self._offset
            self._step = max(1, placed - last)
        else:
            self.repaired += 1
            back = last - (time + self._offset)
            placed = last + (self._step if back > self._second else self._least)
            if back > self._second:
                self._offset = placed - time
        self._last = placed
        return placed
