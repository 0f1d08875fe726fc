"""The post-recovery checklist: what must be well again before a recovery is closed. Pure.

What a machine can know is computed from what was found out, each time anew. What only a person can know is asked, and
the answer is in the journal with who gave it and when. Nobody can tick off what a machine saw to be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal

from recoup.kernel import clock
from recoup.kernel.finding import Finding, Verdict, worst
from recoup.objectives.standing import Stream
from recoup.recovery.journal import Line

#: The event of a journal's line that holds a person's answer.
CONFIRMED: Final = "confirmed"

_PROVEN: Final = ("intact", "boots", "sound", "same", "works")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One Compose service that should run. ``words`` say how it is."""

    service: str
    well: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCopy:
    """A copy that was begun after the data came back. ``grade`` is what is proven; ``missing_in`` is who lacks it."""

    id: str
    kind: str
    grade: str | None
    missing_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database as it is now. ``looks`` are the run's own looks at it: a verdict for each step.

    ``timeline`` is the server's; ``streamed_timeline`` what its stream was last seen on. ``elsewhere`` is until when
    another machine says that everything is streamed.
    """

    service: str
    kind: str  #: of the copies that it is brought back from: ``base``, ``rdb``
    answers: bool | None
    wrong: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    detail: str = ""
    looks: Mapping[str, Verdict] = field(default_factory=dict)
    since: datetime  #: when its data came back; what was copied before is a copy of other data
    copy: NewCopy | None = None
    timeline: int | None = None
    stream: Stream | None = None  #: None: the plan wants none
    streamed_timeline: int | None = None
    elsewhere: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A dead-man ping of the plan: when it was last taken, or why not."""

    name: str
    taken: datetime | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out. ``since`` is when the first data came back; ``containers`` None: there is no Compose stack.

    ``users`` are the run's looks at health and flows; ``undone`` flows that were not done in production. ``trouble``
    says why the container engine could not be asked, ``silent`` which repositories did not answer.
    """

    situation: str
    since: datetime
    containers: tuple[Container, ...] | None
    trouble: str = ""
    databases: tuple[Database, ...] = ()
    users: Mapping[str, Verdict] = field(default_factory=dict)
    undone: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    daemon: Literal["running", "stopped", "silent", "never"] = "never"
    pings: tuple[Ping, ...] = ()
    metrics: Finding | None = None
    key_file: Finding | None = None
    noted: tuple[str, ...] = ()  #: what somebody who judges the security should know


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One point of the list. ``asks`` is the question to a person; empty where a machine knows.

    ``later``: users and their data are well without it, so that it only has to be done before the recovery is closed.
    """

    id: str
    finding: Finding
    asks: str = ""
    later: bool = False

    @property
    def verdict(self) -> Verdict:
        """Ok when the point is done."""
        return self.finding.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a person answered."""

    yes: bool
    who: str
    at: datetime


def answers(lines: Sequence[Line]) -> dict[str, Said]:
    """What people answered so far, by item; the last word counts."""
    return {
        str(line.data["item"]): Said(yes=line.data.get("yes") is True, who=line.who, at=line.at)
        for line in lines
        if line.event == CONFIRMED and "item" in line.data
    }


def checklist(facts: Facts, said: Mapping[str, Said]) -> tuple[Item, ...]:
    """Every point, in the order in which one looks at them."""
    found = [_services(facts)]
    found += [_integrity(one) for one in facts.databases]
    found.append(_users(facts))
    found += [replace(_ping(one, facts), later=True) for one in facts.pings]
    if facts.metrics is not None:
        found.append(Item(id="metrics", finding=facts.metrics, later=True))
    for one in facts.databases:
        found.append(_copy(one, facts))
        if one.stream is not None:
            found.append(_stream(one, one.stream, facts))
    if facts.key_file is not None:
        found.append(Item(id="key-file", finding=facts.key_file, later=True))
    found += _people(facts)
    return answered(found, said)


def answered(items: Sequence[Item], said: Mapping[str, Said]) -> tuple[Item, ...]:
    """Points with what people said of them."""
    return tuple(_answered(one, said.get(one.id)) for one in items)


def open_items(items: Sequence[Item]) -> tuple[Item, ...]:
    """What is not done yet: while there is any, the recovery cannot be closed."""
    return tuple(one for one in items if one.verdict is not Verdict.OK)


def urgent(items: Sequence[Item]) -> tuple[Item, ...]:
    """What a run is judged by: all but what can wait until it is closed."""
    return tuple(one for one in items if not one.later)


def left_to_people(items: Sequence[Item]) -> tuple[Item, ...]:
    """What nobody has answered with yes yet."""
    return tuple(one for one in items if one.asks and one.verdict is not Verdict.OK)


# -- points --------------------------------------------------------------------------------------------------------


def _services(facts: Facts) -> Item:
    check, hint = "every service runs", None
    if facts.trouble:
        return _item("services", check, "the stack", Verdict.UNKNOWN, facts.trouble, "Is the container engine running?")
    if facts.containers is None:
        verdict = worst(_answering(one) for one in facts.databases)
        bad = [f"{one.service}: {one.detail}" for one in facts.databases if _answering(one) is not Verdict.OK]
        said = "; ".join(bad) or f"they answer: {', '.join(one.service for one in facts.databases)}"
        finding = Finding(
            check=check, subject="the databases", verdict=verdict, detail=said,
            not_checked="applications: without Compose nobody knows which there are",
        )  # fmt: skip
        return Item(id="services", finding=finding)
    wrong = [one for one in facts.containers if not one.well]
    if wrong:
        hint = f"docker compose logs --tail 50 {wrong[0].service}, then docker compose up -d {wrong[0].service}"
    said = "; ".join(f"{one.service}: {one.words}" for one in wrong) or f"{len(facts.containers)} run"
    return _item("services", check, "the stack", Verdict.FAILED if wrong else Verdict.OK, said, hint)


def _answering(one: Database) -> Verdict:
    return {True: Verdict.OK, False: Verdict.FAILED, None: Verdict.UNKNOWN}[one.answers]


def _integrity(one: Database) -> Item:
    """What the run saw when it brought the data back, and what the server and the plan's questions say now."""
    now = Verdict.FAILED if one.wrong else Verdict.UNKNOWN if one.unasked else _answering(one)
    verdict = worst((now, *one.looks.values()))
    wrong = [*one.wrong, *one.unasked]
    if one.answers is not True:
        wrong.insert(0, one.detail or "it could not be asked")
    wrong += [f"step {name}: {look.value}" for name, look in one.looks.items() if look is not Verdict.OK]
    finding = Finding(
        check="its data are whole",
        subject=one.service,
        verdict=verdict,
        detail="; ".join(wrong) or ("it was looked at before it was let in" if one.looks else "it was not replaced"),
        hint=None if verdict is Verdict.OK else f"recoup verify latest --service {one.service} --grade sound",
        not_checked="pages and rows that nobody has read since",
    )
    # What was not looked at in the run, or could not be told, a person can still look at; what is wrong is wrong.
    asks = "Did somebody look at these data, and are they right?" if verdict is Verdict.UNKNOWN else ""
    return Item(id=f"integrity-{one.service}", finding=finding, asks=asks)


