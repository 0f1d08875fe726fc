"""Restore a base backup into an empty folder, so that an interrupted restore never looks like a database.

The order is the safety. A marker goes in first and out last; ``pg_control``, without which PostgreSQL refuses to
start, gets its name only after every other byte is on the disk. Killed at any instant, the folder either holds the
marker and no ``pg_control`` (the same call empties it and starts over) or everything (the same call removes the
marker and is done).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recoup.engines.engine import Content, CopyReader, Progress, ProgressListener
from recoup.engines.postgres.control import CONTROL_FILE, parse_control
from recoup.engines.postgres.identity import MARKER, describe_folder
from recoup.engines.postgres.place_files import FilePlacer, sync_file_systems, writing_in
from recoup.engines.postgres.place_settings import place_missing_settings
from recoup.engines.postgres.placement import (
    TABLESPACE_MAP,
    Archive,
    Destinations,
    choose_destinations,
    lay_out,
    tablespace_map_text,
)
from recoup.engines.postgres.stream_names import BASE_ARCHIVE, MANIFEST_STREAM
from recoup.kernel.errors import BusyError, DamageError, EngineError, RefusedError
from recoup.kernel.files import sync_folder
from recoup.kernel.units import show_size

_CONTROL_UNFINISHED = CONTROL_FILE + ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFolder:
    """A finished restore. ``started_over`` tells that an unfinished one was cleared away first."""

    folder: Path
    tablespaces: Mapping[int, Path]
    system_identifier: str
    plain_bytes: int
    started_over: bool


def restore_base_to_folder(
    reader: CopyReader,
    folder: Path,
    *,
    tablespace_map: Mapping[int, Path] | None = None,
    owner: tuple[int, int] | None = None,
    workers: int = 0,
    on_progress: ProgressListener | None = None,
) -> PlacedFolder:
    """Put a base backup into ``folder``, which must not exist, be empty, or hold an unfinished restore of ours.

    ``tablespace_map`` gives a folder for a tablespace's oid; the others go to ``<folder>-tablespaces/<oid>``, never
    to where they lay on the server that was backed up. ``owner`` (uid, gid) is given to everything, which needs root;
    without it root gives everything to the owner of a folder that is there already, as an empty volume of a container.
    When this returns, everything is on the disk and ``pg_ctl -D folder start`` starts it.

    Raise ``RefusedError`` when a folder holds anything else or a member of the copy is hostile, ``BusyError`` when
    another restore is writing there, ``DamageError`` for a copy that is not whole, ``EngineError`` for want of space
    or rights. After an error the same call starts over.
    """
    streams = [info for info in reader.streams() if info.content is Content.TAR]
    if BASE_ARCHIVE not in {info.name for info in streams}:
        raise DamageError(f"the copy has no {BASE_ARCHIVE}")
    locations = {int(space["oid"]): str(space["path"]) for space in reader.facts.get("tablespaces", ())}
    destinations = choose_destinations(folder, [info.name for info in streams], locations, tablespace_map)
    archives = [lay_out(info.name, reader.members(info.name)) for info in streams]
    places = [destinations.folder, *destinations.tablespaces.values()]
    owner = owner or _owner_of(destinations.folder)
    total = sum(info.plain_bytes for info in streams)
    with contextlib.ExitStack() as locks:
        if _finished_before(destinations.folder, locks):
            done = _finish(destinations, started_over=False, plain_bytes=total)
            _require_same(done.system_identifier, reader.facts)
            return done
        _require_place(places)
        started_over = False
        for place in places:
            started_over |= _claim(place, destinations, owner, locks)
        _require_space(archives, destinations)
        _place_all(reader, archives, destinations, owner, workers, _reporter(on_progress, total))
        _require_same(_control_identifier(destinations.folder / _CONTROL_UNFINISHED), reader.facts)
        sync_file_systems(places)
        with writing_in(destinations.folder):
            os.replace(destinations.folder / _CONTROL_UNFINISHED, destinations.folder / CONTROL_FILE)
            sync_folder((destinations.folder / CONTROL_FILE).parent)
        return _finish(destinations, started_over=started_over, plain_bytes=total)


def _reporter(on_progress: ProgressListener | None, total: int) -> Callable[[int], None]:
    """Adds up what several threads have done; the listener hears of it from one at a time."""
    done = 0
    adding = threading.Lock()

    def report(size: int) -> None:
        nonlocal done
        with adding:
            done += size
            if on_progress is not None:
                on_progress(Progress(what="restore", done_bytes=done, total_bytes=total))

    return report


# -- before the first byte ---------------------------------------------------------------------------------------


def _finished_before(folder: Path, locks: contextlib.ExitStack) -> bool:
    """Whether an earlier call was killed after ``pg_control`` got its name: then only the marker is left to go."""
    with writing_in(folder):
        if not (folder / MARKER).exists() or not (folder / CONTROL_FILE).exists():
            return False
        locks.enter_context(_locked(folder / MARKER))
        return True


def _require_place(places: list[Path]) -> None:
    """Raise ``RefusedError`` unless nothing would be lost in any of the folders."""
    for place in places:
        seen = describe_folder(place)
        if not (seen.empty or seen.unfinished_restore):
            raise RefusedError(
                f"{place} {seen}",
                hint="Give an empty folder. Recoup never overwrites what it has not put there itself.",
            )


def _claim(place: Path, destinations: Destinations, owner: tuple[int, int] | None, locks: contextlib.ExitStack) -> bool:
    """Make the folder, lock it by its marker, and clear away our own unfinished restore. Return whether one was."""
    with writing_in(place):
        _make_folder(place, owner)
        marker = place / MARKER
        ours = marker.exists()
        handle = locks.enter_context(_locked(marker))
        if ours:
            for entry in os.scandir(place):
                if entry.name in (MARKER, "lost+found"):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()
        elif describe_folder(place).entries != 1:
            raise BusyError(f"something else is writing into {place}")
        os.ftruncate(handle, 0)
        os.pwrite(handle, _marker_text(destinations), 0)
        os.fsync(handle)
        sync_folder(place)
        sync_folder(place.parent)
        place.chmod(0o700)
    return ours


def _owner_of(folder: Path) -> tuple[int, int] | None:
    if os.geteuid() != 0 or not folder.is_dir():
        return None
    seen = folder.stat()
    return None if seen.st_uid == 0 else (seen.st_uid, seen.st_gid)


def _make_folder(place: Path, owner: tuple[int, int] | None) -> None:
    missing = []
    at = place
    while not at.exists():
        missing.append(at)
        at = at.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, *owner)
    if owner is not None:
        os.chown(place, *owner)


@contextlib.contextmanager
def _locked(marker: Path) -> Iterator[int]:
    handle = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another restore is writing into {marker.parent}", hint="Wait for it, or end it, then try again."
            ) from None
        yield handle
    finally:
        os.close(handle)


def _marker_text(destinations: Destinations) -> bytes:
    said = {
        "recoup_restore": 1,
        "state": "unfinished",
        "meaning": "Recoup has not finished restoring this folder. The same recoup command starts over.",
        "folder": str(destinations.folder),
        "tablespaces": {str(oid): str(place) for oid, place in destinations.tablespaces.items()},
    }
    return json.dumps(said, indent=1).encode() + b"\n"


def _require_space(archives: list[Archive], destinations: Destinations) -> None:
    """Raise ``EngineError`` when the disks have less room than the files need."""
    needed: dict[int, tuple[int, Path]] = {}
    for archive in archives:
        place = _existing(destinations.of(archive.name))
        device = place.stat().st_dev
        needed[device] = (needed.get(device, (0, place))[0] + archive.total_bytes, place)
    for size, place in needed.values():
        room = os.statvfs(place)
        free = (room.f_bfree if os.geteuid() == 0 else room.f_bavail) * room.f_frsize
        if free < size:
            raise EngineError(
                f"not enough room at {place}: the copy needs {show_size(size)}, {show_size(free)} are free",
                hint="Free some space, or restore to another disk.",
            )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


# -- the bytes ---------------------------------------------------------------------------------------------------


def _place_all(
    reader: CopyReader,
    archives: list[Archive],
    destinations: Destinations,
    owner: tuple[int, int] | None,
    workers: int,
    report: Callable[[int], None],
) -> None:
    has_control = False
    # The data folder first: a tablespace inside it needs pg_tblspc.
    for archive in sorted(archives, key=lambda archive: archive.name != BASE_ARCHIVE):
        root = destinations.of(archive.name)
        if archive.name == BASE_ARCHIVE:
            has_control = CONTROL_FILE in archive.paths
        elif destinations.folder in root.parents:
            _make_folder(root, owner)
        placer = FilePlacer(archive, root, owner=owner, rename=_name_while_unfinished)
        placer.make_folders()
        _write_all(reader, archive.name, placer, workers, report)
    if not has_control:
        raise DamageError(f"{BASE_ARCHIVE} has no {CONTROL_FILE}")
    with writing_in(destinations.folder):
        _link_tablespaces(destinations, owner)
        _place_manifest(reader, destinations.folder, owner)
        place_missing_settings(destinations.folder, reader.facts, owner)
        _match_group_access(destinations)


def _write_all(
    reader: CopyReader, stream: str, placer: FilePlacer, workers: int, report: Callable[[int], None]
) -> None:
    def write(start: int, data: bytes) -> None:
        placer.write(start, data)
        report(len(data))

    reader.each_frame(stream, write, workers)
    placer.require_whole()


def _name_while_unfinished(path: str) -> str:
    return _CONTROL_UNFINISHED if path == CONTROL_FILE else path


def _link_tablespaces(destinations: Destinations, owner: tuple[int, int] | None) -> None:
    """Point ``pg_tblspc`` and ``tablespace_map`` to the new places; the server would follow the old ones."""
    text = tablespace_map_text(destinations).encode("utf-8", "surrogateescape")
    path = destinations.folder / TABLESPACE_MAP
    # Without tablespaces the file is there and empty; left as it is, it matches the server's manifest.
    if text or (path.exists() and path.stat().st_size):
        _write_small(path, text, owner)
    for oid, place in destinations.tablespaces.items():
        if destinations.folder not in place.parents:
            link = destinations.folder / "pg_tblspc" / str(oid)
            link.symlink_to(place)
            if owner is not None:
                os.chown(link, *owner, follow_symlinks=False)


def _place_manifest(reader: CopyReader, folder: Path, owner: tuple[int, int] | None) -> None:
    """The server's own manifest goes beside the data, where ``pg_verifybackup`` looks for it."""
    if MANIFEST_STREAM not in {info.name for info in reader.streams()}:
        return
    path = folder / MANIFEST_STREAM
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as out:
        out.writelines(reader.read(MANIFEST_STREAM))
    if owner is not None:
        os.chown(path, *owner)


