"""Holding a drill: the part of ``recoup drill`` that runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recoup.kernel.errors import Exit, UsageError

if TYPE_CHECKING:
    from recoup.assembly.drill.hold import Held
    from recoup.assembly.drill.run import DrillWish
    from recoup.cli.output import Output
    from recoup.recovery.step import StepRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a drill that is held."""

    situation: str | None = None
    at: str | None = None
    source: str | None = None
    file: Path | None = None
    key_file: Path | None = None
    absent: tuple[str, ...] = ()
    announce: bool = False
    surprise: bool = False
    seed: int | None = None
    due: bool = False
    dry_run: bool = False


def run_drill(output: Output, asked: Asked, then: Callable[[str], None] = lambda _: None) -> Exit:
    """Hold a drill, or show its steps. The exit code is that of its verdict. ``then`` is given the drill's id."""
    from recoup.assembly.drill.hold import by_chance, hold
    from recoup.assembly.voice import Voice
    from recoup.cli.asking import asking_person, somebody_is_here
    from recoup.kernel.process import give_way
    from recoup.recovery.step import Watching

    if asked.surprise and (asked.situation is not None or asked.at is not None):
        raise UsageError("--surprise chooses the situation and the time itself", hint="Leave one of them out.")
    if asked.due:
        waits = _not_yet(output, asked)
        if waits is not None:
            return waits
    wish = _wish(asked)
    if asked.surprise:
        wish = by_chance(wish, asked.seed, output.note)
    ask = asking_person(output) if somebody_is_here() else None
    if asked.dry_run:
        return _show(output, wish, people=ask is not None)
    give_way()  # production comes first
    with output.progress() as listener:
        voice = Voice(say=output.note, on_progress=listener, ask=ask)
        watching = Watching(
            begins=lambda number, of, step: output.note(f"{number}/{of} {step.title}"),
            ended=lambda run: _say_run(output, run),
        )
        held = hold(wish, voice, watching, tell_team=asked.announce)
    _say_held(output, held)
    then(held.record.id)
    return held.exit_code


def _not_yet(output: Output, asked: Asked) -> Exit | None:
    """Say when the next drill is; None when it is now. One that runs already is left to itself."""
    from recoup.assembly.drill.run import LEASE
    from recoup.assembly.system import System
    from recoup.cli.due import drill_outlook
    from recoup.repository.lease import holder_of

    system = System.from_file(asked.file)
    ahead = drill_outlook(system)
    if not ahead.is_due:
        return ahead.say_nothing_is_due(output, "drill-due")
    ahead.note_silence(output)
    holder = holder_of(system.state_folder, LEASE)
    if holder is None:
        return None
    output.line(f"a drill is due, and one runs already: {holder}")
    output.document("drill-due", {"next": ahead.documents()})
    return Exit.OK


def clean_up(output: Output, file: Path | None) -> Exit:
    """Remove what killed drills have left; only those of this plan on this machine, and only of dead ones."""
    from recoup.assembly.drill.leftovers import clean
    from recoup.assembly.system import System

    system = System.from_file(file)
    removed = clean(system.state_folder, compose=system.plan.compose is not None)
    for one in removed:
        output.line(f"removed the sandbox {one}")
    if not removed:
        output.line("nothing was left")
    output.document("drill-clean", {"removed": list(removed)})
    return Exit.OK


def _wish(asked: Asked) -> DrillWish:
    from recoup.assembly.drill.book import open_book
    from recoup.assembly.drill.run import DrillWish
    from recoup.drill.state import next_situation
    from recoup.kernel.presence import login_name
    from recoup.recovery.instant import parse_instant
    from recoup.recovery.runbook import REHEARSED

    situation, zone = asked.situation, "UTC"
    if situation is not None and situation not in REHEARSED:
        raise UsageError(f"{situation} cannot be rehearsed", hint=f"What can be: {', '.join(REHEARSED)}.")
    if situation is None or asked.at is not None:
        opened = open_book(asked.file, asked.source, asked.key_file)
        if opened.system is not None:
            plan = opened.system.plan
            zone = plan.timezone
            wanted = [one for one in ((plan.drill and plan.drill.situations) or ()) if one in REHEARSED]
            situation = situation or next_situation(wanted, opened.book.records)
    instant = None if asked.at in (None, "latest") else parse_instant(str(asked.at), zone)
    return DrillWish(
        situation=situation or REHEARSED[0],
        instant=instant,
        source=asked.source,
        file=asked.file,
        key_file=asked.key_file,
        absent=asked.absent,
        declared_by=login_name(),
    )


def _show(output: Output, wish: DrillWish, *, people: bool) -> Exit:
    from recoup.assembly.drill.book import open_book
    from recoup.assembly.drill.run import show_steps
    from recoup.drill.codec import encode
    from recoup.drill.measure import forecast_whole
    from recoup.kernel.units import show_duration

    steps = show_steps(wish, people=people)
    likely = open_book(wish.file, wish.source, wish.key_file).likely(wish.situation)
    output.line(f"a drill of {wish.situation} would have these steps:")
    for number, step in enumerate(steps, start=1):
        known = likely.get(step.id)
        takes = "" if known is None else f"  (about {show_duration(known.p50)}, at worst {show_duration(known.p95)})"
        output.line(f"{number:>3}  {step.phase.value:<8} {step.kind:<8} {step.title}{takes}")
    whole, missing = forecast_whole([one.id for one in steps], likely)
    if whole is not None:
        unknown = f"; {len(missing)} steps have no history" if missing else ""
        output.line(f"together about {show_duration(whole.p50)}, at worst {show_duration(whole.p95)}{unknown}")
    document = [
        {"id": one.id, "title": one.title, "meaning": one.meaning, "kind": one.kind, "phase": one.phase.value,
         "forecast": encode(likely.get(one.id))}
        for one in steps
    ]  # fmt: skip
    output.document("drill-plan", {"situation": wish.situation, "steps": document, "forecast": encode(whole)})
    return Exit.OK


def _say_run(output: Output, run: StepRun) -> None:
    from recoup.kernel.finding import Verdict

    if run.verdict is not Verdict.OK:
        output.note(f"    {run.verdict.value}: {run.detail}" + (f"\n    hint: {run.hint}" if run.hint else ""))


def _say_held(output: Output, held: Held) -> None:
    from recoup.drill.codec import encode
    from recoup.drill.model import verdicts
    from recoup.kernel.units import show_duration

    record = held.record
    took = "not reached" if record.rto.measured is None else show_duration(record.rto.measured)
    lost = "not known" if record.lost is None else show_duration(record.lost)
    output.line(f"drill {record.id} of {record.situation}: {record.verdict.value}")
    output.line(f"time to recovery {took}, lost data {lost}")
    if record.stopped is not None:
        output.line(f"it stopped at: {record.stopped}")
    for name, verdict in verdicts(record):
        output.line(f"{verdict.value:<8}{name}")
    for one in record.issues:
        output.line(f"issue {one.id}: {one.text} ({one.owner}, due {one.due})")
    output.line(f"not tested: {len(record.not_tested)} things; see them with `recoup drill --show {record.id}`")
    for name, error in held.stored.items():
        if error is not None:
            output.note(f"{name}: the record was not stored: {error.message}")
    document: dict[str, Any] = {
        "id": record.id,
        "verdict": record.verdict.value,
        "record": encode(record),
        "stored": {name: None if error is None else error.message for name, error in held.stored.items()},
    }
    output.document("drill", document)
