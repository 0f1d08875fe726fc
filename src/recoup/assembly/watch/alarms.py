"""Tells people what is wrong, leaves the heartbeat in the repositories, and notes down how things stand: one worker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from recoup.assembly.system import System
from recoup.assembly.watch.metrics import MetricsServer, families
from recoup.assembly.watch.notes import instant_of, note_history, read_note, write_note
from recoup.assembly.watch.pings import note_delivery
from recoup.assembly.watch.survey import Survey, survey
from recoup.backup.run_records import record_worker
from recoup.backup.worker import Worker
from recoup.channels import message as outgoing
from recoup.channels import people
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration
from recoup.objectives.alarms import Alarm, alarms
from recoup.objectives.announcing import Episode, Known, Message, Policy, due, not_sent, observe, sent
from recoup.repository.heartbeat import Heartbeat, Promise, write_heartbeat
from recoup.repository.lease import hold_lease

#: How often everything is looked at.
EVERY: Final = timedelta(minutes=2)
#: How often the heartbeat is renewed: each time is a version to keep where objects are locked.
BEAT: Final = timedelta(minutes=5)
_NOTE: Final = "alarms.json"
_STATUS_PAGE: Final = "status-page"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What one round found and did. ``error``: a message was due and nobody took it."""

    survey: Survey
    alarms: tuple[Alarm, ...]
    message: Message | None
    error: str | None
    not_beating: Mapping[str, str]  #: repositories that did not take the heartbeat, and why


class AlarmWorker:
    """Implements ``backup.worker.Worker``."""

    def __init__(self, system: System, every: timedelta = EVERY) -> None:
        self._system, self._every = system, every
        self.name = "alarms"
        self._skews: dict[str, float] = {}
        self._seldom_at = -1e9

    def run(self, stop: threading.Event) -> None:
        """See ``Worker``."""
        listening = self._system.plan.metrics
        with contextlib.ExitStack() as stack:
            server = None if listening is None else stack.enter_context(MetricsServer(listening))
            while True:
                seldom = clock.monotonic() - self._seldom_at >= BEAT.total_seconds()
                done = announce(self._system, clock.now(), with_heartbeat=seldom)
                if server is not None:
                    server.show(families(done.survey, done.alarms))
                if seldom:
                    self._skews = clock_skews(self._system)
                    if done.survey.opened and not done.not_beating:  # else again with the next look
                        self._seldom_at = clock.monotonic()
                facts: dict[str, Any] = {
                    "alarms": len(done.alarms),
                    "error": done.error,
                    "skews": self._skews,
                    "not_beating": dict(done.not_beating),
                    "metrics": listening,
                }
                record_worker(self._system.state_folder, self.name, facts)
                if stop.wait(self._every.total_seconds()):
                    return


def alarm_workers(system: System) -> list[Worker]:
    """The worker of a plan that tells people, beats, and serves metrics."""
    return [AlarmWorker(system)]


def announce(system: System, now: datetime, *, with_heartbeat: bool = True) -> Announced:
    """One round: look, tell what is due to be told, renew the heartbeat. Nothing that is wrong is raised.

    Raise ``BusyError`` when another process does the same, ``RecoupError`` when the state folder cannot be written.
    """
    with hold_lease(system.state_folder, "alarms", "telling of alarms"):
        found = survey(system, now)
        present = alarms(found.facts)
        path = system.state_folder / _NOTE
        policy = Policy(every=system.plan.alarms.every)
        known = observe(_read(path), present, now, policy)
        message, error = due(known, now, policy), None
        channels = channels_of(system)
        if message is not None and channels:
            error = tell(system, channels, as_text(system.plan.system, message, now))
            known = sent(known, message, now) if error is None else not_sent(known, now)
        elif message is not None:
            known = sent(known, message, now)  # nobody is to be told; status shows it
        write_note(path, _written(known))
        losses = {one.name: one.standing.rpo_now for one in found.facts.services if one.standing.rpo_now is not None}
        used = {one.name: one.used_bytes for one in found.facts.repositories if one.used_bytes is not None}
        note_history(system.state_folder, now, used=used, losses=losses)
        silent = beat(found, present, now) if with_heartbeat else {}
        return Announced(survey=found, alarms=present, message=message, error=error, not_beating=silent)


def channels_of(system: System) -> tuple[str, ...]:
    """The channels that hear of alarms: those of ``alarms.to``, or of ``communication.critical``."""
    plan = system.plan
    if plan.alarms.to is not None:
        return plan.alarms.to
    return () if plan.communication.critical is None else plan.communication.critical.notify


def tell(system: System, channels: Sequence[str], message: outgoing.Message) -> str | None:
    """Send to each channel. None when one of them took it at least; the others are noted down. Never raises."""
    errors: list[str | None] = []
    for name in channels:
        templates = [one for one in system.plan.channels[name] if one.text != _STATUS_PAGE]
        if not templates:
            continue
        try:
            addresses = [system.resolver.resolve(one) for one in templates]
        except RecoupError as failure:
            delivered = outgoing.Delivered(error=failure.message)
        else:
            delivered = people.send(addresses, message)
        note_delivery(system, "channels.json", name, delivered)
        if delivered.error is None:
            errors.append(None)
        else:
            errors.append(f"{name}: {delivered.error}")
    if not errors or None in errors:
        return None
    return "; ".join(one for one in errors if one is not None)


