"""Incremental base backups: what changed since an earlier backup, by the server's own WAL summaries (PostgreSQL 17+).

The server is given the ``backup_manifest`` of the earlier backup and sends, for every file of a table or index, only
the blocks that its WAL changed since that backup began. Source: PostgreSQL documentation, "Incremental Backup" and
"Streaming Replication Protocol" (UPLOAD_MANIFEST); refusals: src/backend/backup/basebackup_incremental.c.
"""

from __future__ import annotations

import re
from typing import Final

from recoup.engines.engine import CopyReader
from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.earlier import TAKE_A_BASE, Earlier
from recoup.engines.postgres.server_facts import as_rows
from recoup.engines.postgres.stream_names import BASE_ARCHIVE
from recoup.engines.postgres.wire import ServerError, Wire
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict

FIRST_MAJOR: Final = 17
TURN_ON: Final = (
    "As a superuser: ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf(); no restart is needed. Then take a "
    "base backup (--kind base), from which incremental ones can follow."
)
_SINCE: Final = re.compile(rb"^INCREMENTAL FROM LSN: (\S+)$", re.MULTILINE)
_LABEL_BYTES: Final = 64 << 10
_NOT_IN_PREREQUISITE_STATE: Final = "55000"


def require_incremental(wire: Wire, timeline: int, earlier: Earlier) -> None:
    """Raise ``RefusedError`` unless the server behind ``wire`` can say what changed since ``earlier``."""
    require_version(wire.major, wire.address)
    require_summaries(wire.show("summarize_wal"), wire.address)
    require_timeline(timeline, wire.address, earlier)


def require_version(major: int, where: str) -> None:
    """Raise ``RefusedError`` when the server is too old."""
    if major < FIRST_MAJOR:
        raise RefusedError(
            f"PostgreSQL {major} at {where} cannot take incremental backups; they came with PostgreSQL {FIRST_MAJOR}",
            hint="Take base backups (--kind base), and remove `incremental` from the plan's service.",
        )


def require_summaries(summarize_wal: str, where: str) -> None:
    """Raise ``RefusedError`` when the server does not write down which blocks its WAL changes."""
    if summarize_wal != "on":
        raise RefusedError(
            f"PostgreSQL at {where} does not know what changed: summarize_wal is {summarize_wal}", hint=TURN_ON
        )


def require_timeline(timeline: int, where: str, earlier: Earlier) -> None:
    """Raise ``RefusedError`` when the server went on another timeline since ``earlier``."""
    if timeline != earlier.timeline:
        raise RefusedError(
            f"PostgreSQL at {where} is on timeline {timeline}, and {earlier.id} is of timeline {earlier.timeline}: "
            "what changed between them cannot be told",
            hint=TAKE_A_BASE,
        )


def explain_program(failure: EngineError, earlier: Earlier) -> EngineError | RefusedError:
    """As ``explain_refusal``, from what ``pg_basebackup`` said."""
    ours = "WAL summar" in failure.message or "manifest" in failure.message or "timeline" in failure.message
    return _explained(failure, earlier) if ours else failure


def explain_refusal(failure: ServerError, earlier: Earlier) -> EngineError | RefusedError:
    """What the server said against an incremental backup since ``earlier``, as an error that says what to do."""
    ours = failure.sqlstate == _NOT_IN_PREREQUISITE_STATE or "manifest" in failure.message
    return _explained(failure, earlier) if ours else failure


def _explained(failure: EngineError, earlier: Earlier) -> EngineError | RefusedError:
    if "is not progressing" in failure.message:
        return EngineError(
            failure.message, hint="Look into the server's log for its WAL summarizer, then try again; or take a base."
        )
    hint = TAKE_A_BASE
    if "summaries" in failure.message:
        hint = (
            "The server has removed the summaries of its WAL, or had not begun to write them: they are kept for "
            f"wal_summary_keep_time (10 days by default). {TAKE_A_BASE}"
        )
    return RefusedError(f"no incremental backup since {earlier.id} is possible: {failure.message}", hint=hint)


def check_incremental(access: ServerAccess) -> Finding:
    """Would an incremental backup of this server work today, as far as its settings go? Never raises for the server."""
    check, place = "incremental backups are possible", access.place
    query = (
        "SELECT current_setting('server_version_num')::int / 10000 AS major, "
        "coalesce(current_setting('summarize_wal', true), 'unknown') AS summaries, "
        "coalesce(current_setting('wal_summary_keep_time', true), '') AS kept"
    )
    try:
        with open_maintenance(access) as session:
            (state,) = as_rows(session, query)
        require_version(state["major"], place)
        require_summaries(state["summaries"], place)
    except (EngineError, RefusedError) as failure:
        return Finding(
            check=check, subject=place, verdict=Verdict.FAILED, detail=failure.message, hint=failure.hint
        )  # fmt: skip
    return Finding(
        check=check,
        subject=place,
        verdict=Verdict.OK,
        detail=f"summarize_wal is on; summaries are kept for {state['kept']}",
        not_checked="whether the summaries reach back to the newest base backup",
    )


def check_label(reader: CopyReader) -> Finding:
    """Does the copy hold what changed since the backup that its facts name? The server's own label says since when."""
    check, subject, claimed = "it builds on the backup that it names", "backup_label", reader.facts.get("since_lsn")
    label = b""
    for member in reader.members(BASE_ARCHIVE):
        if member.path.removeprefix("./") == "backup_label" and member.size_bytes < _LABEL_BYTES:
            label = b"".join(reader.read(BASE_ARCHIVE, member.offset, member.size_bytes))
    found = _SINCE.search(label)
    since = None if found is None else found[1].decode()
    if since == claimed:
        detail = "it stands alone" if since is None else f"the one that began at {since}"
        return Finding(check=check, subject=subject, verdict=Verdict.OK, detail=detail)
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.FAILED,
        detail=f"the label says {since or 'that it stands alone'}, and the facts {claimed or 'that it stands alone'}",
        hint=TAKE_A_BASE,
    )
