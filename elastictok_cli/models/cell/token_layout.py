"""The values of tokens, and the order of the tokens in a cell's sequence. No other file knows either.

Values of a model with 64,000 FSQ codes (8 x 8 x 8 x 5 x 5 x 5):

| values           | kind          | what the token says |
| ---------------- | ------------- | --- |
| 0 to 63,999      | FSQ code      | digits of the residual; after 65,526 the camera shake of one frame |
| 64,000 to 65,520 | motion vector | 39 x 39 vertical and horizontal speeds (`motion/vectors.py`) |
| 65,521 to 65,523 | gain          | the quantizer's steps of this cell are 2, 4 or 8 times as large |
| 65,524           | camera pan    | cells without a motion vector change theirs as this cell changes its own |
| 65,525           | camera pan    | the same, but only cells that already move |
| 65,526           | camera shake  | the next codes, one for each real frame, say how the whole picture is displaced |
| 65,527           | whole vector  | the next code is a motion vector of up to 48 whole pixels, and its camera pan |
| 65,528           | DCT           | the next codes are a DCT stream (`screen/dct.py`) |
| 65,529 to 65,535 | palette       | 1, 2, 3, 4, 5, 6 or 8 colours and a stream follow (`screen/palette.py`) |

A model without camera pan has no values above 65,523, one without camera shake none above 65,525. The last three kinds
are screen modes: no network touches a cell that has one, and its pixels start from the motion-compensated reference.

The control tokens (all that are no FSQ codes) come first in a cell's sequence, in one of these orders:

    FSQ codes ...
    gain, FSQ codes ...
    motion vector, FSQ codes ...
    motion vector, gain, FSQ codes ...
    motion vector, camera pan, FSQ codes ...
    motion vector, camera shake, one code for each real frame, FSQ codes ...
    whole vector, its code, DCT codes ...
    DCT, DCT codes ...
    motion vector, DCT, DCT codes ...
    palette, colours, label codes ...
    motion vector, palette, colours, label codes ...

The file's entropy coder counts on it that a cell starts with at most two control tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from elastictok_cli.models.cell.motion import camera_pan, camera_shake, vectors, whole_vectors
from elastictok_cli.models.cell.screen import palette, symbols
from elastictok_cli.models.cell.selection import Selection
from elastictok_cli.models.interface import ControlRange

GAINS = (2.0, 4.0, 8.0)  # factors on all steps of a cell, for contrasts beyond the reach of its quantizers
NO_MODE, DCT_MODE, FIRST_PALETTE_MODE = 0, 1, 2  # screen modes: palettes are 2 + their place in palette.SIZES
MAX_SCREEN_CODES = 4094  # of a cell: random noise needs half as many for an MSE of 0.0001
_UNUSED = -1  # the value of a slot in which a cell has no token
_UNBEARABLE = (
    1e9  # squared error, above that of any cell: the tokens that remove it are kept whatever they cost
)


class Sequences(NamedTuple):
    """The tokens of the cells of some pictures, and what each of them is worth."""

    tokens: torch.Tensor  # (B, G, h, w) int64, -1 where a cell has no more
    curve: torch.Tensor  # (B, G + 1, h, w) squared error of each cell after k tokens
    length: torch.Tensor  # (B, h, w) int64: how many each cell has

    def with_first(self, where: torch.Tensor, token: torch.Tensor, error: torch.Tensor) -> Sequences:
        """With a token in front of some cells' sequences; the others get an unused slot at the end.

        where: (B, h, w) bool; token: (B, h, w) int64; error: (B, 1, h, w) squared error without any token.
        """
        unused = self.with_unused_slot()
        pick = where.unsqueeze(1)
        tokens = torch.cat([token.unsqueeze(1), self.tokens], 1)
        curve = torch.cat([error, self.curve], 1)
        return Sequences(
            torch.where(pick, tokens, unused.tokens),
            torch.where(pick, curve, unused.curve),
            self.length + where,
        )

    def with_unused_slot(self) -> Sequences:
        """With one more slot at the end, which no cell uses."""
        tokens = torch.cat([self.tokens, torch.full_like(self.tokens[:, :1], _UNUSED)], 1)
        return Sequences(tokens, torch.cat([self.curve, self.curve[:, -1:]], 1), self.length)


class MotionTokens(NamedTuple):
    """What the control tokens of a block say about motion, before they become values."""

    sent: torch.Tensor  # (B, h, w) bool: cells that send a motion vector
    vectors: torch.Tensor  # (B, 2, h, w) from the table or whole, read where one is sent
    whole: torch.Tensor  # (B, h, w) bool: cells that send a whole vector; it is not in the table
    pan: torch.Tensor  # (B, h, w) int64: 0, or 1 + the scope of the camera pan that the cell sends
    sends_shake: torch.Tensor  # (B, h, w) bool: cells that send the camera shake, at most one in each picture
    shake_codes: torch.Tensor | None  # (B, count) int64


class ScreenContents(NamedTuple):
    """What the kept tokens of a block say by whole vectors and screen modes. n cells have a mode and codes for it."""

    used: torch.Tensor  # (B, h, w) bool: cells with a whole vector or a mode, whatever is left of it
    whole: torch.Tensor  # (B, h, w) bool: cells that send a whole vector
    vectors: torch.Tensor  # (B, 2, h, w) those vectors
    pan: torch.Tensor  # (B, h, w) int64: 0, or 1 + the scope of the camera pan that they are
    cells: Selection  # the n cells
    mode: torch.Tensor  # (n,) int64: DCT_MODE, or 2 + the place of a palette in palette.SIZES
    codes: torch.Tensor  # (n, k) int64
    kept: (
        torch.Tensor
    )  # (n,) int64: how many of them are kept; as many as the mode cannot do without, at least


class Contents(NamedTuple):
    """What the kept tokens of a block say."""

    sent: torch.Tensor  # (B, h, w) bool: cells that send a motion vector
    vectors: torch.Tensor  # (B, 2, h, w) pixels per frame, read where one is sent
    pan: torch.Tensor  # (B, h, w) int64: 0, or 1 + the scope of the camera pan that the cell sends
    shake: torch.Tensor | None  # (B, count, 2) pixels; None: no picture has any
    gain: torch.Tensor  # (B, 1, h, w) float32 factor on the quantizer's steps
    codes: torch.Tensor  # (B, R, h, w) int64 FSQ codes
    codes_kept: torch.Tensor  # (B, h, w) int64: how many of them are kept
    screen: ScreenContents | None  # whole vectors and screen modes; None where no cell has any


@dataclass(frozen=True)
class TokenLayout:
    """Which values mean what, for one model, and how they are put in front of FSQ codes and taken off."""

    codes: int  # FSQ codes; they have the values 0 to codes - 1
    codes_per_cell: int  # at most
    frames: int  # of a block
    pan: bool  # whether there are camera pans
    shake: bool  # whether there is camera shake

    @property
    def screen(self) -> bool:
        """Whether there are screen modes and whole vectors."""
        return self.pan and self.shake and self.codes >= symbols.CODES

    @property
    def first_vector(self) -> int:
        """The motion vector with index 0."""
        return self.codes

    @property
    def first_gain(self) -> int:
        """The gain with index 0."""
        return self.first_vector + vectors.VECTORS

    @property
    def first_pan(self) -> int:
        """The camera pan with scope 0."""
        return self.first_gain + len(GAINS)

    @property
    def shake_mark(self) -> int:
        """The value after which the codes of a camera shake stand."""
        return self.first_pan + len(camera_pan.SCOPES)

    @property
    def whole_mark(self) -> int:
        """The value after which the code of a whole vector stands."""
        return self.shake_mark + 1

    @property
    def first_mode(self) -> int:
        """The value of the DCT mode; those of palettes follow."""
        return self.whole_mark + 1

    @property
    def vocabulary(self) -> int:
        """Tokens have values below this."""
        return max(control.first + control.count for control in self.control_tokens)

    @property
    def tokens_per_cell(self) -> int:
        """The longest sequence of a cell."""
        return max(self._natural_tokens, MAX_SCREEN_CODES + 2) if self.screen else self._natural_tokens

    @property
    def _natural_tokens(self) -> int:
        """The longest sequence of a cell without a screen mode."""
        return self.codes_per_cell + 2 + self.pan + self.frames * self.shake

    @property
    def control_tokens(self) -> tuple[ControlRange, ...]:
        """All values that are no FSQ codes, ascending."""
        ranges = [
            ControlRange("motion_vector", self.first_vector, vectors.VECTORS),
            ControlRange("gain", self.first_gain, len(GAINS)),
        ]
        if self.pan:
            ranges.append(ControlRange("pan", self.first_pan, len(camera_pan.SCOPES)))
        if self.shake:
            ranges.append(ControlRange("shake", self.shake_mark, 1, followed_by=1))
        if self.screen:
            ranges.append(ControlRange("whole_vector", self.whole_mark, 1))
            ranges.append(ControlRange("dct", self.first_mode, 1))
            ranges.append(ControlRange("palette", self.first_mode + 1, len(palette.SIZES)))
        return tuple(ranges)

    def put_gain(self, coded: Sequences, gain: torch.Tensor) -> Sequences:
        """With a gain in front, where gain (B, h, w) int64 is not 0 but 1 + its place in `GAINS`."""
        return coded.with_first(gain > 0, self.first_gain + gain - 1, coded.curve[:, :1])

    def put_mode(self, coded: Sequences, mode: torch.Tensor) -> Sequences:
        """With a screen mode in front, where mode (B, h, w) int64 is not NO_MODE. A mode without codes says nothing."""
        return coded.with_first(mode > 0, self.first_mode + mode - DCT_MODE, coded.curve[:, :1])

    def put_motion(
        self, coded: Sequences, motion: MotionTokens, unsent_error: torch.Tensor, count: int
    ) -> Sequences:
        """With motion vectors, camera pans and the camera shake in front; `count` frames of the block are real.

        unsent_error: (B, h, w) squared error of each cell if it keeps no token. Cells that speak for others, by a
        pan or a shake, keep all of their control tokens: dropping them would change cells elsewhere.
        """
        for_others = (motion.pan > 0) | motion.sends_shake
        in_table = ~motion.whole
        error = unsent_error.unsqueeze(1).masked_fill(for_others.unsqueeze(1), _UNBEARABLE)
        if self.shake:
            for frame in reversed(range(self.frames)):
                here, code = motion.sends_shake & (frame < count), torch.zeros_like(motion.pan)
                if motion.shake_codes is not None and frame < count:
                    code = motion.shake_codes[:, frame].view(-1, 1, 1).expand_as(code)
                coded = coded.with_first(here, code, error)
        if self.pan:
            scope = torch.where(motion.sends_shake, len(camera_pan.SCOPES), motion.pan - 1)
            coded = coded.with_first(for_others & in_table, self.first_pan + scope, error)
        vector = self.first_vector + vectors.vector_to_index(motion.vectors)
        if self.screen:
            whole = motion.sent & motion.whole
            coded = coded.with_first(whole, whole_vectors.to_codes(motion.vectors, motion.pan), error)
            vector = torch.where(whole, self.whole_mark, vector)
        return coded.with_first(motion.sent, vector, error)

    def read(self, tokens: torch.Tensor, keep: torch.Tensor, count: int) -> Contents:
        """What the first `keep` (B, h, w) tokens (B, G, h, w) of each cell say. `count` frames of the block are real.

        Tokens beyond `keep` are not read. A shake that is cut short says nothing.
        """
        sent = (tokens[:, 0] >= self.first_vector) & (tokens[:, 0] < self.first_gain) & (keep > 0)
        vector = vectors.index_to_vector((tokens[:, 0] - self.first_vector).clamp(0, vectors.VECTORS - 1))
        screen = self._read_screen(tokens, keep, sent) if self.screen else None
        tokens = tokens[:, : self._natural_tokens]  # of the longest sequence without a screen mode
        tokens, kept = _without_first(sent, tokens, keep)
        if screen is not None:
            kept = kept.masked_fill(screen.used, 0)
            vector = torch.where(screen.whole.unsqueeze(1), screen.vectors, vector)
        pan, marks_shake, tokens, kept = self._read_pan(sent, tokens, kept)
        shake = None
        if bool(marks_shake.any()):
            shake, tokens, kept = _read_shake(marks_shake, tokens, kept, count)
        gain = torch.where(kept > 0, tokens[:, 0] - self.first_gain, -1)
        factor = tokens.new_tensor(GAINS, dtype=torch.float32)[gain.clamp(0, len(GAINS) - 1)]
        factor = torch.where(gain >= 0, factor, 1.0).unsqueeze(1)
        tokens, kept = _without_first(gain >= 0, tokens, kept)
        codes = tokens[:, : self.codes_per_cell].clamp(0, self.codes - 1)
        if screen is not None:
            sent, pan = sent | screen.whole, torch.where(screen.whole, screen.pan, pan)
        return Contents(sent, vector, pan, shake, factor, codes, kept, screen)

    def _read_screen(
        self, tokens: torch.Tensor, keep: torch.Tensor, sent: torch.Tensor
    ) -> ScreenContents | None:
        """What whole vectors and screen modes say, None where no cell has any. sent: cells with a vector of the table.

        A whole vector without its code says nothing, nor does a mode without a code, nor a palette without its colours.
        """
        number = sent.long()  # of tokens before the one that may name a mode
        values = tokens.gather(1, number.clamp_max(tokens.shape[1] - 1).unsqueeze(1))[:, 0]
        named = torch.where(keep > number, values - self.first_mode + DCT_MODE, NO_MODE).clamp_min(NO_MODE)
        marked = (values == self.whole_mark) & (keep > number) & ~sent
        used = (named > 0) | marked
        if not bool(used.any()):
            return None
        number = number + 1
        following = tokens.gather(1, number.clamp_max(tokens.shape[1] - 1).unsqueeze(1))[:, 0]
        whole = marked & (keep > number)
        vector, pan = whole_vectors.from_codes(torch.where(whole, following, 0))
        number = number + marked.long()
        least = torch.tensor((1, 1, *palette.SIZES), device=keep.device)[
            named
        ]  # codes that a mode cannot do without
        has_mode = used & (keep >= number + least)
        cells = Selection(has_mode)
        mode = torch.where(marked, DCT_MODE, named)[cells.picture, cells.row, cells.column]
        place = number[cells.picture, cells.row, cells.column, None]
        kept = keep[cells.picture, cells.row, cells.column] - place[:, 0]
        own = tokens.permute(0, 2, 3, 1)[cells.picture, cells.row, cells.column]  # (n, G)
        at = place + torch.arange(int(kept.max()) if cells.count else 0, device=keep.device)
        codes = own.gather(1, at.clamp_max(own.shape[1] - 1)).clamp(0, symbols.CODES - 1)
        return ScreenContents(used, whole, vector, pan, cells, mode, codes, kept)

    def _read_pan(
        self, sent: torch.Tensor, tokens: torch.Tensor, kept: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pans (B, h, w), where a shake follows (B, h, w) bool, and the tokens after it, of which `kept` are left."""
        first = tokens[:, 0]
        marked = sent & (first >= self.first_pan) & (kept > 0) & self.pan
        marks_shake = marked & (first == self.shake_mark) & self.shake
        pan = torch.where(marked & ~marks_shake, 1 + first - self.first_pan, 0)
        return pan, marks_shake, *_without_first(marked, tokens, kept)


def _read_shake(
    marked: torch.Tensor, tokens: torch.Tensor, kept: torch.Tensor, count: int
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """The shake that the next `count` tokens of marked cells say, and the tokens after it, of which `kept` are left."""
    whole, codes = marked & (kept >= count), []
    for _ in range(count):
        here = torch.where(whole, tokens[:, 0].clamp(0, camera_shake.CODES - 1), -1)
        codes.append(here.flatten(1).amax(1))
        tokens, kept = _without_first(marked, tokens, kept)
    kept = kept.clamp_min(0)
    if not bool(whole.any()):
        return None, tokens, kept
    said = torch.stack(codes, 1)
    return camera_shake.from_codes(torch.where(said < 0, camera_shake.NO_STEP, said)), tokens, kept


def _without_first(
    where: torch.Tensor, tokens: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Some cells' (B, h, w) tokens (B, G, h, w) without the first one, and how many are then kept (B, h, w)."""
    behind = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], _UNUSED)], 1)
    return torch.where(where.unsqueeze(1), behind, tokens), keep - where.to(keep.dtype)
