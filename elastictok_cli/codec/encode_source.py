"""Encoding a source in one pass, in two, or with one scene in view, as what is asked for and the source allow."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from typing import Any, BinaryIO

import torch

from elastictok_cli.codec import events
from elastictok_cli.codec.encoder import encode
from elastictok_cli.codec.header import make_header
from elastictok_cli.codec.options import EncodeOptions
from elastictok_cli.codec.passes import BudgetTooSmall, NoDuration, Open, encode_in_passes
from elastictok_cli.codec.planner import Bound, header_bytes
from elastictok_cli.codec.running_scenes import RunningScenes
from elastictok_cli.models.interface import Loaded
from elastictok_cli.video.records import VideoInfo
from formats import EtkWriter, Header

_MakeHeader = Callable[[VideoInfo], Header]


def encode_source(
    open_source: Open,
    file: BinaryIO,
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    jobs: int | None = 1,
    *,
    rereadable: bool,
    recorded: Mapping[str, Any],
) -> Generator[events.Event, None, None]:
    """Encode a source into `file`, yielding events as they happen.

    open_source: opens the source at its beginning; more than once only if `rereadable`. file: is written from its
    beginning on, more than once where a source that can be read again is planned. recorded: further options for the
    header. Raises BudgetTooSmall and NoDuration.
    """

    def header_of(info: VideoInfo) -> Header:
        header = make_header(info, loaded, options)
        header.options.update(recorded)
        return header

    if not options.planned:
        yield from _in_one_pass(open_source, file, loaded, options, device, jobs, header_of)
    elif rereadable:
        with open_source() as source:
            header = header_of(source.info)
        start = _starting(file, header_of, has_budget=options.budget is not None)
        yield from encode_in_passes(open_source, start, header, loaded, options, device, jobs)
    else:
        yield from _running(open_source, file, loaded, options, device, header_of)


def _in_one_pass(
    open_source: Open,
    file: BinaryIO,
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    jobs: int | None,
    header_of: _MakeHeader,
) -> Generator[events.Event, None, None]:
    with open_source() as source:
        writer = EtkWriter(file, header_of(source.info))
        yield from encode(source.info, source, source.take_aux, loaded, writer, options, device, jobs)


def _running(
    open_source: Open,
    file: BinaryIO,
    loaded: Loaded,
    options: EncodeOptions,
    device: torch.device,
    header_of: _MakeHeader,
) -> Generator[events.Event, None, None]:
    """One scene after another: its frames wait until it is planned."""
    with open_source() as source:
        header = header_of(source.info)
        scenes = RunningScenes(source.info, header, loaded, options, device)
        scenes.aux_rate = lambda: source.aux_rate

        def take_aux() -> bytes:
            data = source.take_aux()
            scenes.aux_bytes += len(data)
            return data

        writer = EtkWriter(file, header)
        encoding = encode(
            source.info,
            source,
            take_aux,
            loaded,
            writer,
            options,
            device,
            plans=scenes,
            note=scenes.note,
        )
        with closing(encoding):
            for event in encoding:
                if isinstance(event, events.Finished):
                    _check_budget(event, options, header_bytes(header) + scenes.aux_bytes)
                    event = replace(event, bound=scenes.bound)
                yield event


def _check_budget(finished: events.Finished, options: EncodeOptions, other_bytes: int) -> None:
    """What two passes know beforehand shows only at the end where there is one.

    other_bytes: of header and copied streams.
    """
    budget = options.budget
    if budget is None:
        return
    if finished.frames == 1 and budget.is_rate:
        raise NoDuration
    most = budget.bytes_for(Fraction(finished.duration))
    if most is None or finished.bytes <= most:
        return
    least = other_bytes if finished.tokens else finished.bytes
    if least > most:
        raise BudgetTooSmall(least)


def _starting(
    file: BinaryIO, header_of: _MakeHeader, *, has_budget: bool
) -> Callable[[VideoInfo, Bound | None], EtkWriter]:
    """Starts the file anew."""

    def start(info: VideoInfo, bound: Bound | None) -> EtkWriter:
        file.seek(0)
        file.truncate()
        header = header_of(info)
        if bound is not None and has_budget:
            header.options["bound"] = bound
        return EtkWriter(file, header)

    return start