def as_text(system: str, message: Message, now: datetime) -> outgoing.Message:
    """A message as people read it: what is new first, each with what to do."""
    lines: list[str] = []
    for heading, episodes in (("", message.began), ("Still:", message.lasts), ("Over:", message.ended)):
        if episodes and heading:
            lines += ["", heading] if lines else [heading]
        for episode in episodes:
            lines += _lines(episode, now, over=episodes is message.ended)
    bad = [*message.began, *message.lasts]
    if not bad:
        title, mood = f"Recoup: {system}: over", "success"
    else:
        worst = "critical" if any(one.alarm.severity == "critical" for one in bad) else "warning"
        title = f"Recoup: {system}: {worst}: {bad[0].alarm.what}"
        title = title if len(bad) == 1 else f"Recoup: {system}: {worst}: {len(bad)} alarms"
        mood = "failure" if worst == "critical" else "warning"
    lines += ["", f"{clock.to_text(now)[:19]}Z. `recoup status` shows everything."]
    return outgoing.Message(title=title[:200], body="\n".join(lines), mood=mood)  # type: ignore[arg-type]


def _lines(episode: Episode, now: datetime, *, over: bool) -> list[str]:
    alarm = episode.alarm
    since = alarm.since or episode.first_seen
    if over:
        lasted = (episode.gone_since or now) - since
        return [f"- over: {alarm.what} (it lasted {show_duration(max(lasted, timedelta(0)))})"]
    word = "UNKNOWN" if alarm.verdict is Verdict.UNKNOWN else alarm.severity.upper()
    ago = show_duration(max(now - since, timedelta(0)))
    return [f"- {word}: {alarm.what} (for {ago})", f"  {alarm.hint}"]


def beat(found: Survey, present: Sequence[Alarm], now: datetime) -> dict[str, str]:
    """Renew the heartbeat in every repository that is open; who did not take it, and why."""
    promises = tuple(
        Promise(
            service=one.name,
            rpo=one.objective.rpo,
            rto=one.objective.rto,
            streamed_until=max((s.as_of for s in one.streams if s.as_of is not None and s.gap is None), default=None),
        )
        for one in found.facts.services
    )
    heartbeat = Heartbeat(
        system=found.system,
        written=now,
        every=BEAT,
        verdict=verdict_of(found, present).value,
        alarms=tuple(one.what for one in present),
        promises=promises,
    )
    silent = {}
    for repository in found.opened:
        try:
            write_heartbeat(repository, heartbeat)
        except RecoupError as failure:
            silent[repository.name] = failure.message
    return silent


def verdict_of(found: Survey, present: Sequence[Alarm]) -> Verdict:
    """The whole: failed when something is, else unknown when something could not be found out, else ok."""
    verdicts = {one.verdict for one in present} | {one.standing.verdict for one in found.facts.services}
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    return Verdict.UNKNOWN if Verdict.UNKNOWN in verdicts else Verdict.OK


def clock_skews(system: System) -> dict[str, float]:
    """How far the clocks of the repositories' servers are ahead of this one, in seconds, by their own Date headers."""
    import urllib3

    skews: dict[str, float] = {}
    for name, described in system.plan.repositories.items():
        if described.url is None:
            continue
        with contextlib.suppress(RecoupError, urllib3.exceptions.HTTPError, ValueError, TypeError):
            endpoint = (
                f"https://s3.{described.region or 'us-east-1'}.amazonaws.com"
                if described.endpoint is None
                else system.resolver.text(described.endpoint)
            )
            with urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=5), retries=False) as pool:
                answer = pool.request("HEAD", endpoint, redirect=False)
            ahead = parsedate_to_datetime(answer.headers["Date"]) - clock.now()
            skews[name] = round(ahead.total_seconds(), 1)
    return skews


def _read(path: Path) -> Known:
    said = read_note(path)
    episodes: dict[str, Episode] = {}
    for key, one in said.get("episodes", {}).items() if isinstance(said.get("episodes"), dict) else ():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            alarm = Alarm(
                key=key, subject=str(one["subject"]), severity=one["severity"], what=str(one["what"]),
                hint=str(one["hint"]), verdict=Verdict(one["verdict"]), since=instant_of(one["since"]),
                hold=timedelta(seconds=one["hold_seconds"]),
            )  # fmt: skip
            first = instant_of(one["first_seen"])
            if first is not None:
                episodes[key] = Episode(
                    alarm=alarm,
                    first_seen=first,
                    gone_since=instant_of(one["gone_since"]),
                    told=instant_of(one["told"]),
                    told_severity=one["told_severity"],
                )
    failures = said.get("failures", 0)
    return Known(
        episodes=episodes,
        last_message=instant_of(said.get("last_message")),
        last_attempt=instant_of(said.get("last_attempt")),
        failures=failures if isinstance(failures, int) else 0,
    )


def _written(known: Known) -> dict[str, Any]:
    return {
        "episodes": {
            key: {
                "subject": one.alarm.subject,
                "severity": one.alarm.severity,
                "what": one.alarm.what,
                "hint": one.alarm.hint,
                "verdict": one.alarm.verdict.value,
                "since": clock.optional_text(one.alarm.since),
                "hold_seconds": one.alarm.hold.total_seconds(),
                "first_seen": clock.optional_text(one.first_seen),
                "gone_since": clock.optional_text(one.gone_since),
                "told": clock.optional_text(one.told),
                "told_severity": one.told_severity,
            }
            for key, one in known.episodes.items()
        },
        "last_message": clock.optional_text(known.last_message),
        "last_attempt": clock.optional_text(known.last_attempt),
        "failures": known.failures,
    }
