"""Filling a folder with the files of a base backup, from its frames. What makes it safe is in ``place_folder.py``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from recoup.engines.engine import CopyReader, Progress, ProgressListener
from recoup.engines.postgres.control import CONTROL_FILE
from recoup.engines.postgres.place_files import FilePlacer, writing_in
from recoup.engines.postgres.place_settings import place_missing_settings
from recoup.engines.postgres.placement import TABLESPACE_MAP, Archive, Destinations, tablespace_map_text
from recoup.engines.postgres.stream_names import BASE_ARCHIVE, MANIFEST_STREAM
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.units import show_size

#: What ``pg_control`` is called until everything else is on the disk.
CONTROL_UNFINISHED: Final = CONTROL_FILE + ".unfinished"


def require_room(needs: Iterable[tuple[Path, int]]) -> None:
    """Raise ``EngineError`` when a disk has less room than the folders on it need, in bytes. They may not exist yet."""
    needed: dict[int, tuple[int, Path]] = {}
    for place, size in needs:
        there = _existing(place)
        device = there.stat().st_dev
        needed[device] = (needed.get(device, (0, there))[0] + size, there)
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


def reporter(on_progress: ProgressListener | None, total: int) -> Callable[[int], None]:
    """Given a listener and a total in bytes, return what adds up the bytes that several threads have done.

    The listener hears of it from one thread at a time.
    """
    done = 0
    adding = threading.Lock()

    def report(size: int) -> None:
        nonlocal done
        with adding:
            done += size
            if on_progress is not None:
                on_progress(Progress(what="restore", done_bytes=done, total_bytes=total))

    return report


def make_folder(place: Path, owner: tuple[int, int] | None) -> None:
    """Make a folder and the missing ones above it, for ``owner`` alone."""
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


def fill_folder(
    reader: CopyReader,
    archives: Sequence[Archive],
    destinations: Destinations,
    owner: tuple[int, int] | None,
    workers: int,
    report: Callable[[int], None],
) -> None:
    """Write the archives of one copy, which ``lay_out`` has sorted, into folders that are there and empty.

    ``pg_control`` gets the name ``CONTROL_UNFINISHED``. Raise ``EngineError`` and ``DamageError``.
    """
    has_control = False
    # The data folder first: a tablespace inside it needs pg_tblspc.
    for archive in sorted(archives, key=lambda archive: archive.name != BASE_ARCHIVE):
        root = destinations.of(archive.name)
        if archive.name == BASE_ARCHIVE:
            has_control = CONTROL_FILE in archive.paths
        elif destinations.folder in root.parents:
            make_folder(root, owner)
        placer = FilePlacer(archive, root, owner=owner, rename=_name_while_unfinished)
        placer.make_folders()
        _write_all(reader, archive.name, placer, workers, report)
    if not has_control:
        raise DamageError(f"{BASE_ARCHIVE} has no {CONTROL_FILE}")
    with writing_in(destinations.folder):
        link_tablespaces(destinations, owner)
        _place_manifest(reader, destinations.folder, owner)
        place_missing_settings(destinations.folder, reader.facts, owner)
        match_group_access(destinations)


def _write_all(
    reader: CopyReader, stream: str, placer: FilePlacer, workers: int, report: Callable[[int], None]
) -> None:
    def write(start: int, data: bytes) -> None:
        placer.write(start, data)
        report(len(data))

    reader.each_frame(stream, write, workers)
    placer.require_whole()


def _name_while_unfinished(path: str) -> str:
    return CONTROL_UNFINISHED if path == CONTROL_FILE else path


def link_tablespaces(destinations: Destinations, owner: tuple[int, int] | None) -> None:
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


def match_group_access(destinations: Destinations) -> None:
    """A cluster made with ``initdb --allow-group-access`` has 0750 folders; only the top is not in the archive."""
    version = destinations.folder / "PG_VERSION"
    if version.exists() and version.stat().st_mode & 0o040:
        for place in (destinations.folder, *destinations.tablespaces.values()):
            place.chmod(0o750)
