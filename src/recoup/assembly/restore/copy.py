"""Bringing a copy back: into a folder, into a server, or in place inside the stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recoup.assembly.restore.job import Job, Report, is_address, without_secrets
from recoup.kernel.errors import DamageError, UsageError
from recoup.kernel.files import expanded
from recoup.kernel.secret import Secret
from recoup.repository.lease import hold_lease

_DAMAGE_HINT = (
    "No repository that was asked has this right. Restore from another one (without --from, all are asked), or an "
    "older copy: `recoup list` shows them, `recoup verify --all` says which are whole."
)


def restore(job: Job) -> Report:
    """Restore an artefact from the repositories that hold it, as ``job`` says.

    Raise ``UsageError`` for a wish that makes no sense, ``BusyError`` while the service is being copied or restored,
    otherwise the errors of the engine; the old data are then in place, or the hint says how to go on.
    """
    purpose = f"restore of {job.manifest.service} ({job.manifest.id})"
    with hold_lease(job.opened.state_folder, job.manifest.service, purpose):
        try:
            report = _by_kind(job)
        except DamageError as found:
            found.hint = found.hint or _DAMAGE_HINT
            raise
    passed_over = dict.fromkeys((*job.found.passed_over, *job.reader.passed_over()))
    damage = tuple(f"read from another repository, because: {what}" for what in passed_over)
    return replace(report, notes=(*report.notes, *damage))


def _by_kind(job: Job) -> Report:
    # Each way back loads its own engine only: on the worst day nobody waits for the drivers of the others.
    destination, kind, system = job.wish.destination, job.manifest.kind, job.opened.system
    if destination is not None and not is_address(destination):
        from recoup.assembly.restore.folder import into_folder

        return into_folder(job, Path.cwd() / expanded(destination))
    if kind == "dump":
        from recoup.assembly.restore.postgres_dump import dump_into_database

        return dump_into_database(job)
    if destination is not None and kind == "rdb":
        from recoup.assembly.restore.redis import place_at, rdb_into_server

        return rdb_into_server(job, place_at(job.manifest.service, Secret(destination)))
    if destination is not None:
        raise UsageError(
            f"a {kind} copy cannot go to {without_secrets(destination)}",
            hint="Give a folder as --destination, or none to restore it where the service lives.",
        )
    if system is None:
        raise UsageError("without a plan there is no place to restore to", hint="Add --destination FOLDER.")
    match kind:
        case "base" | "incremental":
            from recoup.assembly.restore.postgres_dump import base_in_place

            return base_in_place(job, system)
        case "rdb":
            from recoup.assembly.restore.redis import rdb_in_place

            return rdb_in_place(job, system)
    raise UsageError(f"a {kind} copy is restored into a folder", hint="Add --destination FOLDER.")
