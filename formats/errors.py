"""What can go wrong with a file: one base class, one subclass per kind of failure."""


class EtkError(Exception):
    """Base of everything this package raises about the contents of a file."""


class NotAnEtkFile(EtkError):
    """The first bytes are not those of an .etk file."""


class UnsupportedVersion(EtkError):
    """The file is sound but needs a newer program (its version, token kind or token coding is unknown)."""


class Truncated(EtkError):
    """The file ends in the middle of something."""


class Corrupt(EtkError):
    """Bytes that no writer can have written: a checksum differs, or a rule of the format is broken."""


class LimitExceeded(EtkError):
    """A declared size is over the limit of the format."""


class InvalidRecord(EtkError):
    """A header or block holds a value that the format does not allow."""
