"""Putting an RDB into the data folder of a stopped Redis, so that it starts with exactly that data.

Order (kill -9 at any point leaves either the old data or the new data for the server to load):

1. *stage*: the whole copy is written beside, in a hidden folder, checked and synced;
2. *keep*: every old file is linked into ``recoup-replaced-<stamp>/``;
3. *switch*: one atomic rename puts the new data in place;
4. *clean*: the old names, which the server no longer reads, go; their content stays in the kept folder.

What the server loads depends on its setting ``appendonly``, not on which files are there: with ``yes`` it ignores
``dump.rdb``, and without append-only files it starts *empty*. So with ``appendonly`` the RDB becomes the base of the
append-only log. Redis 7 and newer: ``appendonlydir/`` with a base file and a manifest; the rename of the manifest is
the switch, as it is when Redis itself rewrites its log (Redis, src/aof.c). Redis 6: an RDB is a valid begin of
``appendonly.aof``.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recoup.engines.engine import CopyReader
from recoup.engines.redis.seal import RdbSeal, require_loadable
from recoup.engines.redis.snapshot import STREAM
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.files import sync_folder
from recoup.kernel.ids import stamp

STAGING_PREFIX = ".recoup-restore-"
REPLACED_PREFIX = "recoup-replaced-"
_MULTI_PART_SINCE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderLayout:
    """How a Redis names its files. The values are those of its settings; the defaults are Redis's."""

    appendonly: bool
    server_version: str  #: ``7``, ``7.0.15`` …
    dbfilename: str = "dump.rdb"
    appendfilename: str = "appendonly.aof"
    appenddirname: str = "appendonlydir"

    def __post_init__(self) -> None:
        for name in (self.dbfilename, self.appendfilename, self.appenddirname):
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) or name.startswith(REPLACED_PREFIX):
                raise RefusedError(
                    f"{name!r} is not a plain file name",
                    hint="Correct dbfilename, appendfilename or appenddirname in the Redis configuration.",
                )

    @property
    def multi_part(self) -> bool:
        """Whether the append-only log is a folder with a manifest."""
        return self.appendonly and int(self.server_version.split(".")[0]) >= _MULTI_PART_SINCE

    @property
    def names(self) -> tuple[str, str, str]:
        """Everything a Redis may keep its data in."""
        return self.dbfilename, self.appendfilename, self.appenddirname


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredFolder:
    """What was done. ``replaced`` is the folder with what was there before, or None."""

    folder: Path
    replaced: Path | None
    size_bytes: int
    checksum_stated: bool


def restore_rdb_to_folder(
    reader: CopyReader,
    folder: Path,
    layout: FolderLayout,
    *,
    owner: tuple[int, int] | None = None,
    force: bool = False,
) -> RestoredFolder:
    """Make the stopped Redis that owns ``folder`` start with the data of the copy.

    ``owner`` is who the server runs as (default: the owner of the folder, when run as root). Raise ``RefusedError``
    when there is data already and not ``force``, or when that server cannot load the copy; ``DamageError`` when the
    copy is damaged; ``EngineError`` when the folder cannot be written. After any error the old data are in place.
    """
    try:
        present = [name for name in layout.names if _holds_data(folder / name)]
        if present and not force:
            raise RefusedError(
                f"{folder} holds data already: {', '.join(present)}",
                hint=f"With --force they are kept in {folder}/{REPLACED_PREFIX}… and the copy takes their place.",
            )
        identity = owner if owner is not None else _owner_of(folder)
        with _staging(folder) as staging:
            staged = staging / "copy.rdb"
            seal = RdbSeal()
            _stage(reader, staged, seal, identity)
            checksum_stated = seal.finish()
            require_loadable(seal.version(), layout.server_version)
            replaced = _keep(folder, present, identity) if present else None
            _switch(folder, staging, staged, layout, identity)
            _clean(folder, layout, present)
    except OSError as failure:
        raise EngineError(
            f"cannot restore into {folder}: {failure.strerror or failure} ({failure.filename or 'no name'})",
            hint="Check the free space and the rights of that folder; the data that were there are in place.",
        ) from failure
    return RestoredFolder(folder=folder, replaced=replaced, size_bytes=seal.size_bytes, checksum_stated=checksum_stated)


