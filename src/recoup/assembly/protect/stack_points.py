"""Taking a stack recovery point: copies of all services under one label, and then the label itself.

The databases come first, and as close together as their copies allow: a base backup recovers to the position where it
was stopped, an RDB is the data set of the instant at which the server forked. So Redis is asked for its copy as soon as
PostgreSQL's has been stopped, before its WAL has come. Files follow, so that what a row names is there.

No server says when that was. Of each member it is noted when it was at the earliest and at the latest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.postgres import BaseSource, postgres_place
from recoup.assembly.protect.copies import Options, Protected, Task
from recoup.assembly.protect.recorded import protect_recorded
from recoup.assembly.protect.retain import needed_grade
from recoup.assembly.prove.copies import prove_and_note
from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.backup.take import Source
from recoup.engines.engine import Content, CopyFacts, ProgressListener, Sink, StreamSink
from recoup.engines.postgres.create_restore_point import create_restore_point
from recoup.inventory.order import start_order
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, Exit, RecoupError, UsageError
from recoup.kernel.finding import Verdict
from recoup.plan.services import ComposeService, FilesService, PostgresService, RedisService, Service
from recoup.repository.catalog import STACK, read_catalog
from recoup.repository.copy_writer import Outcome
from recoup.repository.lease import hold_lease
from recoup.repository.manifest import Manifest
from recoup.repository.stack_points import (
    StackMember,
    StackPoint,
    check_name,
    header_of,
    read_point,
    refuse_taken,
    write_point,
)

_KIND: Final[Mapping[type, str]] = {PostgresService: "base", RedisService: "rdb", FilesService: "files"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StackTaken:
    """How taking a point ended. ``point`` is None when a member failed; ``why`` says which, ``hint`` what to do."""

    name: str
    copies: tuple[Protected, ...]
    point: StackPoint | None = None
    outcome: Outcome | None = None
    why: str | None = None
    hint: str | None = None
    not_taken: tuple[Task, ...] = ()

    @property
    def exit_codes(self) -> tuple[Exit, ...]:
        """Of the copies, and of the point itself."""
        own = Exit.FAILED if self.outcome is None or self.outcome.failed else Exit.OK
        return (*(one.exit_code for one in self.copies), own)


def tasks_of(system: System) -> tuple[Task, ...]:
    """The copies a point consists of, in the order of recovery. Raise ``UsageError`` when nothing holds data."""
    services = system.plan.services
    order = [name for name in in_order_of_recovery(services) if type(services[name]) in _KIND]
    tasks = [Task(service=name, kind=_KIND[type(services[name])]) for name in order]
    if not tasks:
        raise UsageError("the plan has no service that holds data", hint="Add one under services:.")
    return tuple(tasks)


def in_order_of_recovery(services: Mapping[str, Service]) -> tuple[str, ...]:
    """The services of a plan, each after those it needs, else in the plan's order."""
    return start_order({name: list(one.after) for name, one in services.items()})


def default_name(now: datetime) -> str:
    """The name of a point that nobody named."""
    return f"stack-{now:%Y%m%d-%H%M%S}"


