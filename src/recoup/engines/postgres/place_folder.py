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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recoup.engines.engine import Content, CopyReader, ProgressListener
from recoup.engines.postgres.control import CONTROL_FILE, parse_control
from recoup.engines.postgres.fill_folder import CONTROL_UNFINISHED, fill_folder, make_folder, reporter, require_room
from recoup.engines.postgres.identity import MARKER, describe_folder
from recoup.engines.postgres.place_files import sync_file_systems, writing_in
from recoup.engines.postgres.placement import Archive, Destinations, choose_destinations, lay_out
from recoup.engines.postgres.stream_names import BASE_ARCHIVE
from recoup.kernel.errors import BusyError, DamageError, RefusedError
from recoup.kernel.files import sync_folder


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
    before_control: Callable[[Path, Mapping[int, Path]], None] | None = None,
    fill: Callable[[Destinations, tuple[int, int] | None], None] | None = None,
) -> PlacedFolder:
    """Put a base backup into ``folder``, which must not exist, be empty, or hold an unfinished restore of ours.

    ``tablespace_map`` gives a folder for a tablespace's oid; the others go to ``<folder>-tablespaces/<oid>``, never
    to where they lay on the server that was backed up. ``owner`` (uid, gid) is given to everything, which needs root;
    without it root gives everything to the owner of a folder that is there already, as an empty volume of a container.
    When this returns, everything is on the disk and ``pg_ctl -D folder start`` starts it. ``before_control`` is called
    with the folder and the tablespaces when all but ``pg_control`` is there: what it puts there is there before
    anything can start. ``fill`` puts the files there in another way: everything, with ``pg_control`` under the name
    ``CONTROL_UNFINISHED``, for the destinations and the owner that it is given.

    Raise ``RefusedError`` when a folder holds anything else or a member of the copy is hostile, ``BusyError`` when
    another restore is writing there, ``DamageError`` for a copy that is not whole, ``EngineError`` for want of space
    or rights. After an error the same call starts over.
    """
    streams = [info for info in reader.streams() if info.content is Content.TAR]
    if BASE_ARCHIVE not in {info.name for info in streams}:
        raise DamageError(f"the copy has no {BASE_ARCHIVE}")
    if fill is None and reader.facts.get("since_lsn") is not None:
        raise DamageError("the copy is incremental: it is nothing without the backups that it builds on")
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
        if fill is None:
            _require_space(archives, destinations)
            fill_folder(reader, archives, destinations, owner, workers, reporter(on_progress, total))
        else:
            fill(destinations, owner)
        _require_same(_control_identifier(destinations.folder / CONTROL_UNFINISHED), reader.facts)
        if before_control is not None:
            before_control(destinations.folder, destinations.tablespaces)
        sync_file_systems(places)
        with writing_in(destinations.folder):
            os.replace(destinations.folder / CONTROL_UNFINISHED, destinations.folder / CONTROL_FILE)
            sync_folder((destinations.folder / CONTROL_FILE).parent)
        return _finish(destinations, started_over=started_over, plain_bytes=total)


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
        make_folder(place, owner)
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
    require_room((destinations.of(archive.name), archive.total_bytes) for archive in archives)


# -- after the last byte -----------------------------------------------------------------------------------------


def unfinish(folder: Path, tablespaces: Iterable[Path]) -> None:
    """Turn a folder that this module has filled, and its tablespaces, back into an unfinished restore.

    The next call of ``restore_base_to_folder`` clears it away. The caller knows that nothing in it is of worth.
    """
    with writing_in(folder):
        for place in (folder, *tablespaces):
            os.close(os.open(place / MARKER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            sync_folder(place)
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder / CONTROL_FILE, folder / CONTROL_UNFINISHED)
            sync_folder((folder / CONTROL_FILE).parent)


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
