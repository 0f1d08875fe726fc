"""What a server needs before its WAL can be streamed: looked at, written out exactly, done, and taken back.

A step is data: the same list is printed and carried out. Nothing here restarts a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from recoup.engines.postgres import heartbeat
from recoup.engines.postgres.access import ProgramAccess, ServerAccess, open_maintenance
from recoup.engines.postgres.connection_errors import ReplicationNotAllowedError, hba_line
from recoup.engines.postgres.hba_file import MARK, add_line, neighbour_line, remove_line
from recoup.engines.postgres.server_facts import as_rows
from recoup.engines.postgres.session import identifier
from recoup.engines.postgres.slot import check_slot_name, create_slot, drop_slot
from recoup.engines.postgres.wire import connect
from recoup.kernel.errors import RefusedError
from recoup.kernel.secret import Secret

_FACTS = """
SELECT current_user AS role, r.rolsuper AS superuser, r.rolreplication AS replication,
       current_setting('wal_level') AS wal_level,
       current_setting('max_wal_senders')::int AS senders,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') AS senders_used,
       current_setting('max_replication_slots')::int AS slots,
       (SELECT count(*) FROM pg_replication_slots) AS slots_used,
       pg_size_bytes(current_setting('max_slot_wal_keep_size'))::text AS keep,
       (SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}') AS slot_active,
       CASE WHEN r.rolsuper THEN current_setting('hba_file') END AS hba_file
FROM pg_roles r WHERE r.rolname = current_user"""

Kind = Literal["role", "hba", "setting", "restart", "slot", "heartbeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change. ``text`` is exactly what is run, or what a person must do; ``by_hand`` says why it is not run."""

    kind: Kind
    why: str
    text: str
    by_hand: str | None = None
    note: str = ""  #: what ``undo`` must know


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The steps that are missing, in order. Empty: the server is ready."""

    place: str
    steps: tuple[Step, ...]


def plan_preparation(access: ServerAccess, url: Secret, slot: str, *, keep_bytes: int) -> Preparation:
    """Look at the server and list what is missing. Changes nothing. Raise ``EngineError`` when it does not answer."""
    with open_maintenance(access) as session:
        facts = as_rows(session, _FACTS.format(slot=check_slot_name(slot)))[0]
    steps = [*_role(facts), *_settings(facts, keep_bytes), *_hba(access, facts, url)]
    if facts["slot_active"] is None:
        blocked = any(step.by_hand for step in steps)
        steps.append(
            Step(
                kind="slot",
                why="the server keeps the WAL that is not archived yet, and no more than the limit above",
                text=f"CREATE_REPLICATION_SLOT {slot} PHYSICAL RESERVE_WAL",
                by_hand="the daemon makes it as soon as the steps above are done" if blocked else None,
                note=slot,
            )
        )
    return Preparation(place=access.place, steps=tuple(steps))


def _not_superuser(facts: dict[str, Any]) -> str | None:
    return None if facts["superuser"] else f"the role {facts['role']} is no superuser: have one run it"


def _role(facts: dict[str, Any]) -> list[Step]:
    if facts["superuser"] or facts["replication"]:
        return []
    role = identifier(str(facts["role"]))
    return [
        Step(
            kind="role", why="the role may not replicate", text=f"ALTER ROLE {role} REPLICATION;",
            by_hand=_not_superuser(facts), note=str(facts["role"]),
        )
    ]  # fmt: skip


def _settings(facts: dict[str, Any], keep_bytes: int) -> list[Step]:
    steps = []
    if int(facts["keep"]) < 0:
        steps.append(
            Step(
                kind="setting",
                why="without a limit, WAL that cannot be archived fills the server's disk until the server stops",
                text=f"ALTER SYSTEM SET max_slot_wal_keep_size = '{keep_bytes >> 20}MB'; SELECT pg_reload_conf();",
                by_hand=_not_superuser(facts),
                note="max_slot_wal_keep_size",
            )
        )
    for name, value, wanted, why in (
        ("wal_level", facts["wal_level"], "replica", "the server writes too little WAL to be restored from it"),
        ("max_wal_senders", facts["senders"] - facts["senders_used"] >= 2, facts["senders"] + 5,
         "a stream and a base backup need one WAL sender each"),
        ("max_replication_slots", facts["slots"] > facts["slots_used"] or facts["slot_active"] is not None,
         facts["slots"] + 5, "no replication slot is free"),
    ):  # fmt: skip
        if value is True or value in ("replica", "logical"):
            continue
        steps.append(
            Step(
                kind="restart",
                why=why,
                text=f"ALTER SYSTEM SET {name} = '{wanted}';",
                by_hand="it needs a restart of the server, which Recoup never does by itself: run it, then restart "
                "the server when it suits you",
                note=name,
            )
        )
    return steps


_HEARTBEAT_FACTS = f"""
SELECT current_user AS role, to_regclass('{heartbeat.TABLE}')::text AS there,
       has_database_privilege(current_database(), 'CREATE') AS may,
       EXISTS (SELECT FROM pg_publication WHERE puballtables) AS published"""


def plan_heartbeat(access: ServerAccess) -> tuple[Step, ...]:
    """What is missing for the heartbeat as a row. Changes nothing. Raise ``EngineError`` when it does not answer."""
    with access.session(heartbeat.DATABASE) as session:
        facts = as_rows(session, _HEARTBEAT_FACTS)[0]
    if facts["there"] is not None:
        return ()
    role, by_hand = identifier(str(facts["role"])), None
    text = [*heartbeat.CREATE]
    if not facts["may"]:
        by_hand = (
            f"the role {facts['role']} may not make it in the database {heartbeat.DATABASE}: have a superuser do it"
        )
        text += [
            f"GRANT USAGE ON SCHEMA {heartbeat.SCHEMA} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE ON {heartbeat.TABLE} TO {role}",
        ]
    if facts["published"]:
        by_hand = (
            f"the database {heartbeat.DATABASE} publishes all its tables: make the same table at its subscribers "
            "first, or their replication stops"
        )
    why = f"drills measure lost data by a row in the database {heartbeat.DATABASE}, and it has no table for it"
    note = heartbeat.TABLE
    return (Step(kind="heartbeat", why=why, text="; ".join(text) + ";", by_hand=by_hand, note=note),)


def _hba(access: ServerAccess, facts: dict[str, Any], url: Secret) -> list[Step]:
    try:
        with connect(url, application_name="recoup check") as wire:
            wire.identify()
    except ReplicationNotAllowedError as refused:
        if "pg_hba.conf" not in refused.message:
            return []  # the role's right is missing, which is a step of its own
        ours = neighbour_line(str(facts["role"]))
        if ours is not None and facts["hba_file"] and isinstance(access, ProgramAccess):
            why = f"{facts['hba_file']} in {access.place} allows no replication from here: a line is added there"
            return [Step(kind="hba", why=why, text=ours, note=ours)]
        line = (refused.hint or "").partition('"')[2].partition('"')[0] or hba_line(None, str(facts["role"]))
        where = facts["hba_file"] or "pg_hba.conf"
        return [
            Step(
                kind="hba", why=f"the server's {where} allows no replication from here", text=f"{line}  {MARK}",
                by_hand=f"add the line to {where} on the server, then run SELECT pg_reload_conf();",
            )
        ]  # fmt: skip
    return []


def carry_out(access: ServerAccess, url: Secret, step: Step) -> None:
    """Do one step that is not for a person's hands. Raise ``EngineError``."""
    if step.by_hand is not None:
        raise RefusedError(f"not done by Recoup: {step.text}", hint=f"{step.by_hand}.")
    if step.kind == "slot":
        with connect(url, application_name="recoup check") as wire:
            create_slot(wire, step.note)
        return
    if step.kind == "hba":
        assert isinstance(access, ProgramAccess), "planned so"
        add_line(access, url, step.note)
        return
    _run(access, step.text, heartbeat.DATABASE if step.kind == "heartbeat" else None)


