"""The one interface every tokenizer model serves, so that search, container and CLI are written once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

DEFAULT_ARCHITECTURE = "elastictok-default-2"  # of the default model's checkpoints that this version reads

# Which cells keep a token, (B, h, w) bool -> squared error of each cell without one, (B, h, w) float32. Several
# maps can be asked for at once, (S * B, h, w), each for all B blocks.
Filled = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ControlRange:
    """Token values of one kind that are no FSQ codes. They come first in a cell's sequence.

    kind: "motion_vector", "gain", "pan" (how other cells' motion vectors change), "shake" (how the whole picture is
    displaced), "whole_vector" (its code follows), "dct" or "palette" (screen modes: their codes are no FSQ codes).
    """

    kind: str
    first: int  # the values are first .. first + count - 1
    count: int
    followed_by: int = 0  # codes that belong to such a token and follow it, for each real frame of the block


@dataclass(frozen=True)
class TokenizerSpec:
    """What the codec and the container need to know about a model."""

    name: str
    frames: int  # per block
    cell: tuple[int, int]  # pixels, (height, width)
    tokens_per_cell: int  # longest sequence one cell can own
    levels: tuple[int, ...]  # FSQ levels of one token's digits; none where tokens are vectors
    vocabulary: int  # token values are 0 .. vocabulary - 1; 0 where tokens are vectors
    nested: bool  # the first k tokens are the same whatever length is kept
    vector: int = 0  # size of a token that is a float16 latent (no motion vector); 0: tokens are integers
    shortest: int = 0  # length that a search begins at
    control_tokens: tuple[ControlRange, ...] = ()  # ascending; all other values are FSQ codes

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells that cover a picture of `height` x `width` pixels."""
        return -(-height // self.cell[0]), -(-width // self.cell[1])


@dataclass(frozen=True)
class Encoding:
    """All tokens of one block, with what an allocator wants to know before it decodes anything.

    tokens: (B, G, h, w) int64, coarse to fine; -1 where a cell has no more tokens to offer.
    length: (B, h, w) int64, how many of the G slots each cell can use.
    curve: (B, G + 1, h, w) float32, predicted sum of squared errors over the cell's pixels ([-1, 1] scale)
        when its first k tokens are kept.
    filled: for blocks whose cells are filled in from the others where they keep no token: see `Filled`.
    reuse: work that `decode` need not do again for these tokens after the same context; decoding adds to it.
    """

    tokens: torch.Tensor
    length: torch.Tensor
    curve: torch.Tensor
    filled: Filled | None = None
    reuse: Any = None


class Trial(NamedTuple):
    """One cell encoded and decoded at one length.

    tokens: (G,) int64, or (G, D) float16 vectors, zero past the length. frames: (T, 3, cell height, cell width) in
    [-1, 1], as a decoder of the file will have them. state: what the next block needs of this one.
    """

    tokens: torch.Tensor
    frames: torch.Tensor
    state: Any


class Tokenizer(Protocol):
    """A model as the codec sees it. Frames are (B, T, 3, H, W) float32 in [-1, 1], H and W cell multiples."""

    spec: TokenizerSpec

    def start(self, height: int, width: int) -> Any:
        """Context of a keyframe block: nothing is known yet."""

    def decode(
        self, tokens: torch.Tensor, keep: torch.Tensor, context: Any, *, count: int
    ) -> tuple[torch.Tensor, Any]:
        """Frames (B, n, 3, H, W) in [-1, 1], of which the first `count` are the real ones, and the next block's
        context, from the first `keep` (B, h, w) tokens of each cell.

        Tokens are (B, G, h, w) int64, or (B, G, h, w, D) float16 vectors.
        """


class NestedTokenizer(Tokenizer, Protocol):
    """A model whose encoder does not see how much is kept: one encode serves every length of every cell."""

    def decode(
        self, tokens: torch.Tensor, keep: torch.Tensor, context: Any, *, count: int, reuse: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """See `Tokenizer.decode`. reuse: that of the `Encoding` which the tokens are from. It makes the decode
        faster and changes nothing that it returns. Raises ValueError if it belongs to another context or `count`.
        """

    def encode(
        self,
        frames: torch.Tensor,
        context: Any,
        *,
        count: int,
        target: float = 0.007,
        complete: bool = False,
        price: float | None = None,
    ) -> Encoding:
        """All tokens of one block after the blocks before it.

        frames: (B, T, 3, H, W), of which the first `count` are real; the rest repeat the last of them. target: MSE
        that decides which motion vectors are sent. Cells far below it need not offer all their tokens, or any, unless
        `complete`. price: the squared error that a token will have to save, if that is foreseen.
        """

    def estimate_motion(self, last: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Motion vectors (B, 2, h, w), in full-size pixels per frame, from `last` to `later` two frames after it.

        last, later: (B, 3, H / 4, W / 4) in [-1, 1], at a quarter of the size; grid: (h, w) cells."""

    def compensate_motion(self, picture: torch.Tensor, vectors: torch.Tensor, frames: int) -> torch.Tensor:
        """`picture` (B, C, H, W) moved for so many frames along `vectors` (B, 2, h, w), in its own pixels per frame.

        Returns (B, C, H, W). Edges are repeated."""


class LengthTokenizer(Tokenizer, Protocol):
    """A model whose encoder sees how much is kept: each length of each cell is an encode and a decode of its own.

    Cells know nothing of each other and are numbered row by row. B is 1.
    """

    batch: int  # trials that are worked out at once

    def trials(
        self, frames: torch.Tensor, context: Any, wanted: Sequence[tuple[int, int]]
    ) -> Iterator[Trial]:
        """One trial for each wanted (cell, length), in this order; `batch` of them are held at a time."""

    def commit(self, context: Any, chosen: Sequence[Trial]) -> Any:
        """The next block's context, when each cell goes on with its chosen trial."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for the codec, and the facts of the file it came from.

    load: loads it again from that file, in another process too; None where there is no such file. Raises where the
    file is gone or has changed.
    """

    tokenizer: NestedTokenizer | LengthTokenizer
    path: Path
    sha256: bytes
    training: dict[str, Any]  # how it was trained, as `elastictok train` wrote it
    load: Callable[[], Loaded] | None = None


def where_to_get(sha256: bytes) -> str | None:
    """How to come by weights that shipped before those of this version, as the end of a sentence; None if unknown."""
    place = resources.files("elastictok_cli") / "weights" / "earlier.json"
    found = next((e for e in json.loads(place.read_text()) if e["sha256"] == sha256.hex()), None)
    if found is None:
        return None
    revision = found["revision"][:12]
    if found["architecture"] != DEFAULT_ARCHITECTURE:
        return f"they need an older program too: git checkout {revision} in a clone of elastictok, and install that"
    weights = "elastictok_cli/weights/default.safetensors"
    return f"in a clone of elastictok, git show {revision}:{weights} > FILE gets them, then --model FILE"
