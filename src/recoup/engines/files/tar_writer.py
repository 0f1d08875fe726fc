"""Writing a tar stream of files that other programs may be changing: the stream stays valid whatever they do.

POSIX.1-2001 (pax) headers; owners by number only; times with nanoseconds. A file that becomes shorter is filled with
zeros to the length its header promised, one that grows is cut there, and both are noted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable

from recoup.engines.engine import StreamSink
from recoup.engines.files.walk import MAY_NOT_READ, Found, Notes, unreadable
from recoup.kernel.errors import EngineError

_PIECE_BYTES = 1 << 20
_BLOCK = 512
_RECORD = 20 * _BLOCK  # what tar programs round the end up to
_ZEROS = bytes(_PIECE_BYTES)
_OTHERS = {
    stat.S_IFSOCK: "a socket: it has no content",
    stat.S_IFIFO: "a named pipe: it has no content",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class TarWriter:
    """Adds what ``walk`` found to a stream. ``on_file`` receives (path, digest) of each file, in order."""

    def __init__(self, stream: StreamSink, notes: Notes, on_file: Callable[[str, str], None]) -> None:
        self._stream = stream
        self._notes = notes
        self._on_file = on_file
        self._linked: dict[tuple[int, int], tuple[str, str]] = {}
        self._structure = hashlib.sha256()
        self.written = 0
        self.files = 0
        self.file_bytes = 0
        self.folders = 0
        self.links = 0
        self.with_attributes = 0

    @property
    def structure(self) -> str:
        """A digest over the folders and symbolic links: their paths and targets."""
        return self._structure.hexdigest()

    def add(self, found: Found) -> None:
        """Add one entry. Raise ``EngineError`` for a file that may not be read."""
        mode = found.info.st_mode
        if stat.S_ISDIR(mode):
            self._structure.update(b"D\0" + os.fsencode(found.path) + b"\0")
            self.folders += 1
            self._header(found.path, tarfile.DIRTYPE, found.info)
        elif stat.S_ISLNK(mode):
            self._symlink(found)
        elif stat.S_ISREG(mode):
            self._file(found)
        else:
            self._notes.leave_out(found.path, _OTHERS.get(stat.S_IFMT(mode), "neither file, folder nor link"))

    def close(self) -> None:
        """Write the end of the tar."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self.written % _RECORD))

    def _symlink(self, found: Found) -> None:
        try:
            target = os.readlink(found.name, dir_fd=found.folder)
        except (FileNotFoundError, OSError) as gone:
            if isinstance(gone, FileNotFoundError) or gone.errno == errno.EINVAL:
                self._notes.leave_out(found.path, "vanished while the copy was made")
                return
            raise EngineError(f"cannot read the link {found.path}: {gone.strerror}") from gone
        self._structure.update(b"L\0" + os.fsencode(found.path) + b"\0" + os.fsencode(target) + b"\0")
        self.links += 1
        self._header(found.path, tarfile.SYMTYPE, found.info, link=target)

    def _file(self, found: Found) -> None:
        identity = (found.info.st_dev, found.info.st_ino)
        if found.info.st_nlink > 1 and identity in self._linked:
            first, digest = self._linked[identity]
            self._header(found.path, tarfile.LNKTYPE, found.info, link=first)
            self.files += 1
            self._on_file(found.path, digest)
            return
        handle = self._open(found)
        if handle is None:
            return
        try:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                self._notes.leave_out(found.path, "vanished while the copy was made")
                return
            self._count_attributes(handle)
            self._header(found.path, tarfile.REGTYPE, before, size=before.st_size)
            digest = self._content(handle, before.st_size, found.path)
            after = os.fstat(handle)
            if after.st_size > before.st_size:
                self._notes.note_grown(found.path)
            elif (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                self._notes.note_changed(found.path)
        finally:
            os.close(handle)
        if before.st_nlink > 1:
            self._linked[before.st_dev, before.st_ino] = (found.path, digest)
        self.files += 1
        self.file_bytes += before.st_size
        self._on_file(found.path, digest)

    def _open(self, found: Found) -> int | None:
        # Not blocking: a pipe may have taken the file's place.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(found.name, flags, dir_fd=found.folder)
        except PermissionError as closed:
            if not found.optional:
                raise unreadable(found.path) from closed
            self._notes.leave_out(found.path, MAY_NOT_READ)
            return None
        except OSError as gone:
            if gone.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                self._notes.leave_out(found.path, "vanished while the copy was made")
                return None
            raise EngineError(f"cannot read {found.path}: {gone.strerror}") from gone

    def _content(self, handle: int, size: int, path: str) -> str:
        digest, left = hashlib.sha256(), size
        while left:
            try:
                piece = os.read(handle, min(left, _PIECE_BYTES))
            except OSError as failure:
                raise EngineError(
                    f"cannot read {path}: {failure.strerror}", hint="Check the disk; the copy was given up."
                ) from failure
            if not piece:
                self._notes.note_changed(path)
                piece = _ZEROS[: min(left, _PIECE_BYTES)]
            digest.update(piece)
            self._write(piece)
            left -= len(piece)
        self._write(bytes(-size % _BLOCK))
        return digest.hexdigest()

    def _header(self, path: str, kind: bytes, info: os.stat_result, *, size: int = 0, link: str = "") -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.size, entry.linkname = kind, size, link
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
        seconds, fraction = divmod(info.st_mtime_ns, 1_000_000_000)
        entry.mtime = max(0, seconds)
        if fraction or seconds < 0:
            entry.pax_headers = {"mtime": f"{seconds}.{fraction:09d}" if seconds >= 0 else str(seconds)}
        self._write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _count_attributes(self, handle: int) -> None:
        try:
            names = os.listxattr(handle)
        except OSError:
            return  # the file system has none
        # SELinux labels every file; the label is a property of the place, and is set again there.
        if any(name != "security.selinux" for name in names):
            self.with_attributes += 1

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self.written += len(data)
