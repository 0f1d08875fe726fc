"""Writing an archive's members into place, from frames that come in any order."""

# Paths are plain strings here: a Path for each of many thousands of files costs more than writing them.
# ruff: noqa: PTH101, PTH102, PTH112, PTH120

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from recoup.engines.postgres.placement import Archive
from recoup.kernel.errors import DamageError, EngineError

#: Runs of zeros of this size become holes: long enough that looking for them costs nothing.
_HOLE_BYTES = 64 << 10
_ZEROS = bytes(_HOLE_BYTES)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC

_LIBC = ctypes.CDLL(None, use_errno=True)
_WRITE_AND_DO_NOT_WAIT = 2  # SYNC_FILE_RANGE_WRITE, sync_file_range(2); a length of 0 is up to the end


class FilePlacer:
    """Puts the files of one archive under ``root``, from (offset, bytes) pieces in any order, from any threads.

    ``rename`` maps a member's path to the name it is written under. ``owner`` is given to everything made. Call
    ``make_folders``, then ``write`` for every piece, then ``require_whole``.
    """

    def __init__(
        self, archive: Archive, root: Path, *, owner: tuple[int, int] | None, rename: Callable[[str], str]
    ) -> None:
        self._archive = archive
        self._root = str(root)
        self._owner = owner
        self._names = [rename(path) for path in archive.paths]
        self._left = list(archive.sizes)
        self._made = bytearray(len(archive.paths))
        self._making = threading.Lock()  # of files, and of the account of what is left
        # The server overwrites its WAL files in place and cannot bear running out of space there.
        self._dense = [path.startswith("pg_wal/") for path in archive.paths]

    def make_folders(self) -> None:
        """Make every folder of the archive, and every empty file. Raise ``EngineError``."""
        with writing_in(self._root):
            for path, mode in self._archive.directories:
                self._make_folder(path, mode | 0o700)
            for path in self._archive.paths:
                parent = os.path.dirname(path)
                if parent and not os.path.isdir(f"{self._root}/{parent}"):
                    self._make_parents(parent)
            for number, size in enumerate(self._archive.sizes):
                if size == 0:
                    os.close(self._handle(number))

    def _make_parents(self, path: str) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            if not os.path.isdir(f"{self._root}/{'/'.join(parts[:depth])}"):
                self._make_folder("/".join(parts[:depth]), 0o700)

    def _make_folder(self, path: str, mode: int) -> None:
        parent = os.path.dirname(path)
        if parent and not os.path.isdir(f"{self._root}/{parent}"):
            self._make_parents(parent)
        full = f"{self._root}/{path}"
        if not os.path.isdir(full):
            os.mkdir(full, 0o700)
        os.chmod(full, mode)
        if self._owner is not None:
            os.chown(full, *self._owner, follow_symlinks=False)

    def write(self, start: int, data: bytes) -> None:
        """Write a piece of the archive, which begins at ``start``, where it belongs. Raise ``EngineError``."""
        with writing_in(self._root):
            for number in self._archive.overlapping(start, start + len(data)):
                self._write(number, start, data)

    def require_whole(self) -> None:
        """Raise ``DamageError`` unless the pieces that were written covered every file."""
        for number, left in enumerate(self._left):
            if left != 0:
                raise DamageError(f"{self._archive.name} does not hold all of {self._archive.paths[number]}")

    def _write(self, number: int, start: int, data: bytes) -> None:
        offset, size = self._archive.offsets[number], self._archive.sizes[number]
        begin, end = max(start, offset), min(start + len(data), offset + size)
        handle = self._handle(number)
        try:
            place = write_dense if self._dense[number] else write_sparse
            place(handle, data, begin - start, end - start, begin - offset)
            with self._making:
                self._left[number] -= end - begin
                finished = self._left[number] == 0
            if finished:
                _begin_storing(handle)
        finally:
            os.close(handle)

    def _handle(self, number: int) -> int:
        """The file, open; whoever comes first makes it. Opening it for each piece costs less than keeping it would."""
        path = f"{self._root}/{self._names[number]}"
        with self._making:
            if not self._made[number]:
                handle = os.open(path, _CREATE, 0o600)
                try:
                    os.fchmod(handle, self._archive.modes[number])
                    if self._owner is not None:
                        os.fchown(handle, *self._owner)
                    os.ftruncate(handle, self._archive.sizes[number])
                except OSError:
                    os.close(handle)
                    raise
                self._made[number] = 1
                return handle
        return os.open(path, _REOPEN)


def _begin_storing(handle: int) -> None:
    """Let the disk begin with a finished file. Its answer does not matter: ``sync_file_systems`` waits and reports.

    Without this the disk is idle while frames are decompressed, and everything waits for it at the end.
    """
    begin = getattr(_LIBC, "sync_file_range", None)  # Linux only
    if begin is not None:
        begin(handle, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE_AND_DO_NOT_WAIT)


def write_dense(handle: int, data: bytes, begin: int, end: int, at: int) -> None:
    """Write ``data[begin:end]`` at position ``at`` of a file."""
    view = memoryview(data)
    while begin < end:
        done = os.pwrite(handle, view[begin:end], at)
        begin, at = begin + done, at + done


def write_sparse(handle: int, data: bytes, begin: int, end: int, at: int) -> None:
    """As ``write_dense``, leaving holes where ``data`` has long runs of zeros. The file must have its size already."""
    run, position = begin, begin
    while position < end:
        size = min(_HOLE_BYTES, end - position)
        # startswith compares in place and stops at the first difference: for real pages after a few bytes.
        if data.startswith(_ZEROS if size == _HOLE_BYTES else _ZEROS[:size], position):
            if run < position:
                write_dense(handle, data, run, position, at + run - begin)
            run = position + size
        position += size
    if run < end:
        write_dense(handle, data, run, end, at + run - begin)


class writing_in:  # noqa: N801 used like a function
    """Translate what the file system refuses into ``EngineError`` with a hint."""

    def __init__(self, place: str | Path) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        where = error.filename or self._place
        hint = {
            errno.ENOSPC: "Free some space, or restore to another disk; then give the same command again.",
            errno.EDQUOT: "Raise the quota, or restore to another disk; then give the same command again.",
            errno.EACCES: "Run as a user who may write there (root, or the folder's owner).",
            errno.EPERM: "Run as root to give files to another user.",
            errno.EROFS: "Mount the file system writable, or restore elsewhere.",
        }.get(error.errno or 0)
        raise EngineError(f"cannot write {where}: {error.strerror or error}", hint=hint) from error


def sync_file_systems(folders: Iterable[Path]) -> None:
    """Make everything written under ``folders`` survive a power cut: one ``syncfs`` for each file system.

    Raise ``EngineError`` when the kernel reports that a write was lost (since Linux 5.8 it does).
    """
    synced: set[int] = set()
    for folder in folders:
        with writing_in(folder):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                device = os.fstat(handle).st_dev
                if device not in synced:
                    _syncfs(handle)
                    synced.add(device)
            finally:
                os.close(handle)


def _syncfs(handle: int) -> None:
    # os.syncfs does not exist in Python; one call for the whole file system beats an fsync for each of 1,000s of files.
    if _LIBC.syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_paths(paths: Iterable[Path]) -> Iterator[Path]:
    """``fsync`` each path in turn and yield it."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        yield path