def plan_undo(access: ServerAccess, slot: str, done: tuple[tuple[Kind, str], ...]) -> Preparation:
    """What takes back the steps ``done`` (kind and note of each), and the slot in any case."""
    with open_maintenance(access) as session:
        facts = as_rows(session, _FACTS.format(slot=check_slot_name(slot)))[0]
    steps = []
    if facts["slot_active"] is not None:
        steps.append(
            Step(
                kind="slot", why="the server keeps no more WAL for the archive", text=f"DROP_REPLICATION_SLOT {slot}",
                by_hand="it is in use: stop the daemon first" if facts["slot_active"] else None, note=slot,
            )
        )  # fmt: skip
    for kind, note in done:
        if kind == "setting":
            text = f"ALTER SYSTEM RESET {note}; SELECT pg_reload_conf();"
            steps.append(Step(kind=kind, why="as it was before", text=text, by_hand=_not_superuser(facts), note=note))
        elif kind == "hba" and isinstance(access, ProgramAccess):
            why = f"the line is removed from {facts['hba_file'] or 'pg_hba.conf'} in {access.place}"
            steps.append(Step(kind=kind, why=why, text=note, by_hand=_not_superuser(facts), note=note))
        elif kind == "heartbeat":
            text = "; ".join(heartbeat.DROP) + ";"
            steps.append(Step(kind=kind, why="drills have no record to measure by then", text=text, note=note))
        elif kind == "role":
            text = f"ALTER ROLE {identifier(note)} NOREPLICATION;"
            steps.append(Step(kind=kind, why="as it was before", text=text, by_hand=_not_superuser(facts), note=note))
    return Preparation(place=access.place, steps=tuple(steps))


def take_back(access: ServerAccess, url: Secret, step: Step) -> None:
    """Carry out one step of ``plan_undo``. Raise ``EngineError``."""
    if step.by_hand is not None:
        raise RefusedError(f"not done by Recoup: {step.text}", hint=f"{step.by_hand}.")
    if step.kind == "hba":
        assert isinstance(access, ProgramAccess), "planned so"
        remove_line(access, step.note)
        return
    if step.kind != "slot":
        _run(access, step.text, heartbeat.DATABASE if step.kind == "heartbeat" else None)
        return
    with connect(url, application_name="recoup check") as wire:
        drop_slot(wire, step.note)


def _run(access: ServerAccess, text: str, database: str | None) -> None:
    with open_maintenance(access) if database is None else access.session(database) as session:
        for statement in text.split(";"):
            if statement.strip():
                session.execute(statement.strip())
