"""What a range of bytes of an object may be. One definition for every store."""

from __future__ import annotations

from recoup.kernel.errors import StorageError


def check_range(start: int, length: int | None) -> None:
    """Raise ``ValueError`` for a range that cannot be meant."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: start {start}, length {length}")


def end_of_range(name: str, size: int, start: int, length: int | None) -> int:
    """The position after the last byte of a range of an object of ``size`` bytes.

    Raise ``StorageError`` when the object, called ``name``, is too short for it.
    """
    end = size if length is None else start + length
    if start > size or end > size:
        raise StorageError(f"{name} has {size} bytes, and bytes up to {max(start, end)} were asked for")
    return end
