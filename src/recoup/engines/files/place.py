"""Putting files into a folder so that nothing outside it can be touched and nothing in it is lost.

Every step goes through file descriptors of folders that were opened without following links: a link in the copy, or
one that somebody puts into the target meanwhile, leads nowhere. A file appears under its name whole and durable, or
not at all. What it replaces is set aside, never overwritten; only an empty folder, of which there is nothing to keep,
is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recoup.kernel.errors import DamageError, EngineError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The same for every run: the next one that places a file in the folder clears away what a killed one left.
_TEMPORARY = ".recoup-restoring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Owner, mode and time of an entry. ``mtime_ns`` is nanoseconds since 1970."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


def parts_of(path: str) -> list[str]:
    """Given a path from a copy, return its parts. Raise ``DamageError`` when it would lead out of the folder."""
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise DamageError(f"the copy names a path that leads out of its folder: {path!r}")
    return parts


class Target:
    """A folder that is being restored into. ``aside`` is where replaced entries go, created when it is needed.

    ``own`` says whether owners are set (root only), ``special`` whether setuid and setgid bits are.
    """

    def __init__(self, folder: Path, aside: Path, *, own: bool, special: bool) -> None:
        self.folder = folder
        self.aside = aside
        self._own = own
        self._special = special
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.set_aside: list[str] = []
        self.placed: list[str] = []
        self.stripped: list[str] = []

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._root)

    def look(self, path: str) -> os.stat_result | None:
        """What is at a path, links not followed; None when nothing is, or when a parent is no folder."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents) as handle:
                return os.stat(name, dir_fd=handle, follow_symlinks=False)
        except OSError as absent:
            if absent.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise self._failed(path, absent) from absent

    def is_empty_folder(self, path: str) -> bool:
        """Whether a folder with nothing in it is at a path."""
        info = self.look(path)
        if info is None or not stat.S_ISDIR(info.st_mode):
            return False
        try:
            with self._open(parts_of(path)) as handle, os.scandir(handle) as entries:
                return next(entries, None) is None
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def obstacle(self, path: str) -> str | None:
        """The nearest parent of a path that is there and is no folder, or None."""
        parents = parts_of(path)[:-1]
        for count in range(1, len(parents) + 1):
            parent = "/".join(parents[:count])
            info = self.look(parent)
            if info is None:
                return None
            if not stat.S_ISDIR(info.st_mode):
                return parent
        return None

    def digest(self, path: str) -> str | None:
        """The SHA-256 of a regular file, or None when there is none."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents) as folder:
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as absent:
            if absent.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                return None
            raise self._failed(path, absent) from absent
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            return hashlib.file_digest(file, "sha256").hexdigest()

    def link_target(self, path: str) -> str | None:
        """What a symbolic link points to, or None when there is no link."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents) as handle:
                return os.readlink(name, dir_fd=handle)
        except OSError:
            return None

    def folder_at(self, path: str, attributes: Attributes) -> None:
        """Make a folder with its parents. It is open to its owner until ``folder_attributes`` has the last word."""
        try:
            with self._open(parts_of(path), make=True) as handle:
                if self._own:
                    os.fchown(handle, attributes.uid, attributes.gid)
                os.fchmod(handle, stat.S_IMODE(attributes.mode) & 0o1777 | 0o700)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def file(self, path: str, data: Iterable[bytes], attributes: Attributes, expected_digest: str | None) -> None:
        """Put a file in place. Raise ``DamageError``, with nothing placed, when it has another digest."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents, make=True) as folder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_TEMPORARY, dir_fd=folder)  # of a run that was killed
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                handle = os.open(_TEMPORARY, flags, 0o600, dir_fd=folder)
                try:
                    self._write(handle, path, data, attributes, expected_digest)
                    self._make_way(path, folder, name)
                    os.rename(_TEMPORARY, name, src_dir_fd=folder, dst_dir_fd=folder)
                    self.placed.append(path)
                    os.fsync(folder)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(_TEMPORARY, dir_fd=folder)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def hard_link(self, path: str, first: str) -> None:
        """Give a file of this folder a second name."""
        *parents, name = parts_of(path)
        *first_parents, first_name = parts_of(first)
        try:
            with self._open(first_parents) as source, self._open(parents, make=True) as folder:
                self._make_way(path, folder, name)
                os.link(first_name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
                self.placed.append(path)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def symlink(self, path: str, target: str, attributes: Attributes) -> None:
        """Put a symbolic link in place. Where it points is not looked at, and nothing is ever written through it."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents, make=True) as folder:
                self._make_way(path, folder, name)
                os.symlink(target, name, dir_fd=folder)
                self.placed.append(path)
                if self._own:
                    os.chown(name, attributes.uid, attributes.gid, dir_fd=folder, follow_symlinks=False)
                times = (attributes.mtime_ns, attributes.mtime_ns)
                os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def folder_attributes(self, path: str, attributes: Attributes) -> None:
        """Set owner, mode and time of a folder, after everything in it is in place."""
        try:
            with self._open(parts_of(path)) as handle:
                self._set(handle, path, attributes)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def move_in(self, source: Path, path: str) -> None:
        """Rename a folder from beside into place, setting aside what is there."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents, make=True) as folder:
                self._make_way(path, folder, name)
                os.rename(source, name, dst_dir_fd=folder)
                self.placed.append(path)
                os.fsync(folder)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def put_aside(self, path: str) -> None:
        """Move what is at a path out of the way, into ``aside``, under the same path."""
        *parents, name = parts_of(path)
        try:
            with self._open(parents) as folder:
                self._make_way(path, folder, name)
        except OSError as failure:
            raise self._failed(path, failure) from failure

    def _make_way(self, path: str, folder: int, name: str) -> None:
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(info.st_mode) and _removed_as_empty(folder, name):
            return
        place = self.aside.joinpath(*parts_of(path))
        number = 1
        while os.path.lexists(place):  # an earlier run with the same name got as far as this
            place = place.with_name(f"{name}~{number}")
            number += 1
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.rename(name, place, src_dir_fd=folder)
        self.set_aside.append(path)

    def _write(
        self, handle: int, path: str, data: Iterable[bytes], attributes: Attributes, expected_digest: str | None
    ) -> None:
        digest = hashlib.sha256()
        with open(handle, "wb", buffering=0) as file:
            for piece in data:
                digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            if expected_digest is not None and digest.hexdigest() != expected_digest:
                raise DamageError(f"{path} in the copy is not what was copied: its digest differs")
            self._set(handle, path, attributes)
            os.fsync(handle)

    def _set(self, handle: int, path: str, attributes: Attributes) -> None:
        mode = stat.S_IMODE(attributes.mode)
        if mode & 0o6000 and not self._special:
            mode &= ~0o6000
            self.stripped.append(path)
        if self._own:
            os.fchown(handle, attributes.uid, attributes.gid)  # before the mode: it clears setuid
        os.fchmod(handle, mode)
        os.utime(handle, ns=(attributes.mtime_ns, attributes.mtime_ns))

    @contextlib.contextmanager
    def _open(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        """The folder at ``parts``, opened part by part, never through a link."""
        handle = os.dup(self._root)
        try:
            for part in parts:
                made = make and self._make_folder(handle, part)
                inner = os.open(part, _FOLDER, dir_fd=handle)
                if made and self._own:  # a folder that the copy does not describe belongs to its parent's owner
                    parent = os.fstat(handle)
                    os.fchown(inner, parent.st_uid, parent.st_gid)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    @staticmethod
    def _make_folder(handle: int, part: str) -> bool:
        try:
            os.mkdir(part, 0o755, dir_fd=handle)
        except FileExistsError:
            return False
        return True

    def _failed(self, path: str, failure: OSError) -> EngineError:
        hint = "Make room and run the same command again; it goes on where it stopped."
        return EngineError(
            f"cannot write {self.folder / path}: {failure.strerror}",
            hint=hint if failure.errno in (errno.ENOSPC, errno.EDQUOT) else None,
        )


def _removed_as_empty(folder: int, name: str) -> bool:
    """Remove a folder when nothing is in it at that very instant; whether it is gone."""
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as failure:
        if failure.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