def _users(facts: Facts) -> Item:
    verdict = worst(facts.users.values())
    wrong = [f"step {name}: {look.value}" for name, look in facts.users.items() if look is not Verdict.OK]
    wrong += [f"not done in production: {name}" for name in facts.undone]
    if not facts.users:
        wrong = ["the plan has neither flows nor health addresses"]
    said = "; ".join(wrong) or "health and flows ended well"
    asks = ""
    if verdict is Verdict.UNKNOWN:
        what = f": {', '.join(facts.undone)}" if facts.undone else ""
        asks = f"Do by hand what users do{what}. Does it work?"
    return Item(id="users", finding=_finding("users can work", "flows", verdict, said), asks=asks)


def _ping(one: Ping, facts: Facts) -> Item:
    check, hint = "monitoring hears of backups", "Correct its address or its secret in the plan: `recoup plan check`."
    if one.error is not None:
        return _item(f"ping-{one.name}", check, one.name, Verdict.FAILED, f"it was not taken: {one.error}", hint)
    if one.taken is None or one.taken < facts.since:
        said = "nothing was sent since the data came back"
        return _item(f"ping-{one.name}", check, one.name, Verdict.UNKNOWN, said, "The next `recoup backup` sends it.")
    return _item(f"ping-{one.name}", check, one.name, Verdict.OK, f"taken {_when(one.taken)}")


def is_proven(grade: str | None) -> bool:
    """Whether a copy of this grade can be gone back to, as far as that is asked after a recovery."""
    return grade in _PROVEN


