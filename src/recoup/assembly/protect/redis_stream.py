"""Keeping the command stream of each Redis service whose plan says ``stream: continuous``.

The worker follows the server from where the newest segment in the repositories ends. Where the server cannot continue
there, the gap is recorded, the stream begins anew at the server's present offset, and a fresh RDB copy is taken beside
it, which the new stream begins at. Production never waits: what cannot be stored is held in memory up to a limit; then
the connection is closed, and the server's backlog decides what can be asked for later.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recoup.assembly.protect.copies import Options, Task, protect
from recoup.assembly.protect.heartbeats import RedisBeats
from recoup.assembly.protect.redis_inventory import read_bases, read_holdings, redis_windows
from recoup.assembly.redis import redis_address
from recoup.assembly.system import System
from recoup.backup.run_records import record_worker
from recoup.backup.stream_keeper import Item, StreamKeeper, newest_segment
from recoup.backup.worker import Worker
from recoup.engines.redis.command_log import LogWriter
from recoup.engines.redis.commands import CommandTooLongError
from recoup.engines.redis.replica import Follower, StreamState
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, DamageError, EngineError, RecoupError
from recoup.plan.services import RedisService
from recoup.repository.lease import hold_lease
from recoup.repository.named_objects import reason_text
from recoup.repository.repository import Repository
from recoup.repository.stream_archive import StreamArchive, gap_name, join_name, segment_name

#: A stream in which nothing but the server's pings came is stored this often, to prove that it is alive.
IDLE_SECONDS = 60.0
#: A segment is cut early when it has grown to this.
SEGMENT_BYTES = 4 << 20
#: What is held in memory while no repository answers; above it the connection is closed until there is room again.
HELD_BYTES = 48 << 20
_DRAIN_SECONDS = 30.0
#: Never long: until the server is asked again, what it writes is nowhere else.
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
#: After each failure to find or take the copy that a stream begins at. A repository that was away for a moment must not
#: cost half a minute of instants that cannot be reached; one that stays away must not cost the server a copy a second.
_BASE_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
_SAY_SECONDS = 1.0
_TELL_SECONDS = 1.0  #: how often a replica acknowledges at least (Redis, src/replication.c, replicationCron)
_ASKED_SECONDS = 0.5  #: how soon what has come is stored when the server asks for an acknowledgement


def stream_workers(system: System) -> list[Worker]:
    """A worker for each Redis service with ``stream: continuous``."""
    return [
        RedisStream(system, name, every=service.stream_every)
        for name, service in system.plan.services.items()
        if isinstance(service, RedisService) and service.stream == "continuous"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """Where what is kept (or queued to be) ends."""

    replication_id: str
    offset: int
    stamp_ms: int


class RedisStream:
    """Keeps the command stream of one Redis service. Implements ``backup.worker.Worker``."""

    def __init__(self, system: System, service: str, *, every: timedelta, held_bytes: int = HELD_BYTES) -> None:
        self._system, self._service = system, service
        self._every = every.total_seconds()
        self._held_bytes = held_bytes
        self._tip: Tip | None = None
        self._before: Tip | None = None  #: what the repositories held when the worker began
        self._begun = 0  #: the offset at which the present stream begins without a hole before it
        self._resumed = 0  #: the offset at which the present connection began
        self._dropped: str | None = None  #: why what follows the tip cannot be kept, though the server has it
        self._covered = False  #: whether a copy lies at its beginning
        self._base = _BaseTaker(system, service)
        self._beats: RedisBeats | None = None
        self._facts: dict[str, object] = {}
        self._said = 0.0
        self._said_facts: dict[str, object] = {}

    @property
    def name(self) -> str:
        """See ``Worker``."""
        return f"stream {self._service}"

    def run(self, stop: threading.Event) -> None:
        """See ``Worker``."""
        opened = self._system.open(kind="stream", writing=True)
        if not opened.repositories:
            raise next(iter(opened.failed.values()), None) or EngineError(
                "no repository of the plan takes copies of kind 'stream'", hint="Add it to a repository's copy list."
            )
        self._facts = {"service": self._service, "connected": False, "unopened": sorted(opened.failed)}
        with hold_lease(self._system.state_folder, f"stream-{self._service}", f"command stream of {self._service}"):
            self._look_back(opened.repositories)
            archives = [StreamArchive(one, self._service) for one in opened.repositories]
            keeper = StreamKeeper(archives, self._system.key, self._service)
            keeper.start()
            try:
                with RedisBeats.running(self._system, self._service) as self._beats:
                    self._go_on(stop, keeper)
            finally:
                drained = keeper.close(_DRAIN_SECONDS)
                self._base.wait(_DRAIN_SECONDS)
                self._say(keeper, at_once=True, connected=False, drained=drained)

    def _look_back(self, repositories: tuple[Repository, ...]) -> None:
        """Learn from the repositories where the stream ended, and whether a copy leads there."""
        holdings = read_holdings(repositories, self._service, self._system.state_folder)
        self._tip, self._covered = None, False
        newest = newest_segment(list(holdings.entries.values()))
        if newest is not None:
            self._tip = Tip(replication_id=newest.replication_id, offset=newest.end, stamp_ms=clock.to_ms(newest.stamp))
            self._before = self._tip
            place = (newest.replication_id, newest.end)
            self._covered = any(window.end == place for window in redis_windows(holdings)[0])
            self._begun = newest.start

    def _go_on(self, stop: threading.Event, keeper: StreamKeeper) -> None:
        attempt = 0
        while not stop.is_set():
            if not keeper.wait_for_room(self._held_bytes, _SAY_SECONDS):
                problem = f"the stream is closed until a repository takes it: {keeper.error or 'they are too slow'}"
                self._say(keeper, connected=False, problem=problem)
                continue
            begun = clock.monotonic()
            try:
                self._session(stop, keeper)
            except (BusyError, EngineError, DamageError) as failure:
                self._say(keeper, at_once=True, connected=False, problem=failure.message)
            else:
                continue
            attempt, pause_seconds = next_attempt(attempt, clock.monotonic() - begun)
            stop.wait(pause_seconds)

    def _session(self, stop: threading.Event, keeper: StreamKeeper) -> None:
        """One connection, from its beginning to its end."""
        follower = Follower(redis_address(self._system, self._service))
        try:
            start = self._attach(follower, keeper)
            if start is None:
                return
            after = 0 if self._tip is None else self._tip.stamp_ms
            asked: list[int] = []
            writer = LogWriter(start.replication_id, start.offset, after_ms=after, on_request=asked.append)
            self._tip = self._tip or start
            self._resumed = start.offset
            try:
                self._pump(stop, keeper, follower, writer, asked)
            except CommandTooLongError as too_long:
                self._dropped = too_long.message
                raise
            finally:
                self._cut(keeper, writer)
        finally:
            follower.close()

    def _attach(self, follower: Follower, keeper: StreamKeeper) -> Tip | None:
        """Begin where the stream ended, or anew; where. None when there is no backlog yet to begin in."""
        state, tip = follower.state, self._tip
        if tip is not None and self._dropped is None and state.continues(tip.replication_id, tip.offset):
            line = follower.follow(tip.replication_id, tip.offset)
            if line != tip.replication_id:
                self._note_join(keeper, line, tip)
            return Tip(replication_id=line, offset=tip.offset, stamp_ms=tip.stamp_ms)
        base = None
        if state.backlog_first is None:
            # Without a replica in the last hour there is no backlog. Taking the copy, which is needed anyway, makes it.
            base = self._base.take_now()
            state = follower.look_again()
        begin = (base.replication_id, base.offset) if base is not None else (state.replication_id, state.offset)
        if not state.continues(*begin):
            begin = (state.replication_id, state.offset)
        line = follower.follow(*begin)
        if tip is not None:
            self._note_gap(keeper, line, begin[1], tip, self._dropped or why_lost(state, tip))
        self._dropped = None
        self._begun = begin[1]
        self._covered = base is not None and (base.replication_id, base.offset) == begin
        self._tip = None
        return Tip(replication_id=line, offset=begin[1], stamp_ms=0)

    def _pump(
        self, stop: threading.Event, keeper: StreamKeeper, follower: Follower, writer: LogWriter, asked: list[int]
    ) -> None:
        """Take what comes until ``stop``, cutting and acknowledging on the way."""
        told, told_at, cut_at = -1, 0.0, clock.monotonic()
        while not stop.is_set():
            data = follower.receive(min(0.2, self._every / 4))
            if data:
                writer.feed(data, follower.now_ms())
            now = clock.monotonic()
            # The first bytes of a new stream, a ping, open its window; after that idleness is proven now and then.
            due = self._every if writer.commands or self._tip is None or self._tip.stamp_ms == 0 else IDLE_SECONDS
            if asked:  # WAIT, or a server that shuts down: it waits for what is written to be safe
                due = min(due, _ASKED_SECONDS)
            if now - cut_at >= due or writer.held_bytes >= SEGMENT_BYTES:
                self._cut(keeper, writer)
                cut_at = now
            safe = self._safe_offset(keeper, writer)
            if safe > told or asked or now - told_at >= _TELL_SECONDS:
                follower.acknowledge(safe)
                told, told_at = safe, now
                if safe >= max(asked, default=0):
                    asked.clear()
            if keeper.queued_bytes + writer.held_bytes > self._held_bytes + SEGMENT_BYTES:
                raise EngineError(f"no repository has taken the stream: {keeper.error or 'they are too slow'}")
            self._require_base(writer)
            self._say(keeper, writer=writer, connected=True, problem=None)

    def _safe_offset(self, keeper: StreamKeeper, writer: LogWriter) -> int:
        """Up to where nothing that changes data is only here. What the server's ``INFO`` and ``WAIT`` will show."""
        if not writer.commands and keeper.drained:
            return writer.end
        stored = keeper.stored
        if stored is not None and stored.end is not None and stored.replication_id == writer.replication_id:
            return max(stored.end, self._resumed)
        return self._resumed

    def _cut(self, keeper: StreamKeeper, writer: LogWriter) -> None:
        segment = writer.cut()
        if segment is None:
            return
        stamp = _instant(segment.stamp_ms)
        keeper.offer(
            Item(
                replication_id=segment.replication_id,
                name=segment_name(segment.start, segment.end),
                start=segment.start,
                end=segment.end,
                stamp=stamp,
                plain=segment.data,
            )
        )
        self._tip = Tip(replication_id=segment.replication_id, offset=segment.end, stamp_ms=segment.stamp_ms)

    def _require_base(self, writer: LogWriter) -> None:
        """See that a copy lies in the stream: look for one, or take one beside it."""
        if not self._covered:
            self._covered = self._base.covers(writer.replication_id, self._begun)

    def _note_join(self, keeper: StreamKeeper, line: str, tip: Tip) -> None:
        name = join_name(tip.offset, tip.replication_id)
        keeper.offer(Item(replication_id=line, name=name, start=tip.offset, end=None, stamp=clock.now(), plain=b"{}\n"))

    def _note_gap(self, keeper: StreamKeeper, line: str, start: int, tip: Tip, reason: str) -> None:
        name = gap_name(start, tip.replication_id, tip.offset)
        keeper.offer(
            Item(replication_id=line, name=name, start=start, end=None, stamp=clock.now(), plain=reason_text(reason))
        )
        self._facts |= {"gap": reason, "gap_at": clock.to_text(clock.now())}

    def _say(
        self,
        keeper: StreamKeeper,
        *,
        connected: bool,
        writer: LogWriter | None = None,
        at_once: bool = False,
        problem: str | None = None,
        drained: bool | None = None,
    ) -> None:
        """Record the state for ``recoup status``, at most every second unless something changed."""
        stored = keeper.stored
        until = stored.stamp if stored else _instant(self._before.stamp_ms) if self._before else None
        held_since = None if writer is None else writer.first_ms
        facts: dict[str, object] = {
            **self._facts,
            "connected": connected,
            "problem": problem or keeper.error or self._base.problem,
            "base": "present" if self._covered else "missing",
            "behind": dict(keeper.behind),
            "no_heartbeat_key": None if self._beats is None else self._beats.problem,
            "queued_bytes": keeper.queued_bytes,
            "replication_id": writer.replication_id if writer else self._tip.replication_id if self._tip else None,
            "offset": writer.end if writer else self._tip.offset if self._tip else None,
            "stored_offset": stored.end if stored else self._before.offset if self._before else self._resumed,
            "stored_until": None if until is None else clock.to_text(until),
            "unsaved_since": None
            if held_since is None
            else clock.to_text(datetime.fromtimestamp(held_since / 1000, UTC)),
        }
        if drained is not None:
            facts["drained"] = drained
        now = clock.monotonic()
        loud = {key: facts[key] for key in ("connected", "problem", "base", "behind")}
        if at_once or now - self._said >= _SAY_SECONDS or loud != self._said_facts:
            self._said, self._said_facts = now, loud
            record_worker(self._system.state_folder, self.name, facts)


