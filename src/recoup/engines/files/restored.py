"""A restored folder beside the copy it came from: its content against the fingerprint, its metadata, its links.

Everything is read from the disk again, in the order of the copy's tar, without following a link.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recoup.engines.engine import CopyReader, Member
from recoup.engines.files.copy import FILES_TAR
from recoup.engines.files.place import Target
from recoup.engines.files.restore import differences
from recoup.engines.files.sums import sum_line
from recoup.kernel.finding import Finding, Verdict

_MOST_NAMED = 10
_SPECIAL = 0o6000
_MTIME_SECONDS = 0.001  # a member's time is a float
_KINDS = {"file": stat.S_IFREG, "hardlink": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
_ANOTHER = "Use another copy, and take a new one now."


@dataclass(slots=True, kw_only=True)
class OnDisk:
    """What a restored folder holds of a copy's declared paths. The first six are as in its fingerprint."""

    files: int = 0
    bytes: int = 0
    folders: int = 0
    links: int = 0
    digest: str = ""
    structure: str = ""
    missing: list[str] = field(default_factory=list)
    other_metadata: list[str] = field(default_factory=list)
    special: int = 0  #: files whose setuid or setgid bit a restore leaves out
    leading_out: list[str] = field(default_factory=list)  #: links whose target is not below the folder

    def fingerprint(self) -> dict[str, Any]:
        """As ``copy.take_files`` makes it."""
        return {name: getattr(self, name) for name in ("files", "bytes", "folders", "links", "digest", "structure")}


def read_restored(reader: CopyReader, folder: Path) -> OnDisk:
    """Read every declared path of a copy from ``folder`` again. Raise ``EngineError`` for what cannot be read."""
    target = Target(folder, folder, own=False, special=False)
    seen = OnDisk()
    digest, structure = hashlib.sha256(), hashlib.sha256()
    try:
        for member in reader.members(FILES_TAR):
            path = member.path.rstrip("/")
            info = target.look(path)
            if info is None or stat.S_IFMT(info.st_mode) != _KINDS.get(member.kind):
                seen.missing.append(path)
            elif member.kind == "directory":
                seen.folders += 1
                structure.update(b"D\0" + os.fsencode(path) + b"\0")
            elif member.kind == "symlink":
                link = target.link_target(path) or ""
                seen.links += 1
                structure.update(b"L\0" + os.fsencode(path) + b"\0" + os.fsencode(link) + b"\0")
                if _leads_out(path, link):
                    seen.leading_out.append(f"{path} → {link}")
            else:
                seen.files += 1
                seen.bytes += info.st_size if member.kind == "file" else 0
                digest.update(sum_line(path, target.digest(path) or ""))
            if info is not None:
                _compare_metadata(seen, path, member, info)
    finally:
        target.close()
    seen.digest, seen.structure = digest.hexdigest(), structure.hexdigest()
    return seen


def _compare_metadata(seen: OnDisk, path: str, member: Member, info: os.stat_result) -> None:
    expected, actual = stat.S_IMODE(member.mode), stat.S_IMODE(info.st_mode)
    if member.kind == "file" and expected & _SPECIAL:
        seen.special += 1
    wrong = []
    if member.kind != "symlink" and expected & ~_SPECIAL != actual & ~_SPECIAL:
        wrong.append(f"mode {actual:o} instead of {expected:o}")
    if os.geteuid() == 0 and (member.uid, member.gid) != (info.st_uid, info.st_gid):
        wrong.append(f"owner {info.st_uid}:{info.st_gid} instead of {member.uid}:{member.gid}")
    if abs(member.mtime - info.st_mtime) > _MTIME_SECONDS:
        wrong.append("another time")
    if wrong:
        seen.other_metadata.append(f"{path}: {', '.join(wrong)}")


def _leads_out(path: str, link: str) -> bool:
    if link.startswith("/"):
        return True
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link)).split("/")[0] == ".."


def compare_restored(reader: CopyReader, folder: Path, seen: OnDisk) -> Iterator[Finding]:
    """What is on the disk against the fingerprint that was recorded, and against what the copy says of each path."""
    yield _content(reader.fingerprint, seen)
    yield _metadata(seen)
    if reader.facts.get("git") is not None:
        different = differences(reader, folder)
        check = "every file that Git does not track has the digest it had when it was copied"
        yield _judged(check, different, f"{len(different)} differ: {named(different)}", "all are equal")


def _content(recorded: Mapping[str, Any] | None, seen: OnDisk) -> Finding:
    check = "the restored files are those that were copied"
    found = seen.fingerprint()
    if recorded is None:
        hint = "Take a new copy with this version of Recoup."
        detail = "no fingerprint was recorded with this copy"
        return Finding(check=check, subject=FILES_TAR, verdict=Verdict.UNKNOWN, detail=detail, hint=hint)
    wrong = [
        f"{name}: {found[name]} instead of {recorded[name]}" for name in found if recorded.get(name) != found[name]
    ]
    wrong += [f"missing: {named(seen.missing)}"] if seen.missing else []
    return _judged(check, wrong, "; ".join(wrong), f"{seen.files} files, {seen.bytes} bytes, {seen.links} links")


def _metadata(seen: OnDisk) -> Finding:
    check = "every path has the mode, the owner and the time that it had"
    gaps = ["extended attributes and access control lists"]
    if os.geteuid() != 0:
        gaps.append("owners, which only root can set")
    if seen.special:
        gaps.append(f"the setuid and setgid bits of {seen.special} files, which a restore leaves out")
    wrong = seen.other_metadata
    good = f"{seen.files + seen.folders + seen.links} paths"
    return _judged(check, wrong, named(wrong), good, not_checked=", ".join(gaps))


def _judged(check: str, wrong: list[str], detail: str, good: str, *, not_checked: str = "") -> Finding:
    return Finding(
        check=check,
        subject=FILES_TAR,
        verdict=Verdict.FAILED if wrong else Verdict.OK,
        detail=detail if wrong else good,
        hint=_ANOTHER if wrong else None,
        not_checked=not_checked,
    )


def named(paths: list[str]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return "; ".join(paths[:_MOST_NAMED]) + more