def _copy(one: Database, facts: Facts) -> Item:
    check, name = "it is backed up again", f"copy-{one.service}"
    hint = f"recoup backup {one.service} --kind {one.kind}"
    if one.copy is None:
        said = f"no copy was begun since its data came back ({_when(one.since)})"
        if facts.silent:
            said += f"; {', '.join(facts.silent)} did not answer"
        return _item(name, check, one.service, Verdict.UNKNOWN if facts.silent else Verdict.FAILED, said, hint)
    if not is_proven(one.copy.grade):
        said = f"{one.copy.kind} {one.copy.id} is not proven"
        return _item(name, check, one.service, Verdict.UNKNOWN, said, f"recoup verify {one.copy.id} --grade intact")
    said = f"{one.copy.kind} {one.copy.id}, {one.copy.grade}" + _on(one.timeline)
    if one.copy.missing_in:
        said += f"; not in {', '.join(one.copy.missing_in)}"
        return _item(name, check, one.service, Verdict.UNKNOWN, said, "Once it answers: recoup sync")
    return _item(name, check, one.service, Verdict.OK, said)


def _stream(one: Database, stream: Stream, facts: Facts) -> Item:
    check, name = "what is written is streamed again", f"stream-{one.service}"
    start = "Start the daemon: systemctl start recoup-daemon, or `recoup daemon`."
    if facts.daemon != "running":
        if one.elsewhere is not None and one.elsewhere >= one.since:
            said = f"by a daemon on another machine, up to {_when(one.elsewhere)}"
            return _item(name, check, one.service, Verdict.OK, said)
        words = {"never": "no daemon has run here", "stopped": "the daemon was stopped"}
        said = words.get(facts.daemon, "the daemon says nothing any more")
        return _item(name, check, one.service, Verdict.FAILED, said, start)
    wrong = _not_live(one, stream)
    if wrong is not None:
        hint = "Its log says more: journalctl -u recoup-daemon; `recoup status` shows how it goes on."
        return _item(name, check, one.service, Verdict.FAILED, wrong, hint)
    assert stream.as_of is not None, "a live stream has one"
    return _item(name, check, one.service, Verdict.OK, f"up to {_when(stream.as_of)}" + _on(one.streamed_timeline))


def _not_live(one: Database, stream: Stream) -> str | None:
    """Why the stream does not keep what is written now; None when it does."""
    if stream.error is not None:
        return stream.error
    if stream.state != "running":
        return f"its worker is {stream.state}"
    if stream.slot in ("lost", "missing"):
        return f"its slot is {stream.slot}"
    if stream.gap is not None:
        return f"a part is missing since the newest copy: {stream.gap}"
    if stream.as_of is None or stream.as_of < one.since:
        return "nothing of the data that came back was stored yet"
    if None not in (one.timeline, one.streamed_timeline) and one.timeline != one.streamed_timeline:
        return f"it follows timeline {one.streamed_timeline}, and the server is on timeline {one.timeline}"
    return None


def _people(facts: Facts) -> Iterator[Item]:
    yield _asked("outside", "monitoring outside of Recoup sees the stack well", "Do alarms and dashboards say so too?")
    yield _asked("cause", "the cause is known, and cannot strike again", "Is it so, or is somebody watching for it?")
    lost = facts.situation == "server-loss"
    asks = (
        "Are the secrets and the keys that were on the lost server in nobody's hands, or were they changed?"
        if lost
        else "Does nothing point to a break-in? If something does, keep what was set aside, and change every secret."
    )
    yield _asked("access", "nobody has access who should not", asks, "; ".join(facts.noted))


# -- parts ---------------------------------------------------------------------------------------------------------


def _answered(item: Item, said: Said | None) -> Item:
    if not item.asks or said is None:
        return item
    verdict = Verdict.OK if said.yes else Verdict.FAILED
    words = f"{'confirmed' if said.yes else 'denied'} by {said.who}, {_when(said.at)}"
    detail = "; ".join(filter(None, (words, item.finding.detail)))
    return replace(item, finding=replace(item.finding, verdict=verdict, detail=detail))


def _asked(name: str, check: str, asks: str, detail: str = "") -> Item:
    hint = "recoup recover --close asks."
    return Item(id=name, finding=_finding(check, "a person", Verdict.UNKNOWN, detail, hint), asks=asks, later=True)


def _item(name: str, check: str, subject: str, verdict: Verdict, detail: str, hint: str | None = None) -> Item:
    return Item(id=name, finding=_finding(check, subject, verdict, detail, hint))


def _finding(check: str, subject: str, verdict: Verdict, detail: str, hint: str | None = None) -> Finding:
    return Finding(check=check, subject=subject, verdict=verdict, detail=detail, hint=hint)


def _on(timeline: int | None) -> str:
    return "" if timeline is None else f", on timeline {timeline}"


def _when(instant: datetime) -> str:
    return clock.to_text(instant)[:19] + "Z"
