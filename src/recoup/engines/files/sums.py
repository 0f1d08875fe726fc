"""Digests of files as ``sha256sum`` writes and checks them.

A line is ``DIGEST  PATH``. When the path holds a backslash, a line feed or a carriage return, the line begins with a
backslash, and each of them is escaped by one (GNU coreutils, "cksum common options"). The lines stand in the order of
the tar stream beside them, so that both can be read side by side without holding either in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from recoup.kernel.errors import DamageError

_SPECIAL = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_ESCAPED = {escaped: plain for plain, escaped in _SPECIAL.items()}
_LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (.+)", re.DOTALL)


def sum_line(path: str, digest: str) -> bytes:
    """The line for one file, with its line feed."""
    name = os.fsencode(path)
    escaped = re.sub(rb"[\\\n\r]", lambda match: _SPECIAL[match[0]], name)
    return (b"\\" if escaped != name else b"") + digest.encode() + b"  " + escaped + b"\n"


def read_sums(pieces: Iterable[bytes], stream: str) -> Iterator[tuple[str, str]]:
    """Given the bytes of a list of digests, yield (path, digest). Raise ``DamageError`` for a line of another form."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _parse(line, stream)
    if rest:
        raise DamageError(f"{stream} ends in the middle of a line")


def _parse(line: bytes, stream: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise DamageError(f"{stream} has a line that is no digest: {line[:100]!r}")
    name = re.sub(rb"\\[\\nr]", lambda pair: _ESCAPED[pair[0]], match[3]) if match[1] else match[3]
    return os.fsdecode(name), match[2].decode()
