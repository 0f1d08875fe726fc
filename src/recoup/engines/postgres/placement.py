"""Where each member of a base backup's archives goes in a folder, and which members are refused. Decisions only.

The archives come from the production server, and a server that was broken into may send anything: no path may leave
the folder, no link may be followed, and nothing may pretend to be Recoup's own files.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recoup.engines.engine import Member
from recoup.engines.postgres.control import CONTROL_FILE
from recoup.engines.postgres.identity import MARKER
from recoup.engines.postgres.stream_names import BASE_ARCHIVE
from recoup.kernel.errors import DamageError, RefusedError

TABLESPACE_MAP = "tablespace_map"
_TABLESPACE_ARCHIVE = re.compile(r"([1-9]\d{0,9})\.tar")
_TABLESPACE_LINK = re.compile(r"pg_tblspc/([1-9]\d{0,9})")
_IN_TABLESPACE = re.compile(r"pg_tblspc/[1-9]\d{0,9}/")
#: A copy of a standby would follow the production's primary again as soon as it started. Left out of a restore.
LEFT_OUT = frozenset({"standby.signal", "recovery.signal"})
_FORBIDDEN_TOP = frozenset({MARKER, "postmaster.pid", "postmaster.opts"})


@dataclass(slots=True, kw_only=True)
class Archive:
    """The members of one archive, ordered by where their data lie in the stream."""

    name: str
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    directories: list[tuple[str, int]] = field(default_factory=list)

    def overlapping(self, start: int, end: int) -> Iterator[int]:
        """The files that have data in the stream's bytes ``[start, end)``, by number."""
        number = max(bisect.bisect_right(self.offsets, start) - 1, 0)
        while number < len(self.offsets) and self.offsets[number] < end:
            if self.sizes[number] and self.offsets[number] + self.sizes[number] > start:
                yield number
            number += 1

    @property
    def total_bytes(self) -> int:
        """What the files need on a disk with blocks of 4 KiB."""
        return sum((size + 4095) // 4096 * 4096 for size in self.sizes)


def tablespace_oid(stream: str) -> int | None:
    """The tablespace an archive holds: None for the data folder's own. Raise ``DamageError`` for another name."""
    if stream == BASE_ARCHIVE:
        return None
    match = _TABLESPACE_ARCHIVE.fullmatch(stream)
    if match is None:
        raise DamageError(f"the copy holds a tar stream that no base backup has: {stream!r}")
    return int(match[1])


def lay_out(name: str, members: Iterable[Member]) -> Archive:
    """Sort an archive's members. Raise ``RefusedError`` for a member that no server sends in good faith."""
    archive = Archive(name=name)
    base = name == BASE_ARCHIVE
    seen: set[str] = set()
    last_end = 0
    for member in members:
        path = checked_path(name, member.path)
        if path in seen:
            raise _hostile(name, member.path, "it occurs twice")
        seen.add(path)
        if base and (path in _FORBIDDEN_TOP or _IN_TABLESPACE.match(path)):
            raise _hostile(name, member.path, "nothing of that name belongs into the archive of the data folder")
        if base and path in LEFT_OUT:
            continue
        if member.kind == "directory":
            archive.directories.append((path, member.mode & 0o777))
        elif member.kind == "file":
            if member.offset < last_end or member.size_bytes < 0:
                raise _hostile(name, member.path, "its data overlap another member's")
            last_end = member.offset + member.size_bytes
            archive.offsets.append(member.offset)
            archive.sizes.append(member.size_bytes)
            archive.paths.append(path)
            archive.modes.append(member.mode & 0o777)
        elif not (base and member.kind == "symlink" and _TABLESPACE_LINK.fullmatch(path)):
            # Links of tablespaces are made anew from the mapping; PostgreSQL sends no others.
            raise _hostile(name, member.path, f"it is a {member.kind}")
    not_folders = seen - {path for path, _ in archive.directories}
    for path in seen:
        for at, letter in enumerate(path):
            if letter == "/" and path[:at] in not_folders:
                raise _hostile(name, path, f"{path[:at]} is not a folder")
    return archive


def checked_path(archive: str, path: str) -> str:
    """A member's path without ``./`` and a final ``/``. Raise ``RefusedError`` when it could leave the folder."""
    plain = path.removeprefix("./").rstrip("/")
    if not plain or path.startswith("/") or "\0" in path or len(path) > 4096:
        raise _hostile(archive, path, "it is not a relative path")
    if any(part in ("", ".", "..") for part in plain.split("/")):
        raise _hostile(archive, path, "it leads out of the folder")
    return plain


def _hostile(archive: str, path: str, why: str) -> RefusedError:
    return RefusedError(
        f"{archive} holds the member {path!r}, which is refused: {why}",
        hint="No PostgreSQL server writes this. Treat the server that was backed up as broken into.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """Where the archives go: the data folder, and a folder for each tablespace."""

    folder: Path
    tablespaces: Mapping[int, Path]

    def of(self, stream: str) -> Path:
        """The folder of an archive."""
        oid = tablespace_oid(stream)
        return self.folder if oid is None else self.tablespaces[oid]


def choose_destinations(
    folder: Path, streams: Iterable[str], locations: Mapping[int, str], chosen: Mapping[int, Path] | None
) -> Destinations:
    """Give every tablespace a folder: the chosen one, else ``<folder>-tablespaces/<oid>``; never its original path.

    ``locations`` are the original paths. A tablespace that lay inside the data folder (developers' option
    ``allow_in_place_tablespaces``) stays inside. Raise ``RefusedError`` for folders that lie in each other, or for a
    chosen tablespace that the copy does not have.
    """
    folder = folder.absolute()
    oids = {oid for stream in streams if (oid := tablespace_oid(stream)) is not None}
    if unknown := sorted(set(chosen or {}) - oids):
        raise RefusedError(
            f"the copy has no tablespace {unknown[0]}",
            hint=f"It has: {', '.join(map(str, sorted(oids))) or 'none'}.",
        )
    places: dict[int, Path] = {}
    for oid in sorted(oids):
        if locations.get(oid, "").startswith("pg_tblspc/"):
            places[oid] = folder / "pg_tblspc" / str(oid)
            continue
        place = (chosen or {}).get(oid, folder.parent / f"{folder.name}-tablespaces" / str(oid)).absolute()
        others = [folder, *places.values()]
        if any(place == other or other in place.parents or place in other.parents for other in others):
            raise RefusedError(f"tablespace {oid} cannot go to {place}: folders must not lie in each other")
        if "\n" in str(place) or "\r" in str(place):
            raise RefusedError(f"tablespace {oid} cannot go to a path with a line break")
        places[oid] = place
    return Destinations(folder=folder, tablespaces=places)


def tablespace_map_text(destinations: Destinations) -> str:
    """``tablespace_map`` for these destinations: the server makes its links from it when it first starts.

    A backslash and line breaks are escaped with a backslash (src/backend/access/transam/xlogrecovery.c).
    """
    outside = {
        oid: place for oid, place in destinations.tablespaces.items() if destinations.folder not in place.parents
    }
    return "".join(f"{oid} {str(place).replace(chr(92), chr(92) * 2)}\n" for oid, place in sorted(outside.items()))


__all__ = ["CONTROL_FILE", "TABLESPACE_MAP", "Archive", "Destinations", "choose_destinations", "lay_out",
           "tablespace_map_text", "tablespace_oid"]  # fmt: skip
