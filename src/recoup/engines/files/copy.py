"""Taking a copy of a file set: files, their digests, the Git state of a folder, the digests of images.

Streams, in this order; those after the first two only when asked for:

- ``files.tar``, ``files.sha256``: the declared paths (``tar -x``, then ``sha256sum -c files.sha256``)
- ``repository.bundle``: every ref of the Git repository (``git clone repository.bundle``)
- ``uncommitted.patch``: what differs from HEAD (``git apply``)
- ``untracked.tar``, ``untracked.sha256``: files Git neither knows nor ignores
- ``images.json``: which image each service ran
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from recoup.engines.engine import Content, CopyFacts, Progress, ProgressListener, Sink, StreamSink
from recoup.engines.files import git as git_engine
from recoup.engines.files.git import Git, GitState
from recoup.engines.files.sums import sum_line
from recoup.engines.files.tar_writer import TarWriter
from recoup.engines.files.walk import Exclusions, Found, Notes, member_path, roots, unreadable, walk
from recoup.kernel.errors import EngineError
from recoup.kernel.process import open_child

FILES_TAR, FILES_SUMS = "files.tar", "files.sha256"
UNTRACKED_TAR, UNTRACKED_SUMS = "untracked.tar", "untracked.sha256"
BUNDLE, PATCH, IMAGES = "repository.bundle", "uncommitted.patch", "images.json"
_PIECE_BYTES = 1 << 20
_REPORT_EVERY = 64 << 20


def take_files(
    paths: Sequence[str],
    base_folder: Path,
    sink: Sink,
    *,
    exclude: Sequence[str] = (),
    optional: Sequence[str] = (),
    git: str | None = None,
    images: Sequence[Mapping[str, Any]] | None = None,
    on_progress: ProgressListener | None = None,
) -> CopyFacts:
    """Copy ``paths`` (relative to ``base_folder``, or absolute) into ``sink``.

    ``git`` names a folder in a Git working tree whose state is copied as well; ``images`` become ``images.json``.
    ``exclude`` holds patterns (see ``Exclusions``), for the untracked files as well. ``optional`` are those of
    ``paths`` that may be missing. Nothing is written to the source.

    Raise ``EngineError`` naming the file when a declared one is missing or may not be read. Sockets, devices and what
    vanishes meanwhile are listed in ``left_out``; files that change while they are read, in ``facts["changed"]``.
    """
    base, notes = base_folder.resolve(), Notes()
    exclusions = Exclusions(exclude, base)
    tops = roots(paths, base, optional=optional, notes=notes)
    found = (entry for top, may in tops for entry in walk(top, base, exclusions, notes, optional=may))
    totals = _tar(sink, FILES_TAR, FILES_SUMS, found, notes, on_progress)
    facts: dict[str, Any] = {"base_folder": str(base), "paths": list(paths), "exclude": list(exclude)}
    fingerprint = dict(totals)
    if git is not None:
        state = git_engine.git_state(base / git)
        facts["git"] = _take_git(state, base, sink, exclusions, notes, on_progress)
        fingerprint["commit"] = state.commit
    if images is not None:
        with sink.stream(IMAGES) as stream:
            stream.write((json.dumps(list(images), indent=1, sort_keys=True) + "\n").encode())
        facts["images"] = list(images)
    for pattern, count in exclusions.counts.items():
        if count:
            notes.leave_out(pattern, f"excluded by the plan: {count} entries")
    if notes.more:
        notes.left_out.append(("…", f"and {notes.more} more"))
    facts |= {"changed": notes.changed, "grew": notes.grew}
    return CopyFacts(facts=facts, fingerprint=fingerprint, left_out=tuple(notes.left_out))


def _tar(
    sink: Sink,
    tar_name: str,
    sums_name: str,
    found: Iterator[Found],
    notes: Notes,
    on_progress: ProgressListener | None,
) -> dict[str, Any]:
    """Write a tar and the digests of its files; return the fingerprint of what was written."""
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as sums:

        def on_file(path: str, file_digest: str) -> None:
            line = sum_line(path, file_digest)
            digest.update(line)
            sums.write(line)

        with sink.stream(tar_name, content=Content.TAR) as stream:
            writer = TarWriter(stream, notes, on_file)
            reported = 0
            for entry in found:
                writer.add(entry)
                if on_progress is not None and writer.written >= reported + _REPORT_EVERY:
                    reported = writer.written
                    on_progress(Progress(what=tar_name, done_bytes=writer.written))
            writer.close()
        sums.seek(0)
        with sink.stream(sums_name) as stream:
            _pump(sums, stream)
    if on_progress is not None:
        on_progress(Progress(what=tar_name, done_bytes=writer.written, total_bytes=writer.written))
    if writer.with_attributes:
        notes.leave_out(f"{writer.with_attributes} files", "their extended attributes and access control lists")
    return {
        "files": writer.files,
        "bytes": writer.file_bytes,
        "folders": writer.folders,
        "links": writer.links,
        "digest": digest.hexdigest(),
        "structure": writer.structure,
    }


def _pump(source: IO[bytes], stream: StreamSink) -> int:
    total = 0
    while piece := source.read(_PIECE_BYTES):
        stream.write(piece)
        total += len(piece)
    return total


def _take_git(
    state: GitState,
    base: Path,
    sink: Sink,
    exclusions: Exclusions,
    notes: Notes,
    on_progress: ProgressListener | None,
) -> dict[str, Any]:
    git = Git(state.folder)
    facts = state.facts(member_path(state.folder, base))
    facts["bundled"] = state.bundled
    if state.bundled:
        with sink.stream(BUNDLE) as stream:
            facts["bundle_bytes"] = _output(git, stream, "bundle", "create", "--quiet", "-", "--all", "HEAD")
        with sink.stream(PATCH) as stream:
            facts["patch_bytes"] = _output(git, stream, *git_engine.DIFF)
        for path, why in git_engine.not_in_bundle(git):
            notes.leave_out(path, why)
        wanted = git_engine.listed(git, "--others", "--exclude-standard")
    else:
        why = "there is no commit yet" if state.commit is None else "it is a shallow clone"
        notes.leave_out(".git", f"the history: {why}; the files themselves are in {UNTRACKED_TAR}")
        wanted = git_engine.listed(git, "--cached", "--others", "--exclude-standard")
    found = _named(sorted(set(wanted)), state.folder, exclusions, notes)
    facts["untracked"] = _tar(sink, UNTRACKED_TAR, UNTRACKED_SUMS, found, notes, on_progress)
    notes.leave_out("files that Git ignores", "only those that the plan's paths name are in the copy")
    if git.text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", expect=(0, 1)) != (state.commit or ""):
        notes.note_changed("HEAD of the Git repository")
    return facts


def _named(names: Sequence[str], top: Path, exclusions: Exclusions, notes: Notes) -> Iterator[Found]:
    """What ``git ls-files`` named, as entries, without those that the plan excludes. Paths are from ``top``."""
    for name in names:
        parts = name.split("/")
        ancestors = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        if any(exclusions.exclude(path, path.rpartition("/")[2]) for path in ancestors if path):
            continue
        if name.endswith("/"):
            notes.leave_out(name, "a Git repository of its own")
            continue
        yield from walk(top / name, top, exclusions, notes)


def _output(git: Git, stream: StreamSink, *argv: str) -> int:
    """Stream what git prints. Raise ``EngineError`` unless it ends well."""
    with open_child(git.command(*argv)) as child:
        total = _pump(child.stdout, stream)
        completed = child.wait(60)
    if completed.exit_status != 0:
        if "ermission denied" in completed.stderr:
            raise unreadable(str(git.folder))
        said = git_engine.without_credentials(completed.stderr.strip())
        raise EngineError(f"git {argv[0]} failed in {git.folder}: {said}")
    return total
