"""The worked example of SPEC.md, and the files of old versions that must stay readable."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from etk_samples import make_block, read, same_blocks, write

import formats
from formats import Block, EtkReader, Header, ModelRef, Segment

SPEC = (Path(formats.__file__).parent / "SPEC.md").read_text(encoding="utf-8")
GOLDEN = Path(__file__).parents[1] / "golden"
GENERATE = os.environ.get("GENERATE_EXPECTED") == "1"

EXAMPLE_HEADER = Header(
    model=ModelRef("tiny", bytes(range(32)), (8, 8, 8, 5, 5, 5), 64000, 2, 4, (16, 16)),
    width=30,
    height=16,
    grid=(1, 2),
    time_base=(1, 25),
)
EXAMPLE_BLOCK = Block(
    pts=(0, 1, 2),
    durations=(1, 1, 1),
    keep=np.array([[2, 1]], np.uint16),
    tokens=np.array([1, 8, 12800], np.uint16),
    frame_mse=(0.25, 0.25, 0.5),
    scene_cut=True,
)


def test_example_of_the_specification() -> None:
    block = re.search(r"```text\n(.*?)```", SPEC, re.DOTALL)
    assert block is not None
    documented = bytes.fromhex("".join(line.split("|")[0] for line in block[1].splitlines()))
    assert documented == write([[EXAMPLE_BLOCK]], EXAMPLE_HEADER)
    reader, segments = read(documented)
    assert reader.header == EXAMPLE_HEADER
    assert same_blocks(segments[0].blocks, [EXAMPLE_BLOCK])
    assert reader.complete


def golden_segments() -> list[list[Block]]:
    """Long and short blocks, uneven times, missing facts, empty and full keep maps."""
    long = [make_block(n, 4 * n, durations=(1, 1, 0, 7)) for n in range(12)]
    nan = math.nan
    uneven = make_block(50, 0, pts=(100, 103, 109, 2**40), missed=True, frame_mse=(nan, 0.5, nan, 0.0))
    empty = np.zeros((2, 2), np.uint16)
    short = make_block(
        51,
        0,
        pts=(2**50,),
        durations=(0,),
        keep=empty,
        tokens=empty[:0, 0],
        frame_mse=(nan,),
        scene_cut=True,
    )
    return [long, [uneven], [short]]


def facts(reader: EtkReader, segments: list[Segment]) -> dict[str, object]:
    """Everything that was read, as JSON can hold it."""
    header = dataclasses.asdict(reader.header)
    header["model"]["sha256"] = reader.header.model.sha256.hex()
    blocks = [
        {
            "segment": segment.number,
            "pts": block.pts,
            "durations": block.durations,
            "keep": block.keep.tolist(),
            "tokens": block.tokens.tolist(),
            "frame_mse": [None if math.isnan(mse) else mse for mse in block.frame_mse],
            "missed": block.missed,
            "scene_cut": block.scene_cut,
        }
        for segment in segments
        for block in segment.blocks
    ]
    found = {
        "header": header,
        "aux": b"".join(reader.aux()).hex(),
        "blocks": blocks,
        "complete": reader.complete,
        "zstd": zstandard.ZSTD_VERSION,
    }
    return json.loads(json.dumps(found))


def drop_later_keys(found: dict[str, Any], stored: dict[str, Any]) -> None:
    """Remove from `found` the header's keys that the writer of a golden file did not know: they have their defaults."""
    for name in set(found["header"]) - set(stored["header"]):
        assert found["header"].pop(name) in (0, [], "block")


def check_golden(name: str, segments: list[list[Block]]) -> None:
    """A file that an earlier writer of version 1 made of these segments reads as it did."""
    with EtkReader(GOLDEN / f"{name}.etk") as reader:
        read_segments = list(reader.segments())
        found = facts(reader, read_segments)
    stored = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    drop_later_keys(found, stored)
    del stored["zstd"], found["zstd"]
    assert stored == found
    for written, segment in zip(segments, read_segments, strict=True):
        for a, b in zip(written, segment.blocks, strict=True):
            assert np.array_equal(a.keep, b.keep)
            assert a.tokens.tobytes() == b.tokens.tobytes()


def test_golden_file_of_version_1() -> None:
    """Written before there were keep coding 16, token coding 4 and error coding 2: no writer makes it any more."""
    check_golden("v1", golden_segments())
