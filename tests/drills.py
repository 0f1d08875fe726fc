"""Drill records for tests: one that is good all over, to be changed with ``dataclasses.replace``."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from recoup.drill.model import (
    DrillRecord,
    FlowResult,
    FlowStepResult,
    Issue,
    Participant,
    Place,
    PlanIdentity,
    Production,
    RecoveryPoint,
    Rpo,
    Rto,
    Step,
    UsedCopy,
)
from recoup.kernel.finding import Finding, Verdict

DECLARED = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def finding(check: str, subject: str, verdict: Verdict = Verdict.OK, detail: str = "", **more: str) -> Finding:
    return Finding(check=check, subject=subject, verdict=verdict, detail=detail, **more)


def issue(number: int = 1, *, drill: str = "20261102-090000-aaaaaa", text: str = "the orders page took 40 s") -> Issue:
    return Issue(id=f"{drill}.{number}", text=text, owner="operations", due=date(2026, 11, 30), about=f"flow:{text}")


def a_drill(
    *,
    name: str = "20261102-090000-aaaaaa",
    declared: datetime = DECLARED,
    takes: timedelta = 20 * MINUTE,
    lost: timedelta | None = 40 * SECOND,
    **changes: object,
) -> DrillRecord:
    """A drill in which everything went well, with the given recovery time and lost data."""
    third = takes / 3
    steps = (
        Step(
            key="restore:postgres", title="restore postgres", kind="machine", verdict=Verdict.OK, service="postgres",
            started=declared + third / 10, ended=declared + third, detail="2.1 GiB",
        ),
        Step(
            key="person:dns", title="point the name at the new server", kind="person", verdict=Verdict.OK,
            started=declared + third, ended=declared + 2 * third, waiting=third, detail="done by Ada",
        ),
        Step(
            key="start", title="start the services", kind="machine", verdict=Verdict.OK,
            started=declared + 2 * third, ended=declared + takes,
        ),
    )  # fmt: skip
    values: dict[str, object] = {
        "id": name,
        "system": "marketplace",
        "situation": "server-loss",
        "kind": "announced",
        "declared_by": "Ada Lovelace",
        "declared": declared,
        "ended": declared + takes + MINUTE,
        "plan": PlanIdentity(version="1.4", hash="ab" * 32, parts={"plan file": "cd" * 32, "image of api": "12"}),
        "point": RecoveryPoint(
            target="latest",
            repository="offsite",
            repository_id="20260101-000000-rrrrrr",
            copies=(
                UsedCopy(
                    service="postgres",
                    kind="base",
                    id="20261102-020000-bbbbbb",
                    at=declared - 7 * timedelta(hours=1),
                    digest="ef" * 32,
                ),
            ),
            at=declared - 40 * SECOND,
            age=40 * SECOND,
        ),
        "place": Place(sandbox="s1", host="drillhost", project="recoup-drill-s1", kind="compose"),
        "steps": steps,
        "checks": (
            finding("table fingerprints match", "postgres", detail="42 tables", not_checked="unlogged tables"),
            finding("orders of today", "postgres", detail="1,204 rows, at least 1"),
        ),
        "flows": (
            FlowResult(
                name="a customer signs in and sees the orders",
                passes=3,
                attempts=4,
                steps=(
                    FlowStepResult(what="POST /login", act="post", verdict=Verdict.OK, detail="200", took=SECOND / 4),
                    FlowStepResult(
                        what="GET /orders", act="get", verdict=Verdict.OK, detail="200", took=SECOND, reads_data=True
                    ),
                ),
            ),
        ),
        "rto": Rto(declared=declared, healthy=declared + takes, objective=timedelta(hours=1), waiting=third,
            tiers={"critical": timedelta(hours=1)},
        ),
        "rpo": (
            Rpo(
                service="postgres", measured=lost, objective=5 * MINUTE, how="heartbeat row", tier="critical",
                newest=None if lost is None else declared - lost,
            ),
        ),
        "production": (
            Production(
                service="postgres", identity="7412345678901234567", before="LSN 0/3000060", after="LSN 0/3000120",
                verdict=Verdict.OK, detail="its own work only",
            ),
        ),
        "isolation": (finding("no way out of the sandbox's network", "recoup-drill-s1", detail="0 packets"),),
        "teardown": (finding("nothing of the sandbox is left", "s1"),),
        "not_tested": ("e-mail is not sent in a sandbox", "the switch of DNS was played through, not made"),
        "proves_data": ("flow: a customer signs in and sees the orders", "check: table fingerprints match"),
        "absent": ("lead",),
        "participants": (Participant(role="operations", name="Ada Lovelace", part="point the name at the new server"),),
        "issues": (),
        "tool": {"recoup": "0.1.0"},
    }  # fmt: skip
    return DrillRecord(**{**values, **changes})  # type: ignore[arg-type]
