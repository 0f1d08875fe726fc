"""Goes through the post-recovery checklist: finds out what a machine can know, and asks people for the rest."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from recoup.assembly.drill.compose import taking_part
from recoup.assembly.drill.flows import flow_specs
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.protect import Sources, came_back, copy_kind, copy_since, described, timeline_of
from recoup.assembly.stack import Stack, try_stack
from recoup.assembly.system import System
from recoup.assembly.watch.notes import instant_of, read_note
from recoup.assembly.watch.pings import PINGS_NOTE
from recoup.assembly.watch.survey import Survey, daemon_state, survey
from recoup.assembly.watch.symptoms import look_at_services
from recoup.backup.run_records import read_daemon, read_workers
from recoup.drill.in_production import why_not
from recoup.engines.compose.answers import ask as ask_address
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.objectives.standing import Stream
from recoup.recovery.checklist import (
    CONFIRMED,
    Container,
    Database,
    Facts,
    Item,
    Ping,
    answered,
    answers,
    checklist,
    left_to_people,
)
from recoup.recovery.diagnosis import Seen
from recoup.recovery.progress import Progress
from recoup.recovery.step import Act, Phase, Step
from recoup.repository.heartbeat import Heartbeat, read_heartbeats

#: A stream begins again by itself: its worker tries once a minute at least, and stores within seconds.
STREAM_SECONDS: Final = 150.0
_AGAIN_SECONDS: Final = 2.0


def go_through(recovery: Recovery, *, stream_seconds: float = STREAM_SECONDS) -> tuple[Item, ...]:
    """Every point of the list, as it is now. Streams that are beginning are waited for; people are asked.

    What they answer is journaled, and not asked again unless they said no. Raise ``RecoupError`` when the journal
    cannot be written, or the plan and its key are not there.
    """
    deadline = clock.monotonic() + stream_seconds
    project = try_stack(recovery.system)
    items = _computed(recovery, project)
    while _beginning(recovery, items) and clock.monotonic() < deadline:
        clock.pause(_AGAIN_SECONDS)
        if isinstance(project, RecoupError):
            project = try_stack(recovery.system)
        items = _computed(recovery, project)
    for item in left_to_people(items):
        if not _ask(recovery, item):
            break  # nobody is there
    return _with_answers(recovery, items)


def _beginning(recovery: Recovery, items: Sequence[Item]) -> bool:
    """Whether a stream is not live yet and somebody is there to make it live: waiting may help."""
    late = [one for one in items if one.id.startswith("stream-") and one.verdict is not Verdict.OK]
    return bool(late) and _daemon_runs(recovery)


def _daemon_runs(recovery: Recovery) -> bool:
    return daemon_state(read_daemon(recovery.system.state_folder), clock.now()) == "running"


def _ask(recovery: Recovery, item: Item) -> bool:
    """Ask a person; whether anybody answered."""
    if recovery.voice.ask is None:
        return False
    meaning = " ".join(filter(None, (item.asks, item.finding.detail)))
    step = Step(id=f"checklist-{item.id}", title=item.finding.check, meaning=meaning, act=Act.ASK, phase=Phase.AFTER)
    answer = recovery.voice.ask(step)
    if answer is None:
        return False
    recovery.journal.append(CONFIRMED, item=item.id, yes=answer, asked=item.asks)
    return True


def _with_answers(recovery: Recovery, items: Sequence[Item]) -> tuple[Item, ...]:
    """The same points with what was answered meanwhile."""
    return answered(items, answers(recovery.journal.lines))


def _computed(recovery: Recovery, project: Stack | RecoupError | None) -> tuple[Item, ...]:
    return checklist(facts_of(recovery, project), answers(recovery.journal.lines))


# -- facts -----------------------------------------------------------------------------------------------------------


def facts_of(recovery: Recovery, project: Stack | RecoupError | None) -> Facts:
    """Look at everything that the list is about. What cannot be found out is in the facts as that.

    ``project`` is as ``try_stack`` gives it.
    """
    system, progress, now = recovery.system, recovery.progress, clock.now()
    known = survey(system, now)
    seen = {one.service: one for one in look_at_services(system, now, known, project)}
    back = [found for name in system.plan.databases() if (found := came_back(recovery, name)) is not None]
    containers, trouble = _containers(system, project)
    since = min(back, default=progress.begun)
    # Asked of every repository, while the list waits again and again: only where no daemon here says it better.
    beats = () if known.facts.daemon == "running" else _beats(system, known)
    return Facts(
        situation=progress.situation,
        since=since,
        containers=containers,
        trouble=trouble,
        databases=tuple(_database(recovery, name, seen[name], known, beats) for name in system.plan.databases()),
        users={
            name: one.verdict if one.standing == "done" else Verdict.UNKNOWN
            for name, one in progress.steps.items()
            if name == "flows" or name.startswith("health-")
        },
        undone=tuple(one.name for one in flow_specs(system.plan) if why_not(one) is not None),
        silent=tuple(one.name for one in known.facts.repositories if one.error is not None and not one.missing),
        daemon=known.facts.daemon,
        pings=_pings(system),
        metrics=_metrics(system),
        key_file=_key_file(system),
        noted=_noted(system, project),
    )


def _containers(system: System, project: Stack | RecoupError | None) -> tuple[tuple[Container, ...] | None, str]:
    """How the services of the Compose project are; None without one. And why that could not be found out."""
    if project is None:
        return None, ""
    if isinstance(project, RecoupError):
        return (), project.message
    found: list[Container] = []
    named = {getattr(one, "compose", None) or name for name, one in system.plan.services.items()}
    try:
        there = project.client.containers()
    except RecoupError as failure:
        return (), failure.message
    for name in taking_part(system.plan, project.project):
        mine = [one for one in there if one.service == name]
        # What the plan names serves users, and does not end by itself.
        bad = [one for one in mine if not one.well and (name in named or not project.client.is_over(one))]
        words = ", ".join(" ".join(filter(None, (one.state, one.health))) for one in bad or mine) or "no container"
        found.append(Container(service=name, well=bool(mine) and not bad, words=words))
    return tuple(found), ""


def _database(recovery: Recovery, name: str, seen: Seen, known: Survey, beats: Sequence[Heartbeat]) -> Database:
    system, progress = recovery.system, recovery.progress
    kind, back = copy_kind(system, name), came_back(recovery, name)
    try:
        timeline = timeline_of(system, name)
    except RecoupError:
        timeline = None  # that it does not answer is said already
    sources = Sources(catalog=known.catalog, opened=known.opened)
    entry = copy_since(system, sources, name, back, timeline if back is not None else None)
    facts = next(one for one in known.facts.services if one.name == name)
    until = [
        one.streamed_until
        for beat in beats
        for one in beat.promises
        if one.service == name and one.streamed_until is not None
    ]
    return Database(
        service=name,
        kind=kind,
        answers=seen.answers,
        wrong=(*seen.damage, *seen.wrong, *([seen.data] if seen.data in ("emptied", "foreign", "missing") else [])),
        unasked=seen.unasked,
        detail=seen.detail,
        looks=looks_of(progress, name),
        since=back or progress.begun,
        copy=None if entry is None else described(system, entry, known.opened),
        timeline=timeline,
        stream=facts.streams[0] if facts.streams else None,
        streamed_timeline=_streamed_timeline(system, name, facts.streams),
        elsewhere=max(until, default=None),
    )


def looks_of(progress: Progress, name: str) -> dict[str, Verdict]:
    """What the run's own looks at a database came to. A step that was left out looked at nothing.

    Where bringing the data back was left out, what a later step looked at are the data of before.
    """
    looking = (f"choose-{name}", f"start-{name}", f"checks-{name}")
    bringing = (f"restore-{name}", f"swap-{name}", f"place-{name}")
    steps = {one: progress.steps[one] for one in looking if one in progress.steps}
    steps |= {
        one: progress.steps[one]
        for one in bringing
        if one in progress.steps and progress.steps[one].standing == "skipped"
    }
    return {one: stands.verdict if stands.standing == "done" else Verdict.UNKNOWN for one, stands in steps.items()}


def _streamed_timeline(system: System, name: str, streams: Sequence[Stream]) -> int | None:
    if not streams or streams[0].kind != "wal":
        return None
    said = next((one for one in read_workers(system.state_folder) if one.name == f"wal {name}"), None)
    found = None if said is None else said.facts.get("timeline")
    return found if isinstance(found, int) else None


def _beats(system: System, known: Survey) -> tuple[Heartbeat, ...]:
    """What daemons on other machines say of this system, as far as it is no older than they promised."""
    found: list[Heartbeat] = []
    for repository in known.opened:
        try:
            beats = read_heartbeats(repository)
        except RecoupError:
            continue
        found += [
            one
            for one in beats
            if one.system == system.plan.system
            and known.facts.now - one.written < max(3 * one.every, timedelta(minutes=1))
        ]
    return tuple(found)


def _pings(system: System) -> tuple[Ping, ...]:
    known = read_note(system.state_folder / PINGS_NOTE)
    found = []
    for name in system.plan.pings:
        said = known.get(name)
        said = said if isinstance(said, dict) else {}
        error = str(said["error"]) if said.get("error") else None
        found.append(Ping(name=name, taken=instant_of(said.get("taken")), error=error))
    return tuple(found)


def _metrics(system: System) -> Finding | None:
    if system.plan.metrics is None:
        return None
    address = f"http://{system.plan.metrics}/metrics"
    said = ask_address(address)
    return Finding(
        check="monitoring can read the metrics", subject=address,
        verdict=Verdict.OK if said.well else Verdict.FAILED, detail=said.said,
        hint=None if said.well else "The daemon serves them: systemctl start recoup-daemon.",
    )  # fmt: skip


def _key_file(system: System) -> Finding | None:
    """Whether the backup key is for its owner alone: it was brought here in a hurry."""
    if system.plan.key.file is None:
        return None
    path = system.resolver.path(system.plan.key.file)
    check = "the backup key is readable by its owner alone"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as failure:
        hint = "The daemon needs it there: put it back from the recovery kit, with mode 0600."
        said = failure.strerror or str(failure)
        return Finding(check=check, subject=str(path), verdict=Verdict.FAILED, detail=said, hint=hint)
    open_ = bool(mode & 0o077)
    return Finding(
        check=check, subject=str(path), verdict=Verdict.FAILED if open_ else Verdict.OK, detail=f"mode {mode:04o}",
        hint=f"chmod 600 {path}" if open_ else None,
    )  # fmt: skip


def _noted(system: System, project: Stack | RecoupError | None) -> tuple[str, ...]:
    """What a person should know who says that nobody has access: it may have been so before, and may be meant."""
    if system.plan.compose is None:
        return ()
    secrets = [system.resolver.path(one) for one in system.plan.compose.env_files]
    found = [
        f"everybody on this machine can read {path.name}"
        for path in secrets
        if path.is_file() and path.stat().st_mode & 0o004
    ]
    if not isinstance(project, Stack):
        return tuple(found)
    services = project.project.services
    for name, one in system.plan.databases().items():
        ports = services[one.compose].ports if one.compose is not None and one.compose in services else ()
        if any(port.everywhere for port in ports):
            found.append(f"{name} is published to every network of this machine")
    return tuple(found)