def _write_small(path: Path, data: bytes, owner: tuple[int, int] | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as out:
        out.write(data)
        if owner is not None:
            os.fchown(handle, *owner)


def _match_group_access(destinations: Destinations) -> None:
    """A cluster made with ``initdb --allow-group-access`` has 0750 folders; only the top is not in the archive."""
    version = destinations.folder / "PG_VERSION"
    if version.exists() and version.stat().st_mode & 0o040:
        for place in (destinations.folder, *destinations.tablespaces.values()):
            place.chmod(0o750)


# -- after the last byte -----------------------------------------------------------------------------------------


def _finish(destinations: Destinations, *, started_over: bool, plain_bytes: int) -> PlacedFolder:
    """Take the markers away, the data folder's last, and say what is there."""
    identifier = _control_identifier(destinations.folder / CONTROL_FILE)
    for place in (*destinations.tablespaces.values(), destinations.folder):
        with writing_in(place):
            (place / MARKER).unlink(missing_ok=True)
            sync_folder(place)
    return PlacedFolder(
        folder=destinations.folder,
        tablespaces=dict(destinations.tablespaces),
        system_identifier=identifier,
        plain_bytes=plain_bytes,
        started_over=started_over,
    )


def _control_identifier(path: Path) -> str:
    with writing_in(path):
        return parse_control(path.read_bytes()).system_identifier


def _require_same(identifier: str, facts: Mapping[str, Any]) -> None:
    expected = facts.get("system_identifier")
    if expected is not None and identifier != expected:
        raise DamageError(f"the copy says it is of cluster {expected}, and its pg_control of {identifier}")
