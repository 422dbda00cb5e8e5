"""What `draw_graphics.py` draws: a module for each kind or two, and what they share."""

from .clip import HELD_OUT, KINDS, TRAINED, ClipOptions, draw_clip, kind_of
from .style import Fonts
from .wear import write

__all__ = ["HELD_OUT", "KINDS", "TRAINED", "ClipOptions", "Fonts", "draw_clip", "kind_of", "write"]
