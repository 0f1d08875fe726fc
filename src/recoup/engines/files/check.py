"""Checking a copy of files without writing anything: is it whole, and is it what it says."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

from recoup.engines.engine import CopyReader
from recoup.engines.files.copy import (
    BUNDLE,
    FILES_SUMS,
    FILES_TAR,
    IMAGES,
    PATCH,
    UNTRACKED_SUMS,
    UNTRACKED_TAR,
)
from recoup.engines.files.sums import read_sums, sum_line
from recoup.kernel.errors import DamageError
from recoup.kernel.finding import Finding, Verdict

_PIECE_BYTES = 1 << 20


class Pieces(io.RawIOBase):
    """An iterator of bytes as a readable file, for ``tarfile``."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill what can be filled from one piece; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def read_tar(reader: CopyReader, stream: str) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """The members of a tar stream with their data, in order. Raise ``DamageError`` for bytes that are no whole tar."""
    source = io.BufferedReader(Pieces(reader.read(stream)), _PIECE_BYTES)
    try:
        # A non-seekable reader: one pass, and nothing but the present member in memory.
        with tarfile.open(fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                # tarfile keeps a list of all members it has seen; a copy may have millions.
                tar.members = []  # type: ignore[attr-defined]
                yield member, _data(tar, member)
    except (tarfile.TarError, EOFError, ValueError) as damage:
        raise DamageError(f"{stream} is not a whole tar stream: {damage}") from damage


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    if not member.isreg():
        return
    handle = tar.extractfile(member)
    assert handle is not None
    try:
        while piece := handle.read(_PIECE_BYTES):
            yield piece
    except (tarfile.TarError, EOFError) as damage:
        raise DamageError(f"{member.name} is cut off in the tar stream: {damage}") from damage


def check_files_copy(reader: CopyReader) -> list[Finding]:
    """Read a whole copy and compare it with its own digests, its fingerprint and what was noted when it was made."""
    names = {stream.name for stream in reader.streams()}
    findings = [*_check_tar(reader, names, FILES_TAR, FILES_SUMS, reader.fingerprint)]
    git = reader.facts.get("git")
    if git is not None:
        findings += _check_tar(reader, names, UNTRACKED_TAR, UNTRACKED_SUMS, git.get("untracked"))
        if git.get("bundled"):
            findings.append(_check_bundle(reader, git.get("commit") or ""))
            findings.append(_check_patch(reader))
    if IMAGES in names:
        findings.append(_check_images(reader))
    findings.append(_check_held_still(reader))
    return findings


def _check_tar(reader: CopyReader, names: set[str], tar: str, sums: str, fingerprint: Any) -> Iterator[Finding]:
    check = "every file has the digest it had when it was copied"
    missing = [name for name in (tar, sums) if name not in names]
    if missing:
        yield _failed(check, tar, f"the copy has no stream {' and no stream '.join(missing)}")
        return
    digest, files, file_bytes = hashlib.sha256(), 0, 0
    known: dict[str, str] = {}  # the digests of files that hard links name
    try:
        linked = {member.link for member in reader.members(tar) if member.kind == "hardlink"}
        listed = read_sums(reader.read(sums), sums)
        for member, data in read_tar(reader, tar):
            if not (member.isreg() or member.islnk()):
                continue
            actual = hashlib.sha256()
            for piece in data:
                actual.update(piece)
            path, expected = next(listed, ("", ""))
            found = known.get(member.linkname, "") if member.islnk() else actual.hexdigest()
            if path != member.name or found != expected:
                yield _failed(check, tar, f"{member.name} does not match its line in {sums}")
                return
            if path in linked:
                known[path] = expected
            digest.update(sum_line(path, expected))
            files += 1
            file_bytes += member.size if member.isreg() else 0
        if next(listed, None) is not None:
            yield _failed(check, tar, f"{sums} lists files that {tar} does not hold")
            return
    except DamageError as damage:
        yield _failed(check, tar, damage.message)
        return
    seen = {"files": files, "bytes": file_bytes, "digest": digest.hexdigest()}
    expected_values = {key: (fingerprint or {}).get(key) for key in seen}
    if seen != expected_values:
        yield _failed("the files are those that were copied", tar, f"noted {expected_values}, found {seen}")
        return
    yield Finding(check=check, subject=tar, verdict=Verdict.OK, detail=f"{files} files, {file_bytes} bytes")


def _check_bundle(reader: CopyReader, commit: str) -> Finding:
    """The checks of ``git bundle verify`` that need no repository, and the digest at the end of the pack.

    Format: gitformat-bundle(5), gitformat-pack(5).
    """
    check = "the Git bundle is whole and stands on its own"
    try:
        refs = _read_bundle(reader)
    except DamageError as damage:
        return _failed(check, BUNDLE, damage.message)
    if commit not in refs:
        return _failed(check, BUNDLE, f"the commit {commit} is none of its refs")
    return Finding(
        check=check,
        subject=BUNDLE,
        verdict=Verdict.OK,
        detail=f"{len(refs)} commits are named",
        not_checked="the objects inside the pack, which git checks when it is cloned",
        left_to="sound",
    )


def _read_bundle(reader: CopyReader) -> set[str]:
    source = io.BufferedReader(Pieces(reader.read(BUNDLE)), _PIECE_BYTES)
    if source.readline(64) not in (b"# v2 git bundle\n", b"# v3 git bundle\n"):
        raise DamageError("it does not begin as a Git bundle does")
    refs: set[str] = set()
    algorithm = "sha1"
    while (line := source.readline(65536)) != b"\n":
        if not line.endswith(b"\n"):
            raise DamageError("its list of refs is cut off")
        if line.startswith(b"-"):
            raise DamageError("it needs commits that it does not hold")
        if line.startswith(b"@"):
            if line.strip() == b"@object-format=sha256":
                algorithm = "sha256"
            continue
        refs.add(line.partition(b" ")[0].decode("ascii", "replace"))
    digest = hashlib.new(algorithm, usedforsecurity=False)
    head = source.read(12)
    if head[:4] != b"PACK":
        raise DamageError("it has no pack")
    digest.update(head)
    # The last bytes are the digest itself.
    held = b""
    while piece := source.read(_PIECE_BYTES):
        held += piece
        digest.update(held[: -digest.digest_size])
        held = held[-digest.digest_size :]
    if held != digest.digest():
        raise DamageError("its pack does not match the digest at its end")
    return refs


def _check_patch(reader: CopyReader) -> Finding:
    check = "the uncommitted changes are a patch"
    begin = b"".join(_first(reader.read(PATCH), 16))
    if begin and not begin.startswith(b"diff --git "):
        return _failed(check, PATCH, "it does not begin as a patch does")
    size = reader.facts["git"].get("patch_bytes")
    actual = next(stream.plain_bytes for stream in reader.streams() if stream.name == PATCH)
    if size != actual:
        return _failed(check, PATCH, f"noted {size} bytes, found {actual}")
    return Finding(check=check, subject=PATCH, verdict=Verdict.OK, detail=f"{actual} bytes")


def _check_images(reader: CopyReader) -> Finding:
    check = "the images of the services are listed"
    try:
        found = json.loads(b"".join(reader.read(IMAGES)))
    except ValueError as damage:
        return _failed(check, IMAGES, f"it is not JSON: {damage}")
    return Finding(check=check, subject=IMAGES, verdict=Verdict.OK, detail=f"{len(found)} images")


def _check_held_still(reader: CopyReader) -> Finding:
    check = "the files held still while they were copied"
    changed, grew = reader.facts.get("changed") or [], reader.facts.get("grew") or []
    if changed:
        return Finding(
            check=check,
            subject=FILES_TAR,
            verdict=Verdict.UNKNOWN,
            detail=f"changed meanwhile: {', '.join(changed[:5])}" + (" …" if len(changed) > 5 else ""),
            hint="Copy them while nothing writes them, or exclude them and back them up by their own program.",
        )
    detail = f"{len(grew)} grew, and are in the copy as long as they were when it began" if grew else ""
    return Finding(check=check, subject=FILES_TAR, verdict=Verdict.OK, detail=detail)


def _first(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def _failed(check: str, subject: str, detail: str) -> Finding:
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.FAILED,
        detail=detail,
        hint="Use another copy, and take a new one now.",
    )