def take_stack_point(
    system: System,
    name: str,
    options: Options,
    on_progress: ProgressListener,
    on_copy: Callable[[Protected], None] = lambda _: None,
) -> StackTaken:
    """Take the point ``name``; ``on_copy`` hears of each copy as it ends.

    A member that fails ends it: what was copied by then stays as an ordinary copy. Raise ``UsageError`` for a name that
    cannot be one, ``RefusedError`` when it is taken, ``BusyError`` while another point is taken or restored.
    """
    check_name(name)
    tasks = tasks_of(system)
    with hold_lease(system.state_folder, STACK, f"stack point {name}"):
        opened = system.open(writing=True)
        refuse_taken(name, read_catalog(opened.repositories, system.state_folder))
        begun = clock.now()
        run = _Run(system=system, options=replace(options, label=name), on_progress=on_progress, on_copy=on_copy)
        run.take(tasks)
        copies = tuple(run.results[task] for task in tasks if task in run.results)
        failed = next((one for one in copies if not _holds(one)), None)
        if failed is not None:
            why, hint = _why(failed)
            left = tuple(task for task in tasks if task not in run.results)
            return StackTaken(name=name, copies=copies, why=why, hint=hint, not_taken=left)
        members = tuple(_member(run.results[task], run) for task in tasks)
        holding = {place for one in copies if one.taken is not None for place in one.taken.outcome.stored_in}
        images, left_out = _images(system)
        holders = [one for one in opened.repositories if one.name in holding]
        outcome = write_point(
            members,
            holders,
            header_of(name, system.plan.system, begun),
            images=images,
            left_out=(*_without_data(system), *run.left_out, *left_out),
        )
        stored = tuple(one for one in holders if one.name in outcome.stored_in)
        readable = Readable(repositories=stored, failed={}, state_folder=system.state_folder, system=system)
        prove_and_note(readable, Found(manifest=outcome.manifest, holders=stored), needed_grade(system, STACK))
        return StackTaken(name=name, copies=copies, point=read_point(outcome.manifest), outcome=outcome)


@dataclass(slots=True, kw_only=True)
class _Run:
    """The copies of one point, and when the state of each was fixed."""

    system: System
    options: Options
    on_progress: ProgressListener
    on_copy: Callable[[Protected], None]
    results: dict[Task, Protected] = field(default_factory=dict)
    spans: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)  #: earliest and latest, by service
    marks: dict[str, str] = field(default_factory=dict)  #: the restore points: their LSN, by service
    left_out: list[tuple[str, str]] = field(default_factory=list)
    _failure: RecoupError | None = None

    def take(self, tasks: Sequence[Task]) -> None:
        """Take them, until one fails."""
        servers = [one for one in tasks if one.kind == "base"]
        followers = [one for one in tasks if one.kind == "rdb"]
        running: list[threading.Thread] = []

        def follow() -> None:
            for task in followers:
                thread = threading.Thread(target=self._beside, args=(task,), name=f"stack-{task.service}", daemon=True)
                thread.start()
                running.append(thread)

        for number, task in enumerate(servers, start=1):
            self._one(task, follow if number == len(servers) else lambda: None)
            if not self._all_hold():
                break
        if not servers:
            follow()
        for thread in running:
            thread.join()  # ends: every wait of a copy has a limit
        if self._failure is not None:
            raise self._failure
        for task in followers if running else ():
            if task not in self.results:
                raise RecoupError(f"the copy of {task.service} did not come to an end")
            self.on_copy(self.results[task])
        for task in tasks:
            if task.kind == "files" and self._all_hold():
                self._one(task, lambda: None)

    def _one(self, task: Task, then: Callable[[], None]) -> None:
        self._take(task, then)
        self.on_copy(self.results[task])

    def _beside(self, task: Task) -> None:
        try:
            self._take(task, lambda: None)
        except RecoupError as failure:
            self._failure = failure  # raised by the thread that waits for this one

    def _take(self, task: Task, then: Callable[[], None]) -> None:
        marking = threading.Thread(target=self._mark, args=(task.service,), name=f"mark-{task.service}", daemon=True)

        def fixed(earliest: datetime) -> None:
            self.spans[task.service] = earliest, clock.now()
            then()
            marking.start()  # beside the copy, which goes on meanwhile and must not wait for another connection

        options = replace(self.options, wrap=lambda source: _observed(source, fixed))
        self.results[task] = protect_recorded(self.system, task, options, self.on_progress)
        if marking.ident is not None:
            marking.join()  # ends: connections and statements have limits

    def _mark(self, service: str) -> None:
        """Write the name into the WAL that is archived, so that a recovery of the one service can stop there."""
        described = self.system.plan.services[service]
        if not isinstance(described, PostgresService) or described.wal is None:
            return
        assert self.options.label is not None, "a point has a name"
        try:
            access = postgres_place(self.system, service).access
            self.marks[service] = str(create_restore_point(access, self.options.label))
        except RecoupError as refused:
            self.left_out.append((f"the restore point of {service}", refused.message))

    def _all_hold(self) -> bool:
        return all(_holds(one) for one in self.results.values())


