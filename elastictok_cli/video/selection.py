"""Which streams of a source are the film, which travel with it, and which are lost."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from elastictok_cli.video.errors import NoVideoStream, UnreadableVideo

# How many packets are looked at to see which video stream moves: some ten seconds of film and sound.
_PEEKED_PACKETS = 500


def pick_video(container: Any, name: str, number: int | None) -> tuple[Any, list[Any]]:
    """The video stream to read, and the packets demuxed to find it, which are to be used before all others.

    `number` is that of a stream of the file; None takes the first video stream that moves: a cover picture is no film.
    Raises NoVideoStream, and UnreadableVideo where FFmpeg has no decoder for it.
    """
    videos = list(container.streams.video)
    peeked: list[Any] = []
    if number is not None:
        chosen = _numbered(container, name, number)
    else:
        films = [s for s in videos if not _is_cover(s)]
        if not films:
            raise NoVideoStream(f"{name} has no video in it")
        chosen = films[0]
        if len(films) > 1:
            peeked = _peek(container, films)
            counts = Counter(p.stream.index for p in peeked if p.size)
            chosen = next((s for s in films if counts[s.index] > 1), films[0])
    if chosen.codec_context is None:
        raise UnreadableVideo(f"{name} holds a kind of video that FFmpeg cannot decode")
    return chosen, peeked


def side_streams(container: Any) -> list[Any]:
    """The audio and subtitle streams, which can be copied."""
    return [s for s in container.streams if s.type in ("audio", "subtitle") and s.codec_context is not None]


def unused_streams(container: Any, used: Iterable[Any]) -> list[Any]:
    """The streams that hold something and are not among `used`."""
    indices = {s.index for s in used}
    rest = [s for s in container.streams if s.index not in indices]
    if container.chapters():  # MP4 repeats its chapters as a text track
        rest = [s for s in rest if not (s.type == "data" and s.name == "bin_data")]
    return rest


def _numbered(container: Any, name: str, number: int) -> Any:
    if number >= len(container.streams):
        raise NoVideoStream(f"{name} has no stream {number}: it has {len(container.streams)}, counted from 0")
    stream = container.streams[number]
    if stream.type != "video":
        videos = ", ".join(str(s.index) for s in container.streams.video) or "none"
        raise NoVideoStream(f"stream {number} of {name} is {stream.type}; video streams: {videos}")
    return stream


def _peek(container: Any, films: list[Any]) -> list[Any]:
    """The first packets of a source: up to two of each film, but not too many."""
    peeked: list[Any] = []
    wanted = Counter({s.index: 2 for s in films})
    for packet in container.demux():
        peeked.append(packet)
        if packet.size:
            wanted[packet.stream.index] -= 1
        if len(peeked) >= _PEEKED_PACKETS or all(wanted[s.index] <= 0 for s in films):
            break
    return peeked


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture that goes with the file, and is marked as such."""
    disposition = getattr(stream, "disposition", None)
    if disposition is None:
        return False
    kinds = type(disposition)
    return bool(disposition & (kinds.attached_pic | kinds.timed_thumbnails))
