"""The grade *intact* of a base backup: is the content what the server said it sent, and could it start?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recoup.engines.engine import Content, CopyReader
from recoup.engines.postgres.backup_manifest import BackupManifest, ManifestFile, new_summer, parse_manifest
from recoup.engines.postgres.control import CONTROL_FILE, parse_control
from recoup.engines.postgres.earlier import read_manifest
from recoup.engines.postgres.incremental import check_label
from recoup.engines.postgres.lsn import Lsn, segment_name, segments_between
from recoup.engines.postgres.placement import tablespace_oid
from recoup.engines.postgres.stream_names import MANIFEST_STREAM
from recoup.engines.postgres.tar_walk import TarEntry, TarWalk
from recoup.engines.postgres.wal_pages import WalSegmentCheck
from recoup.engines.postgres.zero_pages import ZeroPages
from recoup.kernel.errors import DamageError, RecoupError, UnknownFormatError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_size

_MOST_NAMED = 20
_MAIN_FORK = re.compile(r"(?:global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(?:\.\d+)?")
_SEGMENT_PATH = re.compile(r"pg_wal/([0-9A-F]{24})")
_HINT = "Restore from another copy or an earlier backup, and take a new backup now."
_NOT_CHECKED = "whether the pages make sense to PostgreSQL; a restored copy that is started shows that"


@dataclass(slots=True)
class _Seen:
    """What was met while reading the archives."""

    wrong: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    index: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0
    control: bytes = b""
    wal: dict[str, WalSegmentCheck] = field(default_factory=dict)
    zeros: ZeroPages = field(default_factory=ZeroPages)


def check_base_copy(reader: CopyReader) -> list[Finding]:
    """Read the whole copy once and compare it with the server's own manifest, its WAL and its ``pg_control``.

    Damage is a finding, not an error: every archive is looked at, whatever was found before. Memory does not grow
    with the data (about 300 bytes for each file of the cluster).
    """
    try:
        manifest = parse_manifest(read_manifest(reader))
    except (DamageError, UnknownFormatError) as failure:
        verdict = Verdict.FAILED if isinstance(failure, DamageError) else Verdict.UNKNOWN
        return [
            Finding(
                check="the server's manifest is whole", subject=MANIFEST_STREAM, verdict=verdict,
                detail=failure.message, hint=_HINT,
            )
        ]  # fmt: skip
    seen = _Seen()
    wanted = dict(manifest.files)
    for info in reader.streams():
        if info.content is Content.TAR:
            try:
                _read_archive(reader, info.name, wanted, manifest, seen)
            except DamageError as damage:
                seen.damage.append(damage.message)
    if not seen.damage:
        seen.missing = sorted(wanted)
    return list(_findings(reader, manifest, seen))


def _read_archive(
    reader: CopyReader, name: str, wanted: dict[str, ManifestFile], manifest: BackupManifest, seen: _Seen
) -> None:
    oid = tablespace_oid(name)
    prefix = "" if oid is None else f"pg_tblspc/{oid}/"
    walk = TarWalk(reader.read(name), name)
    members = reader.members(name)
    for entry in walk:
        indexed = next(members, None)
        if indexed is None or (indexed.path.rstrip("/"), indexed.kind, indexed.size_bytes, indexed.offset) != (
            entry.path.rstrip("/"), entry.kind, entry.size_bytes, entry.offset,
        ):  # fmt: skip
            seen.index.append(f"{name}: {entry.path}")
        if entry.kind != "file" or entry.path == MANIFEST_STREAM:
            continue
        path = prefix + entry.path
        expected = wanted.pop(path, None)
        if segment := _SEGMENT_PATH.fullmatch(path):
            # The server adds the WAL segments after its manifest is complete: their own page headers must vouch.
            check = seen.wal[segment[1]] = WalSegmentCheck(
                segment[1], entry.size_bytes, reader.facts, manifest.wal_ranges
            )
            for data in walk.data():
                check.take(data)
        elif expected is None:
            seen.extra.append(path)
        else:
            _read_file(walk, entry, path, expected, int(reader.facts.get("block_bytes", 8192)), seen)
    if next(members, None) is not None:
        seen.index.append(f"{name}: the index lists members that the archive does not hold")


def _read_file(
    walk: TarWalk,
    entry: TarEntry,
    path: str,
    expected: ManifestFile,
    block_bytes: int,
    seen: _Seen,
) -> None:
    summer = new_summer(expected.kind)
    look = seen.zeros.file(path, block_bytes) if _MAIN_FORK.fullmatch(path) else None
    for data in walk.data():
        summer.update(data)
        if look is not None:
            look(data)
        elif path == CONTROL_FILE:
            seen.control += data[: 8192 - len(seen.control)]
    seen.files += 1
    seen.size_bytes += entry.size_bytes
    if entry.size_bytes != expected.size_bytes:
        seen.wrong.append(f"{path} has {entry.size_bytes} bytes instead of {expected.size_bytes}")
    elif summer.hexdigest() != expected.checksum:
        seen.wrong.append(f"{path} does not match its {expected.kind}")


# -- what it comes to --------------------------------------------------------------------------------------------


def _findings(reader: CopyReader, manifest: BackupManifest, seen: _Seen) -> Iterator[Finding]:
    kinds = sorted({file.kind.value for file in manifest.files.values()})
    yield _finding(
        "the archives can be read to their end", "tar streams", seen.damage, f"{show_size(seen.size_bytes)} of data"
    )
    yield _finding(
        "every file is what the server sent", MANIFEST_STREAM, seen.wrong,
        f"{seen.files} files, {show_size(seen.size_bytes)}, {'/'.join(kinds)}",
        not_checked=_NOT_CHECKED, left_to="sound",
    )  # fmt: skip
    faults = [f"missing: {path}" for path in seen.missing] + [f"not sent by the server: {path}" for path in seen.extra]
    yield _finding(
        "no file is missing and none was added", MANIFEST_STREAM, faults, f"{len(manifest.files)} files listed"
    )
    yield _finding("the index beside each archive agrees with it", "index", seen.index, "")
    yield _control_finding(seen, manifest, reader.facts)
    yield check_label(reader)
    yield _wal_finding(seen, manifest, reader.facts)
    yield Finding(
        check="all-zero pages were counted", subject="tables and indexes", verdict=Verdict.OK, detail=seen.zeros.text(),
        not_checked="whether a zero page was meant to be one; page checksums cannot tell", left_to="sound",
    )  # fmt: skip


def _finding(
    check: str, subject: str, faults: list[str], good: str, *, not_checked: str = "", left_to: str = ""
) -> Finding:
    if not faults:
        return Finding(
            check=check, subject=subject, verdict=Verdict.OK, detail=good, not_checked=not_checked, left_to=left_to
        )
    more = len(faults) - _MOST_NAMED
    detail = "; ".join(faults[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
    return Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail=detail, hint=_HINT)


def _control_finding(seen: _Seen, manifest: BackupManifest, facts: Mapping[str, Any]) -> Finding:
    faults: list[str] = []
    good = ""
    try:
        control = parse_control(seen.control)
    except RecoupError as failure:
        faults.append(failure.message)
    else:
        good = f"cluster {control.system_identifier}, control version {control.control_version}"
        for what, claimed in (("the facts say", facts.get("system_identifier")),
                              ("the server's manifest says", manifest.system_identifier)):  # fmt: skip
            if claimed is not None and str(claimed) != control.system_identifier:
                faults.append(f"it is of cluster {control.system_identifier}, and {what} {claimed}")
        if (major := facts.get("major")) is not None and major not in control.majors:
            faults.append(f"its version {control.control_version} is not PostgreSQL {major}'s")
        if (size := facts.get("wal_segment_bytes")) is not None and size != control.wal_segment_bytes:
            faults.append(f"its WAL segments have {control.wal_segment_bytes} bytes, and the facts say {size}")
    return _finding("pg_control is whole and of the right cluster", CONTROL_FILE, faults, good)


def _wal_finding(seen: _Seen, manifest: BackupManifest, facts: Mapping[str, Any]) -> Finding:
    check = "the WAL that a start needs is there"
    if not facts.get("includes_wal", True):
        return Finding(
            check=check, subject="pg_wal", verdict=Verdict.UNKNOWN, detail="the copy was taken without WAL",
            hint="Check the WAL archive from the copy's begin to its end position.",
        )  # fmt: skip
    size = int(facts.get("wal_segment_bytes", 16 << 20))
    faults: list[str] = []
    for needed in manifest.wal_ranges:
        for number in segments_between(needed.start, needed.end, size):
            name = segment_name(needed.timeline, number, size)
            segment = seen.wal.get(name)
            if segment is None:
                faults.append(f"segment {name} is missing")
            else:
                faults += segment.faults()
    begin, end = facts.get("begin_lsn"), facts.get("end_lsn")
    ends = [needed.end for needed in manifest.wal_ranges]
    if end is not None and (not ends or max(ends) < Lsn.parse(end)):
        faults.append(f"the server's manifest asks for less WAL than the copy's end at {end}")
    return _finding(
        check, "pg_wal", faults, f"{len(seen.wal)} segments, {begin} to {end}",
        not_checked="the records inside the pages; a server checks them when it replays them", left_to="boots",
    )  # fmt: skip
