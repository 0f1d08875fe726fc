"""What a recovery would do (``--plan``), and how far one is or how it went (``--show``). Nothing is changed."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from recoup.cli.recover_asked import Asked, wish_of
from recoup.kernel import clock
from recoup.kernel.errors import Exit
from recoup.kernel.finding import Verdict, exit_code
from recoup.kernel.units import show_duration
from recoup.recovery.attained import Attained, Moment, StepTime, attained
from recoup.recovery.progress import ABANDONED, ROLLED_BACK, Standing

if TYPE_CHECKING:
    from recoup.cli.output import Output

_WORDS: Final[dict[Standing, str]] = {
    "waiting": "",
    "begun": "now",
    "done": "ok",
    "failed": "FAILED",
    "skipped": "left out",
}


#: How a run ended.
_ENDED: Final = {
    "ok": "done and proven",
    "failed": "done, and something is wrong",
    ABANDONED: "given up",
    ROLLED_BACK: "rolled back: production is as it was before it",
}


def show_plan(output: Output, asked: Asked) -> Exit:
    """Print the runbook: exactly the steps that the run would take."""
    from recoup.assembly.recover.forecast import expect
    from recoup.assembly.recover.run import show_steps
    from recoup.cli.output import to_json, write_out
    from recoup.recovery.printed import Runbook, as_document, as_markdown, as_text

    wish = wish_of(asked)
    opened, system, steps = show_steps(wish)
    expected = expect(opened, system, wish.situation, steps)
    options = [word for one in asked.services for word in ("--service", one)]
    options += ["--to-time", asked.to_time] if asked.to_time else []
    options += ["--destination", str(asked.destination)] if asked.destination else []
    book = Runbook(
        system=system.plan.system,
        situation=wish.situation,
        steps=steps,
        outlook=expected.outlook,
        made=clock.now(),
        command=asked.command(wish.situation, *map(shlex.quote, options)),
        two_people=system.plan.recovery.two_people,
        silent=expected.silent,
    )
    if expected.under_way is not None:
        again = asked.command("--resume")
        output.note(f"run {expected.under_way} is under way, and the same command goes on with it: {again}")
        output.note("what follows is what a new one would do, as things are now")
    match asked.form:
        case "json":
            write_out(to_json({"schema": "recoup.recover-plan/1", **as_document(book)}))
        case "md":
            write_out(as_markdown(book))
        case _:
            write_out(as_text(book))
    return Exit.OK


def show(output: Output, asked: Asked) -> Exit:
    """Show a run: the one that goes on, or how one went. Exit code 0 when it is done and proven; else 3, 4."""
    from recoup.assembly.recover.resume import carried_out_by, find_run, runs_here
    from recoup.kernel.presence import boot_id

    opened, runs = runs_here(asked.file, asked.source, asked.key_file)
    seen = find_run(runs, asked.run)
    if seen.progress is None:
        assert seen.damage is not None, "only runs that were begun are found"
        raise seen.damage
    zone = "UTC" if opened.system is None else opened.system.plan.timezone
    going = None
    if seen.progress.ended is None:
        going = carried_out_by(opened, str(seen.progress.facts.get("system", "")))
    now = None if going is None else Moment(at=clock.now(), clock=clock.monotonic(), boot=boot_id())
    found = attained(seen.lines, now)
    assert found is not None, "only runs that were begun are found"
    last = seen.lines[-1]
    output.line(_standing(found, going, last.at, asked))
    closed = [f"{name}: {failure.message}" for name, failure in opened.failed.items()]
    for said in (*([seen.damage.message] if seen.damage is not None else []), *closed, *seen.silent):
        output.note(f"not the whole truth: {said}")
    output.line(f"declared {_time(found.declared, zone)} by {found.declared_by} on {seen.lines[0].host}")
    if found.detected is not None:
        output.line(f"detected {_time(found.detected, zone)}, {show_duration(found.before)} before")
    say_attained(output, found)
    output.table(("", "step", "", "time", ""), [_row(number, one) for number, one in enumerate(found.steps, start=1)])
    others = [one.run for one in runs if one.run != seen.run and one.progress is not None]
    if others:
        output.line(f"other runs: {', '.join(others[-5:])}")
    output.document(
        "recover-show",
        {"run": seen.run, "carried_out_by": going, "last_line": clock.to_text(last.at), **attained_document(found)},
    )
    return Exit.OK if going is not None else exit_code(found.progress.verdict)


def _standing(found: Attained, going: str | None, last: datetime, asked: Asked) -> str:
    progress = found.progress
    said = f"recovery from {progress.situation}, run {progress.run}: "
    if progress.rolling_back:
        how = f"finish it: {asked.command('--rollback', progress.run)}" if going is None else f"carried out by: {going}"
        return f"{said}putting back what it replaced was begun and is not over; {how}"
    if progress.ended is not None:
        return said + _ENDED.get(progress.ended, "done, and not everything could be proven") + _closed(found)
    current = next((one for one in found.steps if one.progress.standing in ("begun", "failed", "waiting")), None)
    if current is None:
        at = "every step is over"
    else:
        number = found.steps.index(current) + 1
        at = f"at step {number} of {len(found.steps)}, {current.step.id}"
    if going is not None:
        return f"{said}{at}; carried out by: {going}"
    idle = max(clock.now() - last, timedelta(0))
    command = asked.command("--resume", progress.run)
    return f"{said}{at}; nobody carries it out from here (its last line is {show_duration(idle)} old): {command}"


def _closed(found: Attained) -> str:
    return "; it is closed" if found.closed else "; it is not closed yet: nothing expires, and what it replaced is kept"


def _row(number: int, one: StepTime) -> tuple[object, ...]:
    took = one.machine + one.people
    said = one.progress.detail
    if one.progress.standing == "done" and one.progress.verdict is not Verdict.OK:
        said = f"not proven: {said}"
    return (
        number,
        one.step.id,
        _WORDS[one.progress.standing],
        show_duration(took) if took else "",
        said or (one.step.title if one.progress.standing in ("begun", "waiting") else ""),
    )


def say_attained(output: Output, found: Attained) -> None:
    """The clock against the promises."""
    output.line(_rto(found))
    spent = found.spent
    parts = [
        (spent["machine"], "the machine worked"),
        (spent["people"], "people were waited for"),
        (spent["still"], "it stood still"),
    ]
    told = ", ".join(f"{show_duration(time)} {what}" for time, what in parts if time)
    if told:
        output.line(f"of that, {told}")
    if found.restored is not None:
        output.line(f"databases were back after {show_duration(found.restored)}")
    for one in found.lost:
        promised = "no RPO is promised" if one.objective is None else f"RPO {show_duration(one.objective)}"
        if one.measured is None:
            output.line(f"{one.service}: lost data not known: {one.how}; {promised}")
        else:
            kept = {Verdict.OK: ": kept", Verdict.FAILED: ": MISSED", Verdict.UNKNOWN: ""}[one.verdict]
            loses = "loses" if found.healthy is None else "lost"
            output.line(f"{one.service}: {loses} {show_duration(one.measured)} ({one.how}); {promised}{kept}")
    for jump in found.jumps:
        output.line(str(jump))


def _rto(found: Attained) -> str:
    since = "after it was detected" if found.detected is not None else "after the declaration"
    promised = "no RTO is promised" if found.rto is None else f"RTO {show_duration(found.rto)}"
    time = found.recovery_time
    if time is None:
        words = {Verdict.FAILED: ": MISSED already", Verdict.OK: "", Verdict.UNKNOWN: ""}[found.rto_verdict]
        if found.progress.ended is not None:
            return f"users were not brought back by it; {promised}"
        return f"users are not back yet, {show_duration(found.before + found.so_far)} {since}; {promised}{words}"
    words = {
        Verdict.OK: ": kept",
        Verdict.FAILED: ": MISSED",
        Verdict.UNKNOWN: "" if found.rto is None else ": whether it is kept is not proven",
    }[found.rto_verdict]
    return f"users were back {show_duration(time)} {since}; {promised}{words}"


def _time(instant: datetime, zone: str) -> str:
    return f"{instant.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}"


def attained_document(found: Attained) -> dict[str, Any]:
    """The clock of a run for programs. Times are seconds after the declaration; None is unknown, or not yet."""
    progress = found.progress
    return {
        "run": progress.run,
        "system": progress.facts.get("system"),
        "situation": progress.situation,
        "ended": progress.ended,
        "closed": found.closed,
        "detected": clock.optional_text(found.detected),
        "declared": clock.to_text(found.declared),
        "declared_by": found.declared_by,
        "restored_seconds": _seconds(found.restored),
        "healthy_seconds": _seconds(found.healthy),
        "so_far_seconds": _seconds(found.so_far),
        "spent_seconds": {name: _seconds(time) for name, time in found.spent.items()},
        "rto": {
            "attained_seconds": _seconds(found.recovery_time),
            "objective_seconds": _seconds(found.rto),
            "verdict": found.rto_verdict.value,
        },
        "rpo": [
            {
                "service": one.service,
                "newest": clock.optional_text(one.newest),
                "how": one.how,
                "attained_seconds": _seconds(one.measured),
                "objective_seconds": _seconds(one.objective),
                "verdict": one.verdict.value,
            }
            for one in found.lost
        ],
        "clock_jumps": [
            {"at": clock.to_text(one.at), "seconds": round(one.seconds, 3), "restarted": one.restarted}
            for one in found.jumps
        ],
        "steps": [_step_document(number, one) for number, one in enumerate(found.steps, start=1)],
    }


def _step_document(number: int, one: StepTime) -> dict[str, Any]:
    return {
        "number": number,
        "id": one.step.id,
        "title": one.step.title,
        "phase": one.step.phase.value,
        "standing": one.progress.standing,
        "verdict": one.progress.verdict.value,
        "attempts": one.progress.attempts,
        "approved_by": one.progress.approved_by,
        "begun": clock.optional_text(one.progress.first_begun),
        "ended": clock.optional_text(one.progress.ended),
        "machine_seconds": _seconds(one.machine),
        "people_seconds": _seconds(one.people),
        "detail": one.progress.detail,
    }


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else round(time.total_seconds(), 3)
