"""What can go wrong with a video file. Each error is one sentence that a user can act on."""


class VideoError(Exception):
    """Something about a video file; `str(error)` is one clear sentence."""


class UnreadableVideo(VideoError):
    """The source is missing, damaged, or of a kind FFmpeg cannot decode."""


class NoVideoStream(UnreadableVideo):
    """The source can be read, but there is no picture in it."""


class UnwritableVideo(VideoError):
    """The target cannot be written: it exists, or it cannot hold what was asked for."""


class UnknownKind(UnwritableVideo):
    """The target's name does not say how to write it, or says a kind that cannot hold what was asked for."""


class NoTemporaryFile(VideoError):
    """The system's folder for temporary files has no room for a copy of the source, or cannot be written to."""
