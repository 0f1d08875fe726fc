"""Files that are whole or absent: private temporary files, atomic replacement, durable renames."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from recoup.kernel.errors import UsageError


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` survive a power cut. Raise ``OSError`` when it cannot be promised."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace ``path`` by a file that holds exactly ``data``, durably; a reader sees the old file or the new one."""
    with temporary_beside(path, mode=mode) as temporary:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def temporary_beside(path: Path, *, mode: int = 0o600) -> Iterator[Path]:
    """A fresh empty file in the same folder as ``path``, with ``mode``; removed on leaving if it is still there."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def may_enter(path: Path, user: tuple[int, int]) -> bool:
    """Whether ``user`` (uid, gid), without supplementary groups, can enter a folder and every folder above it."""
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        facts = folder.stat()
        shift = 6 if facts.st_uid == user[0] else 3 if facts.st_gid == user[1] else 0
        if not facts.st_mode >> shift & 0o1:
            return False
    return True


def expanded(path: str | Path) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced. Raise ``UsageError`` when there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"there is no home folder for {str(path).split('/', 1)[0]!r}", hint="Write the folder's full path."
        ) from None
