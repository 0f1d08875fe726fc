"""Objects in a folder of this machine: whole, durable, private, and never outside the folder.

An object is first written to ``.incoming/`` inside the store, synced, and then renamed to its key; the folders are
synced too. A key cannot begin with a dot, so unfinished files never show. Each unfinished file is held under
``flock`` by its writer: when the lock can be had, the writer is dead, whatever process, container or boot it ran in.

Folders are walked by file descriptor without following symbolic links, so that neither a hostile key nor a planted
link leads out of the store. The folder itself may be a link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat as stat_module
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from recoup.kernel import clock
from recoup.kernel.errors import MissingObjectError, StorageError
from recoup.kernel.units import show_size
from recoup.storage.confined import ConfinedFolder, make_folders
from recoup.storage.object_store import ObjectExistsError, ObjectInfo, check_key
from recoup.storage.ranges import check_range, end_of_range

INCOMING = ".incoming"
_LOCK = "lock"
_PIECE_BYTES = 1 << 20
_STALE_SECONDS = 24 * 3600.0
_COMMIT_ATTEMPTS = 5
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStore:
    """A folder of objects. Folders get mode 0700 and files 0600. Safe to use from threads and processes at once."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        """Open ``folder``. Raise ``StorageError`` when it is missing (unless ``create``) or is no folder."""
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow the user's links
        self._root = ConfinedFolder(self._folder)
        self._cleaned = False
        if create:
            with self._root.translated("create"):
                make_folders(self._folder)
        try:
            is_folder = stat_module.S_ISDIR(os.stat(self._folder).st_mode)
        except FileNotFoundError:
            raise StorageError(
                f"there is no folder {self._folder}",
                hint="Create it, mount the disk it lives on, or correct the path in the plan.",
            ) from None
        except OSError as failure:
            raise self._root.failure("open", "", failure) from failure
        if not is_folder:
            raise StorageError(f"{self._folder} is not a folder", hint="Name a folder for the repository.")

    @property
    def address(self) -> str:
        """The folder, as an absolute path."""
        return str(self._folder)

    @property
    def folder(self) -> Path:
        """The folder itself, for checks of free space."""
        return self._folder

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write a whole object; see ``ObjectStore.put``."""
        with LocalWriter(self, check_key(key), if_absent=if_absent) as writer:
            writer.write(data)
            return writer.commit()

    def writer(self, key: str, *, expected_bytes: int | None = None) -> LocalWriter:  # noqa: ARG002 - not needed here
        """Begin an object of any size; see ``ObjectStore.writer``."""
        return LocalWriter(self, check_key(key), if_absent=False)

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """Read a whole small object; see ``ObjectStore.get``."""
        with self._opened(key) as handle:
            size = os.fstat(handle).st_size
            if size > limit_bytes:
                raise StorageError(
                    f"{self._root.name(key)} has {show_size(size)}, more than the {show_size(limit_bytes)} allowed here"
                )
            return b"".join(self._pieces(key, handle, 0, None))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield a range in pieces; see ``ObjectStore.read``."""
        check_key(key)
        check_range(start, length)
        return self._read(key, start, length)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        with self._opened(key) as handle:
            yield from self._pieces(key, handle, start, length)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; see ``ObjectStore.read_range``."""
        return b"".join(self.read(key, start, length))

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object; see ``ObjectStore.stat``."""
        parts = check_key(key).split("/")
        with self._root.translated("look at", key), self._root.walk(parts[:-1]) as folder:
            found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat_module.S_ISREG(found.st_mode):
                raise self._root.odd(key, found.st_mode)
            return _info(key, found)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below ``prefix``, ordered by key; see ``ObjectStore.list``. Symbolic links are left out."""
        head, _, _ = prefix.rpartition("/")
        if head:
            try:
                check_key(head)
            except ValueError:
                return iter(())
        return self._list(head, prefix)

    def _list(self, folder_key: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with self._root.translated("list"), self._root.walk(folder_key.split("/") if folder_key else []) as folder:
                entries = [
                    (entry.name, entry.is_dir(follow_symlinks=False), _ordinary(entry)) for entry in os.scandir(folder)
                ]
        except MissingObjectError:
            return
        before = f"{folder_key}/" if folder_key else ""
        # A folder sorts as its name with the slash: that is the order of whole keys ("a-b" < "a.b" < "a/b" < "ab").
        for name, is_folder, found in sorted(entries, key=lambda entry: entry[0] + "/" * entry[1]):
            key = before + name
            if name.startswith(".") or not (key.startswith(prefix) or (is_folder and prefix.startswith(key + "/"))):
                continue
            if is_folder:
                yield from self._list(key, prefix)
                continue
            if found is not None:
                with contextlib.suppress(ValueError):  # a name that is no key was not put there by a store
                    yield _info(check_key(key), found)

    def delete(self, key: str) -> None:
        """Remove an object and the folders it leaves empty; see ``ObjectStore.delete``."""
        parts = check_key(key).split("/")
        with (
            contextlib.suppress(MissingObjectError),
            self._root.translated("delete", key),
            self._root.walk(parts[:-1]) as folder,
        ):
            os.unlink(parts[-1], dir_fd=folder)
            os.fsync(folder)
        for depth in range(len(parts) - 1, 0, -1):
            try:
                with self._root.walk(parts[: depth - 1]) as folder:
                    os.rmdir(parts[depth - 1], dir_fd=folder)
            except OSError:  # not empty, or gone already: both are fine, an empty folder is no object
                return

    def discard_unfinished(self, prefix: str) -> None:  # noqa: ARG002 - an incoming file does not tell its key
        """Remove what dead writers left, whatever the key; see ``ObjectStore.discard_unfinished``."""
        self.clean_unfinished()

    def clean_unfinished(self) -> int:
        """Remove what dead writers left in ``.incoming`` and return how many files that were.

        A file whose writer lives is locked and stays. Where the file system knows no locks, only files untouched for
        24 hours go.
        """
        removed = 0
        with self._root.translated("clean"):
            incoming = self._folder / INCOMING
            if not incoming.is_dir():
                return 0
            with self._incoming_lock(fcntl.LOCK_EX):
                for path in incoming.iterdir():
                    removed += path.name != _LOCK and _remove_if_abandoned(path)
        return removed

    # What the writer needs.

    def begin(self) -> tuple[int, Path]:
        """A fresh, locked file in ``.incoming``: its descriptor and path."""
        if not self._cleaned:
            self._cleaned = True
            self.clean_unfinished()
        incoming = self._folder / INCOMING
        with self._root.translated("write to"):
            with contextlib.suppress(FileExistsError):
                incoming.mkdir(0o700)
            path = incoming / secrets.token_hex(12)
            with self._incoming_lock(fcntl.LOCK_SH):  # no clean-up between making the file and locking it
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                with contextlib.suppress(OSError):  # no locks here: clean-up then goes by age
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle, path

    @contextlib.contextmanager
    def _incoming_lock(self, kind: int) -> Iterator[None]:
        """Hold the lock of ``.incoming``, shared or alone; where the file system knows no locks, hold nothing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self._folder / INCOMING / _LOCK, flags, 0o600)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, kind)
            yield
        finally:
            os.close(handle)

    def publish(self, source: Path, key: str, *, if_absent: bool) -> None:
        """Move a synced file to its key, durably. Raise ``ObjectExistsError`` when asked to and the key is taken."""
        parts = key.split("/")
        for attempt in range(_COMMIT_ATTEMPTS):
            try:
                with self._root.walk(parts[:-1], create=True) as folder:
                    self._rename(source, folder, parts[-1], key, if_absent=if_absent)
                    os.fsync(folder)
                return
            except FileNotFoundError:
                # A delete removed the empty folder between our making it and our rename.
                if attempt == _COMMIT_ATTEMPTS - 1 or not source.exists():
                    raise

    def _rename(self, source: Path, folder: int, name: str, key: str, *, if_absent: bool) -> None:
        if not if_absent:
            os.replace(source, name, dst_dir_fd=folder)
            return
        taken = ObjectExistsError(f"{self._root.name(key)} exists already")
        try:
            os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise taken from None
        except OSError as failure:
            if failure.errno not in _NO_LINKS:
                raise
        else:
            source.unlink()
            return
        # A file system without hard links (exFAT, some network ones): a lock among Recoups instead.
        with self._incoming_lock(fcntl.LOCK_EX):
            try:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                os.replace(source, name, dst_dir_fd=folder)
                return
            raise taken

    # Walking, reading, errors.

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        parts = check_key(key).split("/")
        with self._root.translated("read", key):
            with self._root.walk(parts[:-1]) as folder:
                # O_NONBLOCK: opening a planted pipe must not hang.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                handle = os.open(parts[-1], flags, dir_fd=folder)
            try:
                mode = os.fstat(handle).st_mode
                if not stat_module.S_ISREG(mode):
                    raise self._root.odd(key, mode)
                yield handle
            finally:
                os.close(handle)

    def _pieces(self, key: str, handle: int, start: int, length: int | None) -> Iterator[bytes]:
        size = os.fstat(handle).st_size
        end = end_of_range(self._root.name(key), size, start, length)
        position = start
        while position < end:
            piece = os.pread(handle, min(_PIECE_BYTES, end - position), position)
            if not piece:
                raise StorageError(f"{self._root.name(key)} ended at byte {position} while it was read, before {end}")
            position += len(piece)
            yield piece


class LocalWriter:
    """An object on its way into a ``LocalStore``."""

    def __init__(self, store: LocalStore, key: str, *, if_absent: bool) -> None:
        self._store = store
        self._key = key
        self._if_absent = if_absent
        handle, self._path = store.begin()
        self._handle: int | None = handle

    def write(self, data: bytes | memoryview) -> None:
        """Append; see ``ObjectWriter.write``. After a failure nothing is left and the writer is spent."""
        handle = self._open_handle()
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError as failure:
            raise self._give_up(failure) from failure

    def commit(self) -> ObjectInfo:
        """Make the object visible and durable; see ``ObjectWriter.commit``."""
        handle = self._open_handle()
        try:
            os.fsync(handle)
            self._store.publish(self._path, self._key, if_absent=self._if_absent)
            info = _info(self._key, os.fstat(handle))
        except OSError as failure:
            raise self._give_up(failure) from failure
        except StorageError:
            self.abort()
            raise
        self._close()
        return info

    def abort(self) -> None:
        """Remove what was written; see ``ObjectWriter.abort``."""
        if self._handle is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _open_handle(self) -> int:
        if self._handle is None:
            raise StorageError(f"the writing of {self._key} to {self._store.address} has already ended")
        return self._handle

    def _give_up(self, failure: OSError) -> StorageError:
        self.abort()
        return self._store._root.failure("write to", self._key, failure)

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _ordinary(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What the file system says of an ordinary file; None for anything else and for what is gone already."""
    try:
        return entry.stat(follow_symlinks=False) if entry.is_file(follow_symlinks=False) else None
    except FileNotFoundError:
        return None


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    # The change time moves with every write and cannot be set back by a program; the inode with every replacement.
    version = f"{found.st_ino:x}-{found.st_ctime_ns:x}"
    modified = datetime.fromtimestamp(found.st_mtime, UTC)
    return ObjectInfo(key=key, size_bytes=found.st_size, version=version, modified=modified)


def _remove_if_abandoned(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # finished or taken by another clean-up meanwhile, or not ours to touch
        return False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            if clock.now().timestamp() - os.fstat(handle).st_mtime < _STALE_SECONDS:
                return False
        try:
            path.unlink()
        except OSError:
            return False
        return True
    finally:
        os.close(handle)
