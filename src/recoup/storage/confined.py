"""A folder nobody leads us out of: walked by descriptor, without following links; its errors say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
from collections.abc import Iterator, Sequence
from pathlib import Path

from recoup.kernel.errors import MissingObjectError, StorageError
from recoup.kernel.files import sync_folder
from recoup.kernel.units import show_size


class OddFileError(StorageError):
    """Something stands at a key that is neither a file nor a folder."""


class ConfinedFolder:
    """The root of a ``LocalStore``. The root itself may be a symbolic link; nothing below it is followed."""

    def __init__(self, path: Path) -> None:
        """``path`` must be absolute. Nothing is looked at yet."""
        self.path = path

    @contextlib.contextmanager
    def walk(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """The descriptor of a folder below the store, entered part by part without following links."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if create:
                    try:
                        os.mkdir(part, 0o700, dir_fd=handle)
                        os.fsync(handle)
                    except FileExistsError:
                        pass
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    def name(self, key: str) -> str:
        return str(self.path / key) if key else str(self.path)

    def odd(self, key: str, mode: int) -> StorageError:
        if stat_module.S_ISDIR(mode):
            return MissingObjectError(f"{self.name(key)} is a folder, not an object")
        return OddFileError(
            f"{self.name(key)} is not an ordinary file", hint="Recoup follows no links: put the file itself there."
        )

    @contextlib.contextmanager
    def translated(self, doing: str, key: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            raise self.failure(doing, key, failure) from failure

    def failure(self, doing: str, key: str, failure: OSError) -> StorageError:
        what = f"cannot {doing} {self.name(key)}"
        if key and failure.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and self.has_link(key):
            return OddFileError(
                f"{what}: a part of it is a symbolic link", hint="Recoup follows no links: put the folder itself there."
            )
        if failure.errno in (errno.ENOENT, errno.ENOTDIR) and doing != "write to" and self.path.is_dir():
            return MissingObjectError(f"there is no object {self.name(key)}")
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageError(
                f"no space left for {self.name(key)}",
                hint=f"Free some space in {self.path} or give it a larger disk; {self.free()} are free now.",
            )
        hint = None
        if failure.errno in (errno.EACCES, errno.EPERM):
            hint = f"Give the user {os.geteuid()} access to {self.path}, or run Recoup as its owner."
        elif failure.errno == errno.EROFS:
            hint = f"Mount the disk that holds {self.path} for writing."
        return StorageError(f"{what}: {failure.strerror or failure}", hint=hint)

    def has_link(self, key: str) -> bool:
        path = self.path
        for part in key.split("/"):
            path /= part
            if path.is_symlink():
                return True
        return False

    def free(self) -> str:
        try:
            found = os.statvfs(self.path)
        except OSError:
            return "an unknown number of bytes"
        return show_size(found.f_bavail * found.f_frsize)


def make_folders(folder: Path) -> None:
    """Make ``folder`` and the folders above it that are missing, closed to others; each survives a power cut."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(0o700)
        sync_folder(each.parent)