class _BaseTaker:
    """Takes the RDB copy that a stream begins at, beside the stream, and finds one that others took."""

    def __init__(self, system: System, service: str) -> None:
        self._system, self._service = system, service
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._failures = 0
        self._found: list[tuple[str, int]] = []
        self.problem: str | None = None

    def covers(self, replication_id: str, begun: int) -> bool:
        """Whether a copy lies in the stream from ``begun`` on; when none does, one is begun in the background."""
        if self._thread is not None and self._thread.is_alive():
            return False
        if any(line == replication_id and offset >= begun for line, offset in self._found):
            return True
        if clock.monotonic() >= self._next:
            self._thread = threading.Thread(target=self._find_or_take, args=(replication_id, begun), daemon=True)
            self._thread.start()
        return False

    def wait(self, seconds: float) -> None:
        """Let a copy that is being taken end."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _find_or_take(self, replication_id: str, begun: int) -> None:
        try:
            opened = self._system.open(kind="rdb")
            bases = read_bases(opened.repositories, self._service, self._system.state_folder)
            self._found = [(base.replication_id, base.offset) for base in bases]
            if not any(line == replication_id and offset >= begun for line, offset in self._found):
                taken = self.take_now()
                self._found.append((taken.replication_id, taken.offset))
            self.problem, self._failures = None, 0
        except RecoupError as failure:
            self._failures += 1
            self._next = clock.monotonic() + pause_before_copy(self._failures)
            self.problem = f"no copy for the stream to begin at: {failure.message}"

    def take_now(self) -> Tip:
        """Take a copy and return its place. Raise ``RecoupError`` when there is none."""
        done = protect(self._system, Task(service=self._service, kind="rdb"), Options(), lambda _: None)
        if done.taken is None:
            raise done.error or EngineError(f"no copy of {self._service} was taken")
        facts = done.taken.outcome.manifest.facts
        line, offset = facts.get("replid"), facts.get("offset")
        if not isinstance(line, str) or not isinstance(offset, int):
            raise EngineError(
                f"the copy of {self._service} does not say where in the stream it lies",
                hint="The server had no backlog when it was taken; the next attempt will find one.",
            )
        return Tip(replication_id=line, offset=offset, stamp_ms=0)


def pause_before_copy(failures: int) -> float:
    """Seconds until the copy that a stream begins at is tried again, after so many failures in a row."""
    return _BASE_PAUSES[min(failures, len(_BASE_PAUSES)) - 1]


def next_attempt(attempt: int, lasted_seconds: float) -> tuple[int, float]:
    """The number of the next attempt and the pause before it, after one that lasted so long.

    A connection that held for a while counts as good: its loss is the first.
    """
    attempt = 1 if lasted_seconds > _BACKOFF_SECONDS[-1] else attempt + 1
    return attempt, _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS)) - 1]


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def why_lost(state: StreamState, tip: Tip) -> str:
    """Why the server cannot go on behind ``tip``, for people."""
    if tip.replication_id not in (state.replication_id, state.second_id):
        return (
            f"the server began a new history of its data (replication id {state.replication_id}): it was restarted, "
            "replaced, or made a replica of another"
        )
    wanted = tip.offset + 1
    if state.backlog_first is None:
        return "the server has no backlog any more: nobody was connected for longer than repl-backlog-ttl"
    if wanted < state.backlog_first:
        return (
            f"the stream was away too long: {state.backlog_first - wanted} bytes have left the server's backlog "
            f"of {state.backlog_bytes} bytes; a larger repl-backlog-size keeps more"
        )
    return "the server's data went back to before what was kept: it was restored, or lost its newest writes in a crash"
