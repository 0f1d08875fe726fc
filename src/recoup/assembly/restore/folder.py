"""Restoring a copy into a folder, for any kind of copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from recoup.assembly.restore.job import Job, Report
from recoup.engines.engine import CopyReader, Progress, ProgressListener, StreamInfo
from recoup.kernel.errors import EngineError, RefusedError, UsageError
from recoup.kernel.files import sync_folder

_UNFINISHED = ".recoup-unfinished"


def into_folder(job: Job, folder: Path) -> Report:
    """Put a copy of any kind into ``folder``; for a dump, its streams as files."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="Give an empty folder, or one that does not exist.")
    reader, consent, on_progress, what, manifest = job.reader, job.consent, job.on_progress, job.subject, job.manifest
    if manifest.kind in ("base", "incremental"):
        from recoup.assembly.protect.incremental import chain_of
        from recoup.engines.postgres.place_chain import restore_chain_to_folder

        chain = chain_of(job.opened, job.found)
        placed = restore_chain_to_folder((*chain[:-1], reader), folder, on_progress=on_progress)
        notes = ["the folder is ready: give it to the user that runs PostgreSQL (chown -R), then start it"]
        if placed.tablespaces:
            spaces = ", ".join(f"{oid} in {path}" for oid, path in placed.tablespaces.items())
            notes.append(f"tablespaces: {spaces}")
        passed_over = dict.fromkeys(what for part in chain[:-1] for what in part.passed_over())
        notes += [f"read from another repository, because: {what}" for what in passed_over]
        return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))
    if manifest.kind == "rdb":
        from recoup.assembly.redis import layout_of
        from recoup.engines.redis.restore_folder import restore_rdb_to_folder

        layout = layout_of(manifest.facts)
        _make(folder)
        done = restore_rdb_to_folder(reader, folder, layout, force=consent.force)
        way = "append-only log" if layout.appendonly else "snapshot"
        notes = [f"start Redis {layout.server_version} (or newer) on the folder: it finds the data as its {way}"]
        kept = None if done.replaced is None else str(done.replaced)
        return Report(what=what, where=str(folder), kept=kept, notes=tuple(notes))
    if manifest.kind == "files":
        from recoup.engines.files.restore import restore_files

        files = restore_files(reader, folder, force=consent.force, on_progress=on_progress)
        notes = [f"{files.placed} placed, {files.same} were there already", *files.notes]
        kept = None if files.aside is None else f"{files.aside} ({len(files.replaced)} files)"
        return Report(what=what, where=str(folder), kept=kept, notes=tuple(notes))
    names = write_streams(reader, folder, on_progress)
    if manifest.kind == "images":
        notes = [f"{', '.join(names)}; into the engine with: docker load --input FILE.tar"]
        return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))
    notes = [f"{', '.join(names)} as pg_dump wrote them; RESTORE.md says how to load them by hand"]
    return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as failure:
        raise EngineError(
            f"cannot make the folder {folder}: {failure.strerror}",
            hint="Check the path, its rights and the free space.",
        ) from failure


def write_streams(reader: CopyReader, folder: Path, on_progress: ProgressListener) -> list[str]:
    """Write the plain streams of a copy into an empty folder, all or none; their names.

    They are gathered in a folder inside it, whose presence says that the work is not finished. Stopped at any instant,
    the same call starts over. Raise ``RefusedError`` when the folder holds anything else, ``EngineError`` when it
    cannot be written.
    """
    names = [info.name for info in reader.streams()]
    staging = folder / _UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours = {_UNFINISHED, *names} if staging.is_dir() else set()
        if any(path.name not in ours for path in folder.iterdir()):
            raise RefusedError(f"{folder} is not empty", hint="Give an empty folder, or one that does not exist.")
        _remove_unfinished(folder, names)
        staging.mkdir(mode=0o700)
        try:
            for info in reader.streams():
                _write_stream(reader, info, staging / info.name, on_progress)
            for name in names:
                os.replace(staging / name, folder / name)
            sync_folder(folder)
        except BaseException:
            _remove_unfinished(folder, names)
            raise
        staging.rmdir()
        sync_folder(folder)
    except OSError as failure:
        raise EngineError(
            f"cannot write into {folder}: {failure.strerror or failure}", hint="Check its rights and the free space."
        ) from failure
    return names


def _write_stream(reader: CopyReader, info: StreamInfo, path: Path, on_progress: ProgressListener) -> None:
    done = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        for piece in reader.read(info.name):
            handle.write(piece)
            done += len(piece)
            on_progress(Progress(what=info.name, done_bytes=done, total_bytes=info.plain_bytes))
        handle.flush()
        os.fsync(handle.fileno())


def _remove_unfinished(folder: Path, names: Sequence[str]) -> None:
    """What an earlier call left. The folder that says so goes last."""
    if (folder / _UNFINISHED).is_dir():
        for name in names:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / _UNFINISHED)
