"""Bringing a copy of files back into a folder.

It first compares everything with what is there, and refuses before the first change when something would be replaced
that is not the same. Then it puts each file in place, whole and durable. Stopped at any instant, the same call goes
on: what is already in place is recognised by its digest.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from recoup.engines.engine import CopyReader, Member, Progress, ProgressListener
from recoup.engines.files.check import read_tar
from recoup.engines.files.copy import BUNDLE, FILES_SUMS, FILES_TAR, PATCH, UNTRACKED_SUMS, UNTRACKED_TAR
from recoup.engines.files.git import Git
from recoup.engines.files.place import Attributes, Target, parts_of
from recoup.engines.files.sums import read_sums
from recoup.kernel.clock import now
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from recoup.kernel.files import sync_folder
from recoup.kernel.ids import new_id

#: How the folder is called that keeps what a restore replaced, inside of the one that it restores into; its id follows.
ASIDE = ".recoup-replaced-"
_MOST_NAMED = 10
_NO_FOLDER = "is no folder, and one is needed there"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRestored:
    """What a restore did. ``aside`` holds what was replaced, or is None when nothing was."""

    folder: Path
    placed: int
    same: int
    replaced: tuple[str, ...]
    aside: Path | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One tar of the copy and where its members go."""

    tar: str
    sums: str
    below: str  #: a prefix with its slash, or nothing
    covered: frozenset[str] = frozenset()  #: paths that another source has, whose state counts


