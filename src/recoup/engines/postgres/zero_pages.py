"""Counting all-zero pages in tables and indexes.

A zero page is valid to PostgreSQL (it is how a relation grows) and passes every page checksum, so a hole that a disk
punched looks the same. The count cannot tell them apart in one copy; between two copies of one table it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


class ZeroPages:
    """The census over all files."""

    def __init__(self) -> None:
        self.pages = 0
        self.inner: dict[str, int] = {}  #: files with zero pages that have other pages after them
        self._most = 1000

    def file(self, path: str, block_bytes: int) -> Callable[[bytes], None]:
        """A listener for the bytes of one file, in order."""
        zeros = bytes(block_bytes)
        rest = b""
        pending = 0

        def take(data: bytes) -> None:
            nonlocal rest, pending
            if rest:
                data = rest + data
            whole = len(data) // block_bytes * block_bytes
            for offset in range(0, whole, block_bytes):
                if data.startswith(zeros, offset):
                    pending += 1
                    self.pages += 1
                elif pending:
                    self._note(path, pending)
                    pending = 0
            rest = data[whole:]

        return take

    def _note(self, path: str, count: int) -> None:
        if path in self.inner or len(self.inner) < self._most:
            self.inner[path] = self.inner.get(path, 0) + count

    def text(self) -> str:
        """The census in a line."""
        if not self.pages:
            return "none"
        inner = sum(self.inner.values())
        line = (
            f"{self.pages} all-zero pages, {self.pages - inner} of them at the end of their file, where relations grow"
        )
        if inner:
            named = ", ".join(f"{path} ({count})" for path, count in sorted(self.inner.items())[:5])
            line += f"; {inner} between other pages: {named}"
        return line


def zero_runs(pieces: Iterable[bytes], block_bytes: int) -> Iterator[tuple[int, int, bool]]:
    """The runs of all-zero pages in the content of one relation, given in pieces of any size.

    Each is the number of its first page, how many there are, and whether it is the last thing in the relation. A part
    of a page at the end is looked at by nobody here.
    """
    zeros = bytes(block_bytes)
    rest = b""
    page = begin = 0
    inside = False
    for piece in pieces:
        data = rest + piece if rest else piece
        whole = len(data) // block_bytes * block_bytes
        for offset in range(0, whole, block_bytes):
            if data.startswith(zeros, offset):
                begin, inside = (begin, True) if inside else (page, True)
            elif inside:
                yield begin, page - begin, False
                inside = False
            page += 1
        rest = data[whole:]
    if inside:
        yield begin, page - begin, True