def _observed(source: Source, fixed: Callable[[datetime], None]) -> Source:
    if isinstance(source, BaseSource):
        return replace(source, on_stopped=fixed)
    return _FirstByte(source, fixed) if source.kind == "rdb" else source


class _FirstByte:
    """A source of which the first byte tells that its state is fixed: a server sends its RDB after it has forked."""

    def __init__(self, source: Source, fixed: Callable[[datetime], None]) -> None:
        self._source, self._fixed = source, fixed
        self._asked: datetime | None = None  # until the first byte

    @property
    def service(self) -> str:
        """See ``Source``."""
        return self._source.service

    @property
    def engine(self) -> str:
        """See ``Source``."""
        return self._source.engine

    @property
    def kind(self) -> str:
        """See ``Source``."""
        return self._source.kind

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        """See ``Source``."""
        self._asked = clock.now()
        return self._source.take(_WatchedSink(sink, self._see), begun_stamp, on_progress)

    def _see(self) -> None:
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._fixed(asked)


class _WatchedSink:
    def __init__(self, sink: Sink, see: Callable[[], None]) -> None:
        self._sink, self._see = sink, see

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[StreamSink]:
        with self._sink.stream(name, content=content, expected_bytes=expected_bytes) as stream:
            yield _WatchedStream(stream, self._see)


class _WatchedStream:
    def __init__(self, stream: StreamSink, see: Callable[[], None]) -> None:
        self._stream, self._see = stream, see

    def write(self, data: bytes | memoryview) -> None:
        self._see()
        self._stream.write(data)


def _holds(result: Protected) -> bool:
    """Whether the copy is there and proven as far as the plan asks."""
    if result.error is not None or result.taken is None:
        return False
    return result.verification is None or result.verification.verdict is Verdict.OK


def _why(result: Protected) -> tuple[str, str | None]:
    subject = f"{result.task.service} {result.task.kind}"
    if result.error is not None:
        return f"{subject} failed: {result.error.message}", result.error.hint
    findings = result.verification.findings if result.verification is not None else ()
    bad = next((one for one in findings if one.verdict is not Verdict.OK), None)
    if bad is None:
        return f"{subject} is not proven", None
    return f"{subject} is not proven: {bad.check}: {bad.subject}: {bad.detail}", bad.hint


def _member(result: Protected, run: _Run) -> StackMember:
    assert result.taken is not None, "only copies that hold become members"
    manifest = result.taken.outcome.manifest
    mark = run.marks.get(manifest.service)
    earliest, latest = run.spans.get(manifest.service, (manifest.begun, manifest.ended))
    return StackMember(
        service=manifest.service,
        kind=manifest.kind,
        artefact=manifest.id,
        way="copy",
        moment=latest,
        earliest=earliest,
        position=position_of(manifest) | ({"restore_point_lsn": mark} if mark is not None else {}),
    )


def position_of(manifest: Manifest) -> dict[str, Any]:
    """Which state of its service a copy is, in the engine's own terms."""
    facts = manifest.facts
    match manifest.kind:
        case "base":
            wanted = {"system_identifier": "system_identifier", "timeline": "timeline", "lsn": "end_lsn"}
        case "rdb":
            wanted = {"replid": "replid", "offset": "offset"}
        case _:
            git = facts.get("git") or {}
            return {name: git[name] for name in ("commit", "branch") if git.get(name) is not None}
    return {name: facts[fact] for name, fact in wanted.items() if facts.get(fact) is not None}


def _without_data(system: System) -> list[tuple[str, str]]:
    why = "holds no data; it is started from its image"
    return [(name, why) for name, one in system.plan.services.items() if isinstance(one, ComposeService)]


def _images(system: System) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The images that the stack runs; or why they are not known."""
    if system.plan.compose is None:
        return [], []
    try:
        return [asdict(one) for one in open_stack(system).client.images()], []
    except EngineError as failure:
        return [], [("image digests", failure.message)]
