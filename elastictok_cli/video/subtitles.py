"""Text subtitles from the form of one container to that of another, by FFmpeg's own decoders and encoders."""

from typing import Any

# What holds text subtitles how: for each container the encoder of its usual form.
_TEXT_ENCODERS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "srt", "webm": "webvtt", "nut": "text"}
# Forms of plain text with few styles: what one says, the others can. ASS is not one of them: it places and animates.
_PLAIN_TEXT = frozenset({"mov_text", "subrip", "text", "webvtt"})


def text_encoder(container: str, codec: str) -> str | None:
    """FFmpeg's encoder of the text subtitles that `container` holds; None if `codec` is no plain text."""
    return _TEXT_ENCODERS.get(container) if codec in _PLAIN_TEXT else None


class SubtitleConverter:
    """Turns packets of a text subtitle stream into those of a new stream of `output` (nothing muxed yet).

    `target` is that stream.
    """

    def __init__(self, source: Any, output: Any, encoder: str) -> None:
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self.target = output.add_stream(encoder)
        self._encoder = self.target.codec_context
        self._encoder.subtitle_header = (
            self._decoder.subtitle_header
        )  # styles, which encoders want to know first

    def convert(self, packet: Any) -> Any:
        """The packet in the new form, at the same time; None if it shows nothing. Raises av.FFmpegError."""
        subtitle = self._decoder.decode2(packet)
        if subtitle is None or not len(subtitle):
            return None
        converted = self._encoder.encode_subtitle(subtitle)
        converted.time_base = packet.time_base
        converted.pts = converted.dts = packet.pts
        converted.duration = packet.duration
        return converted
