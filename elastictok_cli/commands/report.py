"""`elastictok report`: one HTML page that shows where the tokens of an .etk file went."""

import base64
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastictok_cli.analysis import units
from elastictok_cli.commands.arguments import (
    Device,
    DeviceName,
    Force,
    Json,
    Model,
    Quiet,
    Threads,
    find_device,
    load_model,
)
from elastictok_cli.commands.console import Display, JsonLines
from elastictok_cli.commands.damage import describe_damage
from elastictok_cli.commands.failures import ExitCode, Failure, guarded
from elastictok_cli.commands.targets import (
    PIPE,
    check_files,
    check_page_name,
    name_beside,
    publish,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from elastictok_cli.codec.measurement import Source
    from elastictok_cli.models.checkpoint import Loaded
    from formats import EtkReader, Segment

_MAX_PICTURES = 1 << 18  # segments that a file can have
_PICTURE_SIDE = 320  # pixels of a picture's longer side


@guarded
def report(
    source: Annotated[Path, typer.Argument(metavar="IN.etk", help="- is standard input.")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT.html", help="- is standard output.", show_default="IN with .html"),
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option(
            "--source",
            metavar="VIDEO",
            help="The video IN.etk was made from: decode all of it and measure the error of each frame.",
            show_default="show the error that the file records",
        ),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=_MAX_PICTURES,
            help="Show at most N first frames of segments; 0 runs no model.",
        ),
    ] = 48,
    model: Model = None,
    device: Device = DeviceName.auto,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a web page of an .etk file: usage over time beside the error, keep maps, first frames, costliest moments.

    The page is one file that loads nothing from elsewhere. Of a damaged file, the intact part is shown; the exit code
    is then 4.
    """
    target = target or name_beside(source, ".html")
    check_files(source, target, original, force=force, as_json=as_json)
    check_page_name(target)

    from elastictok_cli.report import gather, page
    from formats import EtkReader

    lines = JsonLines(enabled=as_json)
    began = time.monotonic()
    with ExitStack() as stack:
        reader = stack.enter_context(EtkReader(sys.stdin.buffer if str(source) == PIPE else source))
        decoder = _Decoder(reader, model, device, threads) if pictures or original is not None else None
        measured = decoder.errors(stack, original) if decoder is not None and original is not None else None
        display = stack.enter_context(Display(quiet=quiet))
        total = reader.frame_count
        shown = pictures or gather.DEFAULT_CARDS
        found = gather.gather(
            reader,
            measured,
            shown,
            lambda count: display.show(count / total if total else None, f"frame {count}", "reading"),
        )
        if not found.count:
            raise _nothing(reader)
        cards = gather.cards(
            reader,
            found,
            decoder.picture if decoder is not None and pictures else None,
            lambda count: display.show(count / shown, f"segment {count}", "pictures"),
        )
        damage = describe_damage(reader)
        content = page.Content(
            name="standard input" if str(source) == PIPE else units.printable(source.name),
            size=source.stat().st_size if source.is_file() else None,
            header=reader.header,
            found=found,
            strip=gather.strip(reader),
            cards=cards,
            damage=damage,
            source=None if original is None else units.printable(original.name),
        )
        data = page.render(content).encode()
        with publish(target) as stream:
            stream.write(data)
    for text in damage:
        display.warn(text)
        lines.write("damage", {"message": text})
    seconds = time.monotonic() - began
    display.note(
        f"{target}: {units.size(len(data))}, {units.count(found.count, 'frame')}, "
        f"{units.count(len(cards), 'segment')} shown, {seconds:.1f} s"
    )
    lines.write(
        "summary",
        {
            "output": str(target),
            "bytes": len(data),
            "frames": found.count,
            "blocks": found.blocks_count,
            "segments": found.segments_count,
            "segments_shown": len(cards),
            "pictures": sum("picture" in card for card in cards),
            "tokens": found.tokens,
            "mse": found.mse,
            "psnr": units.psnr(found.mse),
            "promise": reader.header.promise,
            "promise_kept": page.kept(content),
            "damaged": bool(damage),
            "seconds": seconds,
        },
    )
    if damage:
        raise typer.Exit(ExitCode.CORRUPT)


def _nothing(reader: "EtkReader") -> Failure:
    if damage := describe_damage(reader):
        return Failure(f"nothing can be read: {'; '.join(damage)}", ExitCode.CORRUPT)
    return Failure("the file has no frames", ExitCode.BAD_INPUT)


class _Decoder:
    """What needs the model: pictures, and errors against the source."""

    def __init__(
        self, reader: "EtkReader", model: Path | None, device: DeviceName, threads: int | None
    ) -> None:
        from elastictok_cli.codec.decoder import ModelMismatch, check_model

        self._reader = reader
        self._device: torch.device = find_device(device, threads)
        self._loaded: Loaded = load_model(model, self._device)
        try:
            check_model(reader.header, self._loaded)
        except ModelMismatch as error:
            raise Failure(f"{error}; or leave out the pictures: --pictures 0", ExitCode.BAD_INPUT) from None

    def picture(self, segment: "Segment") -> tuple[str, int, int]:
        """The first frame of a segment, small: data URI, width, height."""
        from elastictok_cli.codec.decoder import pictures

        pixels = next(pictures(segment.blocks, self._reader.header, self._loaded, self._device))[0]
        return _jpeg(pixels)

    def errors(self, stack: ExitStack, original: Path) -> Iterator[float]:
        """The MSE of each frame that can be read, in order."""
        from elastictok_cli.codec.measurement import Source, SourceMismatch

        try:
            frames = stack.enter_context(Source(original, self._reader.header))
        except SourceMismatch as error:
            raise Failure(str(error), ExitCode.BAD_INPUT) from None
        return self._errors(frames)

    def _errors(self, frames: "Source") -> Iterator[float]:
        from elastictok_cli.codec.decoder import pictures
        from elastictok_cli.codec.measurement import SourceMismatch

        for segment in self._reader.segments():
            shown = pictures(segment.blocks, self._reader.header, self._loaded, self._device)
            for block, pixels in zip(segment.blocks, shown, strict=True):
                try:
                    yield from frames.errors(block, pixels)
                except SourceMismatch as error:
                    raise Failure(str(error), ExitCode.BAD_INPUT) from None


def _jpeg(pixels: "npt.NDArray[np.uint8]") -> tuple[str, int, int]:
    """A small JPEG of a picture (H, W, 3) as data URI, with its size."""
    from av.video.frame import VideoFrame

    from elastictok_cli.video.pictures import PictureEncoder

    height, width = pixels.shape[:2]
    scale = min(1.0, _PICTURE_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    frame = VideoFrame.from_ndarray(pixels, format="rgb24")
    small = frame.reformat(width=size[0], height=size[1], format="rgb24", interpolation="AREA")
    rgb = small.to_ndarray(format="rgb24").astype("uint8", copy=False)
    data = PictureEncoder(size, jpeg=True).encode(rgb)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", *size
