"""The steps of a recovery for a PostgreSQL that Recoup does not run: its data go into a folder, a person places it.

The folder belongs to the run and to nobody else, so one that a kill left unfinished is begun anew. A file beside it
says that it is whole.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from recoup.assembly.access import Found
from recoup.assembly.database_steps import place_beside
from recoup.assembly.postgres import PostgresPlace, postgres_place
from recoup.assembly.recover.context import Recovery
from recoup.assembly.restore.homes import check_copied
from recoup.assembly.restore.recovered_home import check_recovered
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.engines.postgres.access import open_maintenance
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.files import write_atomically
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.step import Done
from recoup.repository.copy_reader import ArtefactReader

STARTED = "the server was started on the restored data"


def restore_beside(recovery: Recovery, service: str, chosen: Found | TimedMember) -> Done:
    """Restore a database into a folder of this run. Raise as the restore into a folder does."""
    base = (recovery.wish.folder or recovery.system.folder) / f"recoup-recovered-{recovery.run}"
    folder, whole = base / service, base / f"{service}.whole"
    member = place_beside(chosen, recovery.opened, recovery.voice, folder)
    findings: tuple[Finding, ...] = ()
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o755)  # others must get through: the server is not root
        if not whole.exists():
            if folder.exists():
                shutil.rmtree(folder)
            findings = member.put().findings
            write_atomically(whole, f"{clock.to_text(clock.now())}\n".encode())
        restored = whole.read_text().strip()
    except OSError as failure:
        raise EngineError(
            f"cannot restore into {folder}: {failure.strerror or failure}",
            hint="Make room, or name a folder on another disk with --destination.",
        ) from failure
    return Done(
        findings=findings, detail=f"{member.what}, in {folder}", data={"folder": str(folder), "restored": restored}
    )


def look_at_server(recovery: Recovery, service: str, chosen: Found | TimedMember) -> list[Finding]:
    """Whether a person has let the server use what was restored, and whether it is what was copied.

    The server that ran before has the same identity: what tells them apart is when it was started.
    """
    place = postgres_place(recovery.system, service)
    restored = clock.from_text(str(recovery.learned(f"restore-{service}")["restored"]))
    folder = Path(str(recovery.learned(f"restore-{service}")["folder"]))
    started = _started(place, service, restored, folder)
    if started.verdict is not Verdict.OK:
        return [started]
    if isinstance(chosen, Found):
        return [started, *check_copied(place, ArtefactReader(chosen.manifest, chosen.holders))]
    from recoup.assembly.restore.postgres_moment import PostgresMoment

    assert isinstance(chosen.moment, PostgresMoment), "a PostgreSQL service has such moments"
    return [started, check_recovered(place, chosen.moment.cluster.system_identifier)]


def _started(place: PostgresPlace, service: str, restored: datetime, folder: Path) -> Finding:
    with open_maintenance(place.access) as session:
        query = "SELECT extract(epoch FROM pg_postmaster_start_time()), extract(epoch FROM now())"
        began, now = (float(str(value)) for value in session.query(query)[0])
    age = clock.now() - restored
    fresh = now - began < age.total_seconds()  # by durations: the server's clock may be another machine's
    return Finding(
        check=STARTED,
        subject=service,
        verdict=Verdict.OK if fresh else Verdict.FAILED,
        detail=f"it runs for {now - began:.0f} s, and the data were restored {age.total_seconds():.0f} s ago",
        hint=None if fresh else f"Stop it, let it use {folder}, start it, and go on: recoup recover --resume.",
    )
