"""A folder under a name that leaves room for that of a socket in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 107  # bytes of a path in ``sockaddr_un`` (unix(7))


@contextlib.contextmanager
def short_path(folder: Path, name: str) -> Iterator[Path]:
    """The path of the socket ``name`` in ``folder``, or one by a descriptor of this process when that is too long."""
    if len(os.fsencode(folder / name)) <= _LONGEST:
        yield folder / name
        return
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{handle}/{name}")
    finally:
        os.close(handle)
