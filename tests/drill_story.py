"""A year of drills for tests of what is shown: good ones, slow ones, one that failed, names that try to break out."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from recoup.drill.book import Book, stored_form
from recoup.drill.issues import Closing, ClosingProof, find_issues, track
from recoup.drill.model import DrillRecord, FlowResult, FlowStepResult, Rto, Step
from recoup.drill.report import Report, report_on
from recoup.kernel.finding import Verdict
from recoup.repository.drill_records import make_record
from recoup.repository.seal import Key
from recoup.repository.signature import public_key
from tests.drills import DECLARED, MINUTE, SECOND, a_drill, finding

KEY = Key.from_text("11" * 32)
HOSTILE = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(2)>\x00\x1b[31m"
#: Nothing that typst may take for its own language.
HOSTILE_TYPST = '#import "x" $a$ *b* _c_ @d `e` <f> \\ // ~ [g] #panic() "quoted" = h'


def hostile_drill(text: str, *, name: str = "20261101-090000-eeeeee") -> DrillRecord:
    """A drill whose every free text is ``text``."""
    drill = a_drill(name=name)
    steps = tuple(replace(one, title=text, detail=text, hint=text) for one in drill.steps)
    checks = tuple(
        replace(one, check=text, subject=text, detail=text, hint=text, not_checked=text) for one in drill.checks
    )
    flow = FlowStepResult(what=text, act="get", verdict=Verdict.FAILED, detail=text, hint=text)
    record = replace(
        drill, system=text, situation=text, declared_by=text, steps=steps, checks=checks, stopped=text,
        flows=(FlowResult(name=text, steps=(flow,)),), not_tested=(text,), proves_data=(text,), absent=(text,),
        participants=tuple(replace(one, role=text, name=text, part=text) for one in drill.participants),
        rpo=tuple(replace(one, service=text, how=text, tier=text) for one in drill.rpo),
        production=tuple(replace(one, service=text, identity=text, before=text, after=text, detail=text)
                         for one in drill.production),
        place=replace(drill.place, host=text, project=text), tool={text: text},
        plan=replace(drill.plan, version=text, parts={text: text}),
        point=replace(drill.point, target=text, repository=text, repository_id=text),
        rto=replace(drill.rto, tiers={text: MINUTE}),
    )  # fmt: skip
    return replace(record, issues=find_issues(record, [], [], owner=text, due=timedelta(days=1)))


def a_year() -> list[DrillRecord]:
    """Twelve drills of a year, the newest last; the seventh failed, the fourth measured nothing, the last is slower."""
    minutes = (41, 38, 36, 0, 33, 30, 75, 29, 27, 26, 25, 44)
    drills: list[DrillRecord] = []
    for month, took in enumerate(minutes):
        declared = DECLARED - timedelta(days=30 * (len(minutes) - 1 - month))
        drill = a_drill(
            name=f"{declared:%Y%m%d}-090000-aaaaa{month % 10}",
            declared=declared,
            takes=max(took, 1) * MINUTE,
            lost=(20 + 5 * month) * SECOND,
        )
        if not took:
            rto = Rto(declared=declared, healthy=None, objective=timedelta(hours=1))
            drill = replace(drill, rto=rto, stopped="the drill was killed", flows=())
        known = track(drills, ())
        drills.append(
            replace(drill, issues=find_issues(drill, drills, known, owner="operations", due=timedelta(days=14)))
        )
    return drills


def a_last_drill(drills: list[DrillRecord]) -> DrillRecord:
    """The newest of them with something of everything in it."""
    drill = drills[-1]
    step = Step(
        key="flow", title="users can do it", kind="machine", verdict=Verdict.FAILED, started=drill.ended - MINUTE,
        ended=drill.ended, detail="POST http://api:3000/pay: status 500, 200 is expected",
        hint="Look at the log of api.",
    )  # fmt: skip
    later = Step(key="last", title="tell the users", kind="person", verdict=Verdict.UNKNOWN)
    pays = FlowResult(
        name="a customer pays",
        attempts=9,
        steps=(
            FlowStepResult(
                what="POST http://api:3000/login", act="post", verdict=Verdict.OK, detail="status 200", took=SECOND
            ),
            FlowStepResult(
                what="POST http://api:3000/pay", act="post", verdict=Verdict.FAILED, took=SECOND,
                detail="status 500, 200 is expected",
            ),
            FlowStepResult(what="sql on postgres: select count(*) from payments", act="sql", verdict=Verdict.UNKNOWN,
                           detail="not tried, because a step before it did not pass"),
        ),
    )  # fmt: skip
    unknown = finding("indexes are whole", "postgres", Verdict.UNKNOWN, "pg_amcheck is not installed",
                      hint="Install postgresql-contrib in the image.", not_checked="every index")  # fmt: skip
    changed = replace(drill, steps=(*drill.steps, step, later), flows=(*drill.flows, pays),
                      checks=(*drill.checks, unknown), issues=())  # fmt: skip
    known = track(drills[:-1], ())
    return replace(changed, issues=find_issues(changed, drills[:-1], known, owner="operations", due=timedelta(days=14)))


def a_book(records: list[DrillRecord], closings: tuple[Closing, ...] = ()) -> Book:
    return Book(
        records=tuple(sorted(records, key=lambda one: one.declared, reverse=True)),
        closings=closings,
        places={one.id: ("local", "offsite") for one in records},
        digests={one.id: "5e" * 32 for one in records},
        signed={one.id: make_record(KEY, "records", one.id, stored_form(one)).signed or {} for one in records},
        failed={},
    )


def a_report(today: date = date(2026, 11, 20)) -> Report:
    """The report on the last drill of a year."""
    drills = a_year()
    drills[-1] = a_last_drill(drills)
    proof = ClosingProof(kind="drill", name=drills[8].id, sha256="0" * 64)
    failed = next(one for one in drills if one.issues)
    closing = Closing(
        id="20260901-090000-cccccc", issue=failed.issues[0].id, closed=drills[8].ended, by="Ada Lovelace",
        because="the restore runs on two disks now", proof=proof,
    )  # fmt: skip
    book = a_book(drills, (closing,))
    return report_on(drills[-1], book, signer=public_key(KEY), key_id="ea7fd3c809eee230", today=today)