def restore_files(
    reader: CopyReader,
    folder: Path,
    *,
    force: bool = False,
    special_modes: bool = False,
    run_id: str | None = None,
    ours: set[str] | None = None,
    on_progress: ProgressListener | None = None,
) -> FilesRestored:
    """Restore a copy into ``folder``, which is made when it is not there.

    Raise ``RefusedError``, before anything is changed, when a file is there that differs; with ``force`` it is set
    aside into ``.recoup-replaced-<run id>`` in the folder instead. An empty folder in its place is removed. Owners are
    set when root calls it. Setuid and setgid bits are dropped, and said so, unless ``special_modes``. Raise
    ``DamageError`` when a file of the copy is not what was copied; what was placed before stays, and is whole. Its
    paths are added to ``ours``: given with another copy, these are set aside without ``force``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{ASIDE}{run_id or new_id(now())}"
    target = Target(folder, aside, own=os.geteuid() == 0, special=special_modes)
    try:
        sources = _sources(reader)
        same, conflicts = _compare(reader, target, sources)
        with _staged(reader, folder / ".recoup-restoring-git") as tree:
            checkout = {} if tree is None else _compare_tree(reader, target, tree, sources, conflicts)
            asked = {
                one: why
                for one, why in conflicts.items()
                # A container engine makes an empty folder where a file that it is to mount is missing.
                if one not in (ours or ()) and not target.is_empty_folder(one)
            }
            _decide(asked, folder, force=force)
            for path, why in conflicts.items():
                if why == _NO_FOLDER:
                    target.put_aside(path)
            placed = sum(_place_tar(reader, target, source, same, on_progress) for source in sources)
            if tree is not None:
                placed += _place_tree(target, tree, checkout)
        sync_folder(folder)
        return FilesRestored(
            folder=folder,
            placed=placed,
            same=len(same),
            replaced=tuple(target.set_aside),
            aside=aside if target.set_aside else None,
            notes=tuple(f"setuid or setgid dropped: {path}" for path in target.stripped[:_MOST_NAMED]),
        )
    finally:
        if ours is not None:
            ours.update(target.placed)
        target.close()


def differences(reader: CopyReader, folder: Path) -> list[str]:
    """The files of a copy that are missing in a folder, or differ there. Empty after a good restore."""
    target = Target(folder, folder, own=False, special=False)
    try:
        found = []
        for source in _sources(reader):
            for path, member, digest in _listed(reader, source):
                there = _is_same(target, path, member, digest)
                if not there and not (member.kind == "directory" and target.look(path) is not None):
                    found.append(path)
        return found
    finally:
        target.close()


def paths_in(reader: CopyReader) -> set[str]:
    """Where a copy puts its entries, relative to the folder; without what only its Git bundle has."""
    return {path for source in _sources(reader) for path, _, _ in _listed(reader, source)}


def _prefix(path: str) -> str:
    return "" if path == "." else path + "/"


def _sources(reader: CopyReader) -> list[_Source]:
    names = {stream.name for stream in reader.streams()}
    files = _Source(tar=FILES_TAR, sums=FILES_SUMS, below="")
    git = reader.facts.get("git")
    if git is None or UNTRACKED_TAR not in names:
        return [files]
    # A file that Git does not track can be among the declared paths as well; those are the later, declared state.
    covered = frozenset(member.path for member in reader.members(FILES_TAR) if member.kind != "directory")
    return [files, _Source(tar=UNTRACKED_TAR, sums=UNTRACKED_SUMS, below=_prefix(git["path"]), covered=covered)]


def _listed(reader: CopyReader, source: _Source) -> Iterator[tuple[str, Member, str]]:
    """Each member with its path in the target and, for files, its digest; both lists are in the same order."""
    sums = read_sums(reader.read(source.sums), source.sums)
    for member in reader.members(source.tar):
        path, digest = member.path.rstrip("/"), ""
        if member.kind in ("file", "hardlink"):
            name, digest = next(sums, ("", ""))
            if name != path:
                raise DamageError(f"{source.sums} does not list {path}, which is in {source.tar}")
        parts_of(path)
        if source.below + path not in source.covered:
            yield source.below + path, member, digest


def _is_same(target: Target, path: str, member: Member, digest: str) -> bool:
    info = target.look(path)
    if info is None:
        return False
    if member.kind == "symlink":
        return target.link_target(path) == member.link
    if member.kind == "file" and info.st_size != member.size_bytes:
        return False
    return member.kind in ("file", "hardlink") and target.digest(path) == digest


def _compare(reader: CopyReader, target: Target, sources: list[_Source]) -> tuple[set[str], dict[str, str]]:
    """What is in place already, and what is in the way (path and why)."""
    same: set[str] = set()
    conflicts: dict[str, str] = {}
    for source in sources:
        for path, member, digest in _listed(reader, source):
            obstacle = target.obstacle(path)
            info = target.look(path)
            if obstacle is not None:
                conflicts[obstacle] = _NO_FOLDER
            elif info is None:
                continue
            elif member.kind == "directory":
                if not stat.S_ISDIR(info.st_mode):
                    conflicts[path] = _NO_FOLDER
            elif _is_same(target, path, member, digest):
                same.add(path)
            else:
                conflicts[path] = "is there and differs"
    return same, conflicts


def _decide(conflicts: Mapping[str, str], folder: Path, *, force: bool) -> None:
    if not conflicts or force:
        return
    named = [f"{path} {why}" for path, why in sorted(conflicts.items())]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    raise RefusedError(
        f"{folder} holds what the restore would replace: {'; '.join(named[:_MOST_NAMED])}{more}",
        hint="Restore into an empty folder, or use --force: what is replaced is then kept beside, and nothing is lost.",
    )


@contextlib.contextmanager
def _staged(reader: CopyReader, staging: Path) -> Iterator[Path | None]:
    """A checkout of the bundle with the uncommitted changes applied, in a private folder; removed afterwards."""
    git = reader.facts.get("git")
    if git is None or not git.get("bundled"):
        yield None
        return
    shutil.rmtree(staging, ignore_errors=True)
    try:
        yield _stage(reader, staging, git)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stage(reader: CopyReader, staging: Path, git: Mapping[str, Any]) -> Path:
    tree, bundle, patch = staging / "tree", staging / "bundle", staging / "patch"
    try:
        staging.mkdir(mode=0o700)
        tree.mkdir(mode=0o755)
        for stream, file in ((BUNDLE, bundle), (PATCH, patch)):
            with open(file, "wb") as handle:
                handle.writelines(reader.read(stream))
        _check_out(tree, bundle, git)
        if patch.stat().st_size:
            Git(tree).run("apply", "--whitespace=nowarn", "--binary", str(patch))
        if os.geteuid() == 0 and git.get("owner"):
            _give(tree, *git["owner"])
    except OSError as failure:
        raise EngineError(f"cannot check out the Git repository in {staging}: {failure.strerror}") from failure
    return tree


def _check_out(tree: Path, bundle: Path, git: Mapping[str, Any]) -> None:
    commit, branch = str(git["commit"]), git.get("branch")
    repository = Git(tree)
    repository.run("init", "--quiet", "--template=")
    safe = Git(tree)
    safe.run("-c", "protocol.file.allow=always", "fetch", "--quiet", "--update-head-ok", str(bundle), "+refs/*:refs/*")
    safe.run("-c", "protocol.file.allow=always", "fetch", "--quiet", str(bundle), "HEAD")
    if safe.text("cat-file", "-t", commit) != "commit":
        raise EngineError(f"the bundle does not hold the commit {commit}")
    if branch:
        safe.run("symbolic-ref", "HEAD", f"refs/heads/{branch}")
    else:
        safe.run("update-ref", "--no-deref", "HEAD", commit)
    safe.run("reset", "--quiet", "--hard", commit)
    for name, url in git.get("remotes") or ():
        safe.run("config", f"remote.{name}.url", url)
        safe.run("config", f"remote.{name}.fetch", f"+refs/heads/*:refs/remotes/{name}/*")


def _give(tree: Path, uid: int, gid: int) -> None:
    for folder, names, files in os.walk(tree):
        for name in [*names, *files]:
            os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
    os.chown(tree, uid, gid)


def _compare_tree(
    reader: CopyReader, target: Target, tree: Path, sources: list[_Source], conflicts: dict[str, str]
) -> dict[str, str]:
    """What of the checkout is to be placed: target path → path in the checkout. Adds to ``conflicts``.

    A file that is in the copy's tars as well comes from there: it is the state of the disk.
    """
    git = reader.facts["git"]
    prefix = _prefix(git["path"])
    copied = {path for source in sources for path, member, _ in _listed(reader, source) if member.kind != "directory"}
    staged = Target(tree, tree, own=False, special=False)
    wanted: dict[str, str] = {}
    try:
        for inner in _files_of(tree):
            path = prefix + inner
            if path in copied:
                continue
            obstacle, there = target.obstacle(path), target.look(path)
            if obstacle is not None:
                conflicts[obstacle] = _NO_FOLDER
            elif there is not None:
                content = (staged.digest(inner), staged.link_target(inner))
                if content == (target.digest(path), target.link_target(path)):
                    continue
                conflicts[path] = "is there and differs"
            wanted[path] = inner
    finally:
        staged.close()
    if target.look(f"{prefix}.git") is None:
        wanted[f"{prefix}.git"] = ".git"
    elif not _stands_at(target.folder / prefix, str(git["commit"])):
        conflicts[f"{prefix}.git"] = "is a repository that does not stand at the copy's commit"
        wanted[f"{prefix}.git"] = ".git"
    return wanted


def _files_of(tree: Path) -> Iterator[str]:
    """Files and links of a checkout, relative to it, without its ``.git``."""
    for folder, names, files in os.walk(tree):
        if Path(folder) == tree:
            names.remove(".git")
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        for name in [*files, *links]:
            yield os.path.relpath(os.path.join(folder, name), tree)  # noqa: PTH118 (names may not be UTF-8)


def _stands_at(folder: Path, commit: str) -> bool:
    try:
        return Git(folder).text("rev-parse", "--verify", "--quiet", "HEAD", expect=(0, 1, 128)) == commit
    except EngineError:
        return False


def _place_tree(target: Target, tree: Path, checkout: Mapping[str, str]) -> int:
    for path, inner in checkout.items():
        source = tree / inner
        info = source.lstat()
        attributes = Attributes(mode=info.st_mode, uid=info.st_uid, gid=info.st_gid, mtime_ns=info.st_mtime_ns)
        if stat.S_ISDIR(info.st_mode):
            target.move_in(source, path)  # .git: the last one, when everything it describes is in place
        elif stat.S_ISLNK(info.st_mode):
            target.symlink(path, str(source.readlink()), attributes)
        else:
            with open(source, "rb") as file:
                target.file(path, _pieces(file), attributes, None)
    return len(checkout)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece


def _place_tar(
    reader: CopyReader, target: Target, source: _Source, same: set[str], on_progress: ProgressListener | None
) -> int:
    sums = read_sums(reader.read(source.sums), source.sums)
    folders: list[tuple[str, Attributes]] = []
    placed = done = 0
    for member, data in read_tar(reader, source.tar):
        name = member.name.rstrip("/")
        parts_of(name)
        path, attributes = source.below + name, _attributes(member)
        if member.isdir():
            target.folder_at(path, attributes)
            folders.append((path, attributes))
            continue
        digest = ""
        if member.isreg() or member.islnk():
            listed, digest = next(sums, ("", ""))
            if listed != name:
                raise DamageError(f"{source.sums} does not list {name}, which is in {source.tar}")
        if path in same or path in source.covered:
            continue
        if member.issym():
            target.symlink(path, member.linkname, attributes)
        elif member.islnk():
            target.hard_link(path, source.below + member.linkname)
        elif member.isreg():
            target.file(path, data, attributes, digest)
        else:
            raise DamageError(f"{source.tar} holds {name}, which is neither file, folder nor link")
        placed += 1
        done += member.size
        if on_progress is not None:
            on_progress(Progress(what=source.tar, done_bytes=done))
    if next(sums, None) is not None:
        raise DamageError(f"{source.tar} ends before all files that {source.sums} lists")
    for path, attributes in reversed(folders):
        target.folder_attributes(path, attributes)
    return placed


def _attributes(member: tarfile.TarInfo) -> Attributes:
    # As text in the extended header, where it is exact; tarfile makes a float of it.
    text = member.pax_headers.get("mtime", "")
    exact = int(Decimal(text) * 1_000_000_000) if re.fullmatch(r"-?\d+(\.\d+)?", text) else int(member.mtime * 1e9)
    return Attributes(mode=member.mode, uid=member.uid, gid=member.gid, mtime_ns=exact)
