"""Damage of an .etk file in words."""

from fractions import Fraction
from typing import TYPE_CHECKING

from elastictok_cli.analysis import units

if TYPE_CHECKING:
    from formats import Damage, EtkReader

_MAX_NAMED_PARTS = 20  # damaged parts that get a sentence of their own


def describe_damage(reader: "EtkReader") -> list[str]:
    """One sentence for each damaged part met so far: which times are lost where the index knows, else where it is."""
    lines = [_describe(damage, reader) for damage in reader.damage[:_MAX_NAMED_PARTS]]
    if len(reader.damage) > _MAX_NAMED_PARTS:
        lines.append(f"{len(reader.damage) - _MAX_NAMED_PARTS} more damaged parts")
    return lines


def _describe(damage: "Damage", reader: "EtkReader") -> str:
    base = Fraction(*reader.header.time_base)
    for number, info in enumerate(reader.index or []):
        if info.offset <= damage.offset < info.offset + info.length:
            first, last = (units.clock(float(pts * base), 2) for pts in (info.first_pts, info.last_pts))
            lost = f"{units.count(info.frames, 'frame')} from {first} to {last}"
            return f"segment {number} is lost, {lost}: {damage.reason}"
    return f"byte {damage.offset}: {damage.reason}"
