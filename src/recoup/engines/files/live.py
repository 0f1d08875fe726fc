"""A copy of files brought to life: the grades *boots*, *sound*, *same* and *works* of a file set.

Files do not start, so *boots* means that they are restored as a recovery would restore them. A Git bundle is verified
and cloned by Git itself, in the sandbox.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recoup.engines.engine import CopyReader
from recoup.engines.files.copy import BUNDLE, FILES_TAR, PATCH
from recoup.engines.files.git import DIFF, Git, without_credentials
from recoup.engines.files.restore import FilesRestored, restore_files
from recoup.engines.files.restored import OnDisk, compare_restored, named, read_restored
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Finding, Verdict, subject_of
from recoup.kernel.process import Completed, run

if TYPE_CHECKING:
    from recoup.engines.sandbox import Sandbox

CHECK = "the plan's check holds"
_PIECE = 1 << 20
_ANOTHER = "Use another copy, and take a new one now."
_HOW = (
    "Write one under the service in the plan: checks: [{file: 'uploads/*', at_least: 100}]. It is asked of every "
    "restored copy."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesCheck:
    """So many files of the copy must match ``file`` (``*`` stands for anything, also for ``/``)."""

    file: str
    name: str | None = None
    at_least: int = 1
    contains: str | None = None  #: a text that must be in each of them

    @property
    def subject(self) -> str:
        """What reports call it."""
        return subject_of(self.name, self.file)


@contextlib.contextmanager
def open_files_live(sandbox: Sandbox, reader: CopyReader, *, checks: Sequence[FilesCheck] = ()) -> Iterator[FilesLive]:
    """A place for a copy of files in the sandbox; ``boots`` restores it there."""
    yield FilesLive(sandbox, reader, sandbox.child("files"), checks)


class FilesLive:
    """Implements ``verification.live.LiveCopy``. Made by ``open_files_live``."""

    def __init__(self, sandbox: Sandbox, reader: CopyReader, folder: Path, checks: Sequence[FilesCheck]) -> None:
        self._sandbox, self._reader, self._folder, self._checks = sandbox, reader, folder, checks
        self._restored: FilesRestored | None = None
        self._seen: OnDisk | None = None

    def boots(self) -> Sequence[Finding]:
        """See ``LiveCopy``. Raise ``DamageError`` when a file is not what was copied, ``EngineError`` without Git."""
        self._restored = restore_files(self._reader, self._folder)
        detail = f"{self._restored.placed} files and links"
        return [Finding(check="the files can be restored", subject=FILES_TAR, verdict=Verdict.OK, detail=detail)]

    def sound(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        seen = self._read()
        findings = [self._readable(seen)]
        git = self._reader.facts.get("git")
        if git is not None and git.get("bundled"):
            findings += self._bundle(str(git.get("commit")))
        return findings

    def same(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        findings = list(compare_restored(self._reader, self._folder, self._read()))
        git = self._reader.facts.get("git")
        if git is not None and git.get("bundled"):
            findings.append(self._work_tree(self._folder / str(git["path"]), str(git.get("commit"))))
        changed = self._reader.facts.get("changed") or []
        if changed:
            unlike = f"{len(changed)} files that changed while they were copied: {named(list(changed))}"
            findings = [
                replace(one, not_checked="; ".join(filter(None, (one.not_checked, unlike)))) for one in findings
            ]
        return findings

    def works(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        if not self._checks:
            detail = "the plan has no checks for it, so nothing was asked"
            return [Finding(check=CHECK, subject="files", verdict=Verdict.UNKNOWN, detail=detail, hint=_HOW)]
        self._require_restored()
        paths = sorted(_files_below(self._folder))
        return [_ask(self._folder, paths, check) for check in self._checks]

    def _require_restored(self) -> None:
        if self._restored is None:
            raise UncheckedError("the copy has not been restored into the sandbox")

    def _read(self) -> OnDisk:
        self._require_restored()
        if self._seen is None:
            self._seen = read_restored(self._reader, self._folder)
        return self._seen

    def _readable(self, seen: OnDisk) -> Finding:
        gaps = list(self._restored.notes) if self._restored is not None else []
        if seen.leading_out:
            gaps.append(f"what links lead to outside of the copy: {named(seen.leading_out)}")
        return Finding(
            check="every restored file can be read, and is what it was: a file, a folder or a link",
            subject=FILES_TAR,
            verdict=Verdict.FAILED if seen.missing else Verdict.OK,
            detail=f"missing: {named(seen.missing)}" if seen.missing else f"{seen.files} files, {seen.bytes} bytes",
            hint=_ANOTHER if seen.missing else None,
            not_checked="; ".join(gaps),
        )

    def _bundle(self, commit: str) -> Iterator[Finding]:
        """What Git says of the bundle: it verifies, clones, and every object of the clone is sound."""
        place = self._sandbox.child("git")
        bundle = place / "repository.bundle"
        with open(os.open(bundle, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as handle:
            if self._sandbox.user is not None:
                os.fchown(handle.fileno(), *self._sandbox.user)
            handle.writelines(self._reader.read(BUNDLE))
        # Its own empty repository, so that no other one lends it objects.
        clone = place / "clone.git"
        local = ("-c", "protocol.file.allow=always")
        for check, folder, argv in (
            ("Git takes a repository for the clone", place, ("init", "--quiet", "--bare", "--template=", str(clone))),
            ("Git verifies the bundle", clone, ("bundle", "verify", str(bundle))),
            ("Git clones the bundle", clone, (*local, "fetch", "--quiet", str(bundle), "+refs/*:refs/*", "HEAD")),
            ("every object of the clone is sound", clone, ("fsck", "--full", "--no-dangling", "--no-progress")),
            ("the clone holds the commit that was checked out", clone, ("cat-file", "-e", f"{commit}^{{commit}}")),
        ):
            done = self._git(folder, *argv)
            if done.exit_status != 0:
                said = without_credentials(done.stderr.strip())[-300:] or f"status {done.exit_status}"
                yield Finding(check=check, subject=BUNDLE, verdict=Verdict.FAILED, detail=said, hint=_ANOTHER)
                return
        detail = f"cloned, every object sound, at {commit[:12]}"
        yield Finding(check="the Git bundle verifies and clones", subject=BUNDLE, verdict=Verdict.OK, detail=detail)

    def _git(self, folder: Path, *argv: str) -> Completed:
        """Git in the sandbox. Raise ``EngineError`` when it is not there."""
        if not (folder / "HEAD").exists() and argv[0] != "init":
            raise EngineError(f"there is no repository in {folder}")
        command = replace(Git(folder).command(*argv), folder=folder)
        done = run(self._sandbox.command(command), expect=None)
        if done.exit_status == 127:
            raise EngineError("git is not installed", hint="Install it: apt-get install git")
        if done.exit_status < 0 or done.exit_status > 128:  # it was ended, or does not know what it was asked
            raise EngineError(f"git {argv[0]} ended with status {done.exit_status} in the sandbox")
        return done

    def _work_tree(self, folder: Path, commit: str) -> Finding:
        """The restored working tree stands where the copied one stood, with the same uncommitted changes."""
        check = "the restored work tree stands at the copied commit, with the changes that were not committed"
        git = Git(folder)
        head = git.text("rev-parse", "--verify", "--quiet", "HEAD", expect=(0, 1, 128))
        if head != commit:
            detail = f"it stands at {head or 'no commit'} instead of {commit}"
            return Finding(check=check, subject=BUNDLE, verdict=Verdict.FAILED, detail=detail, hint=_ANOTHER)
        patch = hashlib.sha256()
        for piece in self._reader.read(PATCH):
            patch.update(piece)
        if hashlib.sha256(git.run(*DIFF).stdout).digest() != patch.digest():
            return Finding(
                check=check,
                subject=PATCH,
                verdict=Verdict.UNKNOWN,
                detail="the changes read otherwise than when they were copied",
                hint="Another version of Git may write the same changes otherwise: compare them by `git diff HEAD`.",
            )
        return Finding(check=check, subject=BUNDLE, verdict=Verdict.OK, detail=f"at {commit[:12]}")


def _files_below(folder: Path) -> Iterator[str]:
    for place, names, files in os.walk(folder):  # links to folders are not entered
        if ".git" in names:
            names.remove(".git")
        for name in files:
            if stat.S_ISREG(os.lstat(Path(place) / name).st_mode):
                yield os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118 (names may not be UTF-8)


def _ask(folder: Path, paths: Sequence[str], check: FilesCheck) -> Finding:
    pattern = re.compile(fnmatch.translate(check.file.removeprefix("./")))
    found = [path for path in paths if pattern.match(path)]
    faults = []
    if len(found) < check.at_least:
        faults.append(f"{len(found)} files match, at least {check.at_least} were expected")
    if check.contains is not None:
        text = check.contains.encode()
        without = [path for path in found if not _contains(folder / path, text)]
        if without:
            faults.append(f"the text is not in {named(without)}")
    detail = "; ".join(faults) or f"{len(found)} files"
    return Finding(check=CHECK, subject=check.subject, verdict=Verdict.FAILED if faults else Verdict.OK, detail=detail)


def _contains(path: Path, text: bytes) -> bool:
    held = b""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as handle:
        while piece := handle.read(_PIECE):
            held += piece
            if text in held:
                return True
            held = held[-len(text) :]
    return False
