"""A copy of files held in memory, and what tests do with it."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recoup.engines.engine import CopyFacts, Member
from recoup.engines.files.copy import take_files
from tests.integration.held_copy import HeldCopy

_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}


class HeldFiles(HeldCopy):
    """As ``HeldCopy``, with the members that a repository's index would give. The index is made with the copy."""

    def complete(self, facts: CopyFacts) -> HeldFiles:
        super().complete(facts)
        self._members = {name: list(self._scan(name)) for name in self.data if name.endswith(".tar")}
        return self

    def members(self, name: str) -> Iterator[Member]:
        yield from self._members[name]

    def _scan(self, name: str) -> Iterator[Member]:
        with tarfile.open(fileobj=io.BytesIO(self.data[name]), errors="surrogateescape", encoding="utf-8") as tar:
            for entry in tar:
                yield Member(
                    path=entry.name,
                    kind=_KINDS.get(entry.type, "other"),
                    size_bytes=entry.size,
                    mode=entry.mode,
                    uid=entry.uid,
                    gid=entry.gid,
                    mtime=float(entry.mtime),
                    offset=entry.offset_data,
                    link=entry.linkname,
                )


def copied(paths: list[str], base: Path, **options: Any) -> HeldFiles:
    """A copy of paths below a folder."""
    held = HeldFiles()
    return held.complete(take_files(paths, base, held, **options))


def tree_of(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder that a copy promises to keep: kind, mode, owner, time, content or target."""
    seen: dict[str, tuple[Any, ...]] = {}
    for place, names, files in os.walk(os.fsencode(folder)):
        for name in sorted([*names, *files]):
            path = os.path.join(place, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content: object = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    content = (file.read(), info.st_nlink)
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            relative = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            seen[relative] = (kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, content)
    return seen


def contents(folder: Path) -> dict[str, bytes]:
    """The regular files below a folder, without those of a ``.git``."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and ".git" not in path.relative_to(folder).parts
    }
