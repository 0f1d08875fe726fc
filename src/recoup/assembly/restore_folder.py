"""Restoring a copy into a folder, for any kind of copy."""

from __future__ import annotations

import os
from pathlib import Path

from recoup.assembly.redis import layout_of
from recoup.assembly.restore_job import Job, Report
from recoup.engines.engine import Progress, ProgressListener
from recoup.engines.files.restore import restore_files
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.engines.redis.restore_folder import restore_rdb_to_folder
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.files import sync_folder, temporary_beside
from recoup.repository.copy_reader import ArtefactReader


def into_folder(job: Job, folder: Path) -> Report:
    """Put a copy of any kind into ``folder``; for a dump, its streams as files."""
    reader, consent, on_progress, what, manifest = job.reader, job.consent, job.on_progress, job.subject, job.manifest
    if manifest.kind == "base":
        placed = restore_base_to_folder(reader, folder, on_progress=on_progress)
        notes = ["the folder is ready: give it to the user that runs PostgreSQL (chown -R), then start it"]
        if placed.tablespaces:
            spaces = ", ".join(f"{oid} in {path}" for oid, path in placed.tablespaces.items())
            notes.append(f"tablespaces: {spaces}")
        return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))
    if manifest.kind == "rdb":
        layout = layout_of(manifest.facts)
        done = restore_rdb_to_folder(reader, folder, layout, force=consent.force)
        way = "append-only log" if layout.appendonly else "snapshot"
        notes = [f"start Redis {layout.server_version} (or newer) on the folder: it finds the data as its {way}"]
        kept = None if done.replaced is None else str(done.replaced)
        return Report(what=what, where=str(folder), kept=kept, notes=tuple(notes))
    if manifest.kind == "files":
        files = restore_files(reader, folder, force=consent.force, on_progress=on_progress)
        notes = [f"{files.placed} placed, {files.same} were there already", *files.notes]
        kept = None if files.aside is None else f"{files.aside} ({len(files.replaced)} files)"
        return Report(what=what, where=str(folder), kept=kept, notes=tuple(notes))
    names = write_streams(reader, folder, on_progress)
    notes = [f"{', '.join(names)} as pg_dump wrote them; RESTORE.md says how to load them by hand"]
    return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))


def write_streams(reader: ArtefactReader, folder: Path, on_progress: ProgressListener) -> list[str]:
    """Write the plain streams of a copy into an empty folder, each whole or not at all; their names.

    Raise ``RefusedError`` when the folder holds anything, ``EngineError`` when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise RefusedError(f"{folder} is not empty", hint="Give an empty folder, or one that does not exist.")
        for info in reader.streams():
            done = 0
            with temporary_beside(folder / info.name) as temporary:
                with temporary.open("wb") as handle:
                    for piece in reader.read(info.name):
                        handle.write(piece)
                        done += len(piece)
                        on_progress(Progress(what=info.name, done_bytes=done, total_bytes=info.plain_bytes))
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(folder / info.name)
        sync_folder(folder)
    except OSError as failure:
        raise EngineError(
            f"cannot write into {folder}: {failure.strerror or failure}", hint="Check its rights and the free space."
        ) from failure
    return [info.name for info in reader.streams()]
