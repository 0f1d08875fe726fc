"""The physical slot that makes a server keep its WAL for the archive: made, looked at, dropped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.server_facts import as_rows
from recoup.engines.postgres.session import Session
from recoup.engines.postgres.wire import ServerError, Wire
from recoup.kernel.errors import EngineError, RefusedError

_NAME = re.compile(r"[a-z0-9_]{1,63}")

# to_jsonb: conflicting and invalidation_reason do not exist everywhere. pg_ls_waldir needs pg_monitor.
_FACTS = """
SELECT s.slot_name AS name, s.slot_type AS type, s.active AS active, s.wal_status AS wal_status,
       s.safe_wal_size::text AS safe_wal_bytes, s.restart_lsn::text AS restart_lsn,
       to_jsonb(s)->>'invalidation_reason' AS invalidation_reason
FROM pg_replication_slots s WHERE s.slot_name = '{name}'"""
_SERVER = """
SELECT pg_is_in_recovery() AS standby,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END)::text AS position,
       pg_size_bytes(current_setting('max_slot_wal_keep_size')) AS keep_bytes,
       CASE WHEN has_function_privilege('pg_ls_waldir()', 'EXECUTE')
            THEN (SELECT sum(size) FROM pg_ls_waldir())::text END AS wal_bytes,
       clock_timestamp()::text AS clock"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """A slot and the WAL of its server, as the server shows them. Sizes are bytes; None is unknown.

    ``wal_status`` is the server's word: ``reserved``, ``extended``, ``unreserved`` or ``lost``; None without a slot.
    ``keep_bytes`` is ``max_slot_wal_keep_size``, None when it is unlimited. ``wal_bytes`` is what all WAL files take.
    """

    exists: bool
    active: bool
    wal_status: str | None
    restart: Lsn | None
    safe_bytes: int | None
    keep_bytes: int | None
    wal_bytes: int | None
    position: Lsn | None
    standby: bool

    @property
    def held_bytes(self) -> int | None:
        """How much WAL the server keeps for this slot."""
        if self.restart is None or self.position is None:
            return None
        return max(0, self.position.value - self.restart.value)

    @property
    def lost(self) -> bool:
        """Whether the server has given up the slot: it removed, or is about to remove, what the slot needs."""
        return self.exists and (self.wal_status == "lost" or self.restart is None)


def check_slot_name(name: str) -> str:
    """Return ``name`` when PostgreSQL takes it for a slot; raise ``ValueError`` otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a replication slot: {name!r}")
    return name


def slot_facts(session: Session, name: str) -> SlotFacts:
    """Look at the slot ``name`` and at the WAL of the server. Raise ``EngineError``."""
    found = as_rows(session, _FACTS.format(name=check_slot_name(name)))
    server = as_rows(session, _SERVER)[0]
    slot: dict[str, Any] = found[0] if found else {}
    if slot and slot["type"] != "physical":
        raise RefusedError(
            f"the replication slot {name} at {session.place} is a logical one and not Recoup's",
            hint="Rename the service in the plan, or drop that slot if nobody needs it.",
        )
    keep = int(server["keep_bytes"])
    return SlotFacts(
        exists=bool(slot),
        active=bool(slot.get("active")),
        wal_status=slot.get("wal_status"),
        restart=_lsn(slot.get("restart_lsn")),
        safe_bytes=_number(slot.get("safe_wal_bytes")),
        keep_bytes=None if keep < 0 else keep,
        wal_bytes=_number(server["wal_bytes"]),
        position=_lsn(server["position"]),
        standby=bool(server["standby"]),
    )


def look_at_slot(access: ServerAccess, name: str) -> SlotFacts:
    """As ``slot_facts``, on a session of its own."""
    with open_maintenance(access) as session:
        return slot_facts(session, name)


def create_slot(wire: Wire, name: str) -> None:
    """Make the slot, which keeps WAL from the last checkpoint's redo point on. One that is there already is fine."""
    try:
        # The words of the old grammar work on 14 to 18.
        wire.rows(f'CREATE_REPLICATION_SLOT "{check_slot_name(name)}" PHYSICAL RESERVE_WAL')
    except ServerError as failure:
        if failure.sqlstate == "42710":
            return
        if failure.sqlstate == "53400" or "max_replication_slots" in failure.message:
            raise EngineError(
                failure.message,
                hint="Drop a slot that nobody needs (see pg_replication_slots), or raise max_replication_slots; "
                "that needs a restart of the server.",
            ) from failure
        raise


def drop_slot(wire: Wire, name: str) -> None:
    """Drop the slot, so that the server keeps no WAL for it. One that is not there is fine."""
    wire.send(f'DROP_REPLICATION_SLOT "{check_slot_name(name)}"')
    refusal: ServerError | None = None
    try:
        wire.result()  # no rows come back: only COMMAND_OK, or an ERROR
    except ServerError as failure:
        refusal = failure
    while wire.result() is not None:
        pass
    if refusal is not None and refusal.sqlstate != "42704":
        raise refusal


def read_history(wire: Wire, timeline: int) -> bytes:
    """The history file of a timeline (TIMELINE_HISTORY). Raise ``ServerError`` when the server has none."""
    ((_name, content),) = (row[:2] for row in wire.rows(f"TIMELINE_HISTORY {timeline}"))
    return (content or "").encode()


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