def _holds_data(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()


def _owner_of(folder: Path) -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    status = folder.stat()
    return status.st_uid, status.st_gid


def _give(path: Path, identity: tuple[int, int] | None) -> None:
    if identity is not None:
        os.chown(path, *identity, follow_symlinks=False)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    for left_behind in folder.glob(f"{STAGING_PREFIX}*"):  # by a run that was killed
        shutil.rmtree(left_behind)
    staging = folder / f"{STAGING_PREFIX}{secrets.token_hex(6)}"
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stage(reader: CopyReader, staged: Path, seal: RdbSeal, identity: tuple[int, int] | None) -> None:
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as file:
        for piece in reader.read(STREAM):
            seal.write(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    _give(staged, identity)


def _keep(folder: Path, present: list[str], identity: tuple[int, int] | None) -> Path:
    """Give every old file a second name in a folder of its own. Nothing changes for the server."""
    name = f"{REPLACED_PREFIX}{stamp(clock.now())}"
    kept = folder / name
    number = 1
    while kept.exists():
        number += 1
        kept = folder / f"{name}-{number}"
    kept.mkdir(mode=0o700)
    _give(kept, identity)
    for entry in present:
        old = folder / entry
        if not old.is_dir():
            _link(old, kept / entry)
            continue
        (kept / entry).mkdir(mode=0o700)
        _give(kept / entry, identity)
        for file in sorted(old.iterdir()):
            _link(file, kept / entry / file.name)
        sync_folder(kept / entry)
    sync_folder(kept)
    sync_folder(folder)
    return kept


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        # A file system without hard links: a copy takes space, and keeps the promise.
        shutil.copy2(old, new, follow_symlinks=False)
        with open(new, "rb") as copy:
            os.fsync(copy.fileno())


def _switch(folder: Path, staging: Path, staged: Path, layout: FolderLayout, identity: tuple[int, int] | None) -> None:
    if not layout.multi_part:
        os.replace(staged, folder / (layout.appendfilename if layout.appendonly else layout.dbfilename))
        sync_folder(folder)
        return
    log = folder / layout.appenddirname
    base, manifest = multi_part_names(layout.appendfilename, _next_sequence(log))
    text = f"file {base} seq {base.split('.')[-3]} type b\n"
    if log.is_dir():
        os.replace(staged, log / base)
        sync_folder(log)
        _write(staging / manifest, text, identity)
        os.replace(staging / manifest, log / manifest)
        sync_folder(log)
        return
    fresh = staging / "log"
    fresh.mkdir(mode=0o700)
    _give(fresh, identity)
    os.replace(staged, fresh / base)
    _write(fresh / manifest, text, identity)
    sync_folder(fresh)
    os.replace(fresh, log)
    sync_folder(folder)


def multi_part_names(appendfilename: str, sequence: int) -> tuple[str, str]:
    """The names of a base file and of the manifest (Redis, src/aof.c)."""
    return f"{appendfilename}.{sequence}.base.rdb", f"{appendfilename}.manifest"


def _next_sequence(log: Path) -> int:
    """A number that no file of the old log uses."""
    used = [0]
    if log.is_dir():
        for file in log.iterdir():
            used += [int(part) for part in file.name.split(".") if part.isascii() and part.isdigit() and len(part) < 16]
    return max(used) + 1


def _write(path: Path, text: str, identity: tuple[int, int] | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _give(path, identity)


def _clean(folder: Path, layout: FolderLayout, present: list[str]) -> None:
    """Remove the old names, of which the kept folder has the content. The server would not read them."""
    if layout.multi_part:
        new = layout.appenddirname
        log = folder / new
        current = (log / f"{layout.appendfilename}.manifest").read_text(encoding="utf-8").split()[1]
        for file in sorted(log.iterdir()):
            if file.name not in (current, f"{layout.appendfilename}.manifest"):
                file.unlink()
        sync_folder(log)
    else:
        new = layout.appendfilename if layout.appendonly else layout.dbfilename
    for name in present:
        if name == new:
            continue
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    sync_folder(folder)
