"""Bringing a Redis back to an instant: the newest copy before it, the command stream behind that, replayed up to it."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.redis_inventory import StreamHoldings, read_holdings, redis_windows
from recoup.assembly.prove.redis_scratch import find_replayer
from recoup.assembly.restore.copy import restore
from recoup.assembly.restore.job import Job, Report, Wish
from recoup.assembly.system import System
from recoup.engines.engine import Content, CopyReader, Member, Progress, ProgressListener, StreamInfo
from recoup.engines.redis.command_log import read_segment
from recoup.engines.redis.fingerprint import Fingerprinter
from recoup.engines.redis.live import databases_of
from recoup.engines.redis.rdb import Entry, Kind, read_rdb
from recoup.engines.redis.rdb_summary import Summary
from recoup.engines.redis.replay import CommandCut, Scratch
from recoup.engines.redis.seal import RdbSeal, sealed_pieces
from recoup.engines.redis.snapshot import STREAM
from recoup.engines.redis.stream_windows import Piece, StreamChoice, choose
from recoup.kernel import clock
from recoup.kernel.errors import UsageError
from recoup.recovery.in_place import Consent
from recoup.repository.copy_reader import ArtefactReader

_AHEAD = 4  #: segments fetched while one is written
_PIECE = 1 << 20
_DEFAULT_DATABASES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTarget:
    """How an instant of a Redis service will be reached: for ``--plan``, before anything is done."""

    service: str
    target: datetime
    holdings: StreamHoldings
    choice: StreamChoice
    found: Found

    def __str__(self) -> str:
        count = len(self.choice.pieces)
        return (
            f"the copy {self.choice.base.id} and {count} segment{'s' if count != 1 else ''} of the command stream "
            f"up to {_show(self.target)}"
        )


def choose_redis(opened: Readable, service: str, target: datetime | None, *, base: str | None = None) -> RedisTarget:
    """Choose the copy and the segments that lead to ``target``; None is the newest instant that can be reached.

    ``base`` is the copy to start from, when it was named. Raise ``RefusedError`` with the reachable windows when
    nothing leads there, ``UsageError`` for an instant without a zone.
    """
    if target is not None and target.tzinfo is None:
        raise UsageError("the time to go back to has no time zone", hint="Write 2026-11-23T02:00:00Z.")
    holdings = read_holdings(opened.repositories, service, opened.state_folder)
    if target is None:
        target = max((one.end_time for one in redis_windows(holdings)[0]), default=clock.now())
    bases = holdings.bases if base is None else [one for one in holdings.bases if one.id == base]
    choice = choose(target, bases, holdings.inventory)
    found = opened.find(choice.base.id, service=service, kinds=("rdb",))
    return RedisTarget(service=service, target=target, holdings=holdings, choice=choice, found=found)


def restore_redis(
    opened: Readable,
    chosen: RedisTarget,
    wish: Wish,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> Report:
    """Build the data set of the instant and put it where ``wish`` says, as any RDB copy is.

    Commands that came up to the instant are applied, later ones are not. Raise as ``restore`` does, ``DamageError``
    naming a damaged segment, ``UsageError`` when no ``redis-server`` here can replay the stream.
    """
    manifest = chosen.found.manifest
    stored = ArtefactReader(manifest, chosen.found.holders)
    with tempfile.TemporaryDirectory(prefix="recoup-redis-") as folder:
        built = build_copy(opened.system, chosen, stored, Path(folder), say, on_progress)
        facts = {**manifest.facts, **built.facts}
        job = Job(
            opened=opened,
            found=replace(chosen.found, manifest=replace(manifest, facts=facts, fingerprint=built.fingerprint)),
            reader=built,
            wish=wish,
            consent=consent,
            say=say,
            on_progress=on_progress,
        )
        report = restore(job)
    what = f"{chosen.service} as of {_show(chosen.target)}"
    return replace(report, what=what, notes=(*built.notes, *report.notes))


@dataclass(slots=True, kw_only=True)
class BuiltCopy:
    """The RDB that a replay made. Implements ``restore.job.RestoreReader``."""

    path: Path
    facts: Mapping[str, Any]
    fingerprint: Mapping[str, Any] | None
    notes: tuple[str, ...]
    wrong: tuple[str, ...] = field(default=())
    commands: int = 0  #: how many of the stream were applied

    def streams(self) -> tuple[StreamInfo, ...]:
        """See ``CopyReader``."""
        return (StreamInfo(name=STREAM, content=Content.OPAQUE, plain_bytes=self.path.stat().st_size),)

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See ``CopyReader``."""
        assert name == STREAM, "an RDB copy has one stream"
        left = self.path.stat().st_size - start if length is None else length
        with open(self.path, "rb") as handle:
            handle.seek(start)
            while left > 0 and (piece := handle.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece

    def members(self, name: str) -> Iterator[Member]:  # noqa: ARG002
        """See ``CopyReader``."""
        return iter(())

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:  # noqa: ARG002
        """See ``CopyReader``."""
        offset = 0
        for piece in self.read(name):
            act(offset, piece)
            offset += len(piece)

    def passed_over(self) -> tuple[str, ...]:
        """See ``RestoreReader``."""
        return self.wrong


def build_copy(
    system: System | None,
    chosen: RedisTarget,
    stored: ArtefactReader,
    folder: Path,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> BuiltCopy:
    """Replay the stream onto the copy in ``folder``. Raise as ``restore_redis`` does."""
    manifest, choice = chosen.found.manifest, chosen.choice
    until_ms = clock.to_ms(chosen.target)
    version = str(manifest.facts.get("redis_version", ""))
    replayer = find_replayer(
        system, chosen.service, rdb_version=int(manifest.facts.get("rdb_version", 0)), server_version=version
    )
    say(f"replaying {chosen} with Redis {replayer.program.version} ({replayer.where})")
    cut = CommandCut(after=choice.base.offset, until_ms=until_ms)
    wrong: list[str] = []
    scratch = Scratch(folder, replayer.program)
    scratch.write(sealed_pieces(_told(stored, on_progress), RdbSeal()), _commands(chosen, cut, wrong, on_progress))
    built = replayer.replay(scratch, databases_to_load(manifest.facts))
    now_ms = clock.to_ms(clock.now())
    sums, counted = _look_at(built, until_ms, now_ms)
    reached = "no command came between the copy and the target"
    if cut.last_ms is not None:
        reached = f"the last command applied came at {_show(datetime.fromtimestamp(cut.last_ms / 1000, UTC))}"
    applied = f"{cut.commands} command{'s' if cut.commands != 1 else ''} on the copy {choice.base.id}"
    notes = [f"target {_show(chosen.target)}; {reached} ({applied})"]
    if counted.expired_since:
        notes.append(
            f"{counted.expired_since} keys or fields were alive at the target and have expired since: Redis drops "
            "them when it loads"
        )
    facts = {
        "keys": {str(db): count for db, count in sorted(counted.summary.keys.items())},
        "rdb_version": counted.summary.version,
        "size_bytes": built.stat().st_size,
    }
    wrong += stored.passed_over()
    return BuiltCopy(
        path=built, facts=facts, fingerprint=sums, notes=tuple(notes), wrong=tuple(wrong), commands=cut.commands
    )


def _told(stored: CopyReader, on_progress: ProgressListener) -> Iterator[bytes]:
    total = sum(info.plain_bytes for info in stored.streams())
    done = 0
    for piece in stored.read(STREAM):
        done += len(piece)
        on_progress(Progress(what=STREAM, done_bytes=done, total_bytes=total))
        yield piece


def _commands(chosen: RedisTarget, cut: CommandCut, wrong: list[str], on_progress: ProgressListener) -> Iterator[bytes]:
    """The commands to replay, segment by segment, fetched ahead; without annotations, which Redis 6 does not know."""
    total = sum(chosen.holdings.entries[piece.key].stored_bytes for piece in chosen.choice.pieces)
    done = 0
    for piece, data, problems in pieces_ahead(chosen.holdings, chosen.choice):
        wrong += problems
        yield from cut.pass_on(read_segment([data]), piece.end)
        done += chosen.holdings.entries[piece.key].stored_bytes
        on_progress(Progress(what="command stream", done_bytes=done, total_bytes=total))
        if cut.ended:
            return


def pieces_ahead(holdings: StreamHoldings, choice: StreamChoice) -> Iterator[tuple[Piece, bytes, Sequence[str]]]:
    """Each piece of a way through the stream with its bytes, and what was wrong with it elsewhere; read ahead."""
    waiting: deque[tuple[Piece, Future[tuple[bytes, tuple[str, ...]]]]] = deque()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="segments") as pool:
        try:
            for piece in choice.pieces:
                waiting.append((piece, pool.submit(holdings.read, piece.key)))
                if len(waiting) >= _AHEAD:
                    first, answer = waiting.popleft()
                    yield first, *answer.result()
            while waiting:
                first, answer = waiting.popleft()
                yield first, *answer.result()
        finally:
            for _, answer in waiting:
                answer.cancel()


@dataclass(slots=True)
class _Counted:
    summary: Summary = field(default_factory=Summary)
    expired_since: int = 0


def _look_at(built: Path, at_ms: int, now_ms: int) -> tuple[Mapping[str, Any], _Counted]:
    """The fingerprint of what was built, as of the target, and what has expired since. Raise ``DamageError``."""
    sums, counted = Fingerprinter(at_ms=at_ms), _Counted()

    def pieces() -> Iterator[bytes]:
        with open(built, "rb") as handle:
            while piece := handle.read(_PIECE):
                yield piece

    for record in read_rdb(pieces()):
        counted.summary.add(record)
        if isinstance(record, Entry):
            if record.expires_ms is not None:
                counted.expired_since += at_ms < record.expires_ms <= now_ms
            elif record.kind is Kind.HASH:
                record.batches = _counting(record.batches, counted, at_ms, now_ms)
        sums.add(record)
    return sums.result(), counted


def _counting(batches: Iterator[list[Any]], counted: _Counted, at_ms: int, now_ms: int) -> Iterator[list[Any]]:
    for batch in batches:
        for element in batch:
            if isinstance(element, tuple) and len(element) == 3 and isinstance(element[2], int):
                counted.expired_since += at_ms < element[2] <= now_ms
        yield batch


def databases_to_load(facts: Mapping[str, Any]) -> int:
    """How many databases a server needs to load a copy with these facts."""
    return max(_DEFAULT_DATABASES, databases_of(facts))


def _show(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
