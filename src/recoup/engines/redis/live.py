"""A Redis copy brought to life: the grades *boots*, *sound*, *same* and *works* of an RDB.

The copy is put into a folder of the sandbox, a server of a fitting release loads it with every packed value looked
through, and then all that it holds is read out again and compared: with the copy, with what was recorded when the
copy was taken, and with what the plan wants to be true.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recoup.engines.engine import CopyReader
from recoup.engines.redis.connection import Connection, read_keyspace
from recoup.engines.redis.fingerprint import FORMAT, compare, key_counts
from recoup.engines.redis.held import LookedUp, Readings, look_up_all, take_readings
from recoup.engines.redis.local_servers import release
from recoup.engines.redis.plan_checks import RedisCheck, check_plan
from recoup.engines.redis.restore_folder import FolderLayout, restore_rdb_to_folder
from recoup.engines.redis.sandbox_server import DATA, LOAD_SECONDS, Launcher, SandboxRedis, start_sandbox_redis
from recoup.engines.redis.snapshot import STREAM, milliseconds_now
from recoup.engines.redis.stream_proof import CHECK as CROSSED
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RecoupError, UncheckedError, UnknownFormatError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_size

if TYPE_CHECKING:
    from recoup.engines.sandbox import Sandbox

#: Beyond what the copy's server used: a freshly loaded Redis, its fork, and the connections of the checks.
_MEMORY_MARGIN = 1.25
_NO_CHECKSUM = "whether the values are those that the server held: it writes no checksum into its RDB (rdbchecksum no)"

#: Further findings of the grade *same*, made elsewhere: of a command stream, see ``stream_proof``.
CrossCheck = Callable[[], Sequence[Finding]]


@contextlib.contextmanager
def open_redis_live(
    sandbox: Sandbox,
    reader: CopyReader,
    launcher: Launcher,
    *,
    checks: Sequence[RedisCheck] = (),
    cross_check: CrossCheck | None = None,
    allowed_seconds: float = LOAD_SECONDS,
) -> Iterator[RedisLive]:
    """Restore an RDB copy into the sandbox; its server is started by ``boots`` and ends on leaving.

    Raise ``DamageError`` when the copy is damaged; ``UncheckedError`` when there is not enough memory for it,
    ``RefusedError`` when that server is too old for it, ``EngineError`` when it cannot be written.
    """
    _require_memory(reader)
    folder = sandbox.child("redis")
    restored = restore_rdb_to_folder(
        reader, folder, FolderLayout(appendonly=False, server_version=launcher.version, dbfilename=DATA)
    )
    with contextlib.ExitStack() as until_stopped:
        yield RedisLive(
            sandbox,
            reader,
            launcher,
            folder,
            until_stopped,
            checks=checks,
            cross_check=cross_check,
            deadline=clock.monotonic() + allowed_seconds,
            sealed=restored.checksum_stated,
        )


class RedisLive:
    """Implements ``verification.live.LiveCopy``. Made by ``open_redis_live``."""

    def __init__(
        self,
        sandbox: Sandbox,
        reader: CopyReader,
        launcher: Launcher,
        folder: Path,
        until_stopped: contextlib.ExitStack,
        *,
        checks: Sequence[RedisCheck],
        cross_check: CrossCheck | None,
        deadline: float,
        sealed: bool,
    ) -> None:
        self._sandbox, self._reader, self._launcher, self._folder = sandbox, reader, launcher, folder
        self._until_stopped = until_stopped
        self._checks, self._cross_check, self._deadline, self._sealed = checks, cross_check, deadline, sealed
        self._server: SandboxRedis | None = None
        self._began_ms = 0
        self._readings: Readings | None = None

    def boots(self) -> Sequence[Finding]:
        """See ``LiveCopy``. Raise as ``start_sandbox_redis``."""
        self._began_ms = milliseconds_now()
        begun = clock.monotonic()
        self._server = self._until_stopped.enter_context(self._start(self._folder))
        took = clock.monotonic() - begun
        info = self._server.info("server", "persistence", "replication", "memory", "keyspace")
        version, keys = info.get("redis_version", ""), sum(read_keyspace(info).values())
        ready = (info.get("loading"), info.get("role"), info.get("tcp_port")) == ("0", "master", "0")
        said = f"Redis {version} ({self._launcher.where}) loaded {keys} keys in {took:.1f} s"
        closed = self._sandbox.network_closed or self._launcher.closed
        answers = _finding(
            "Redis starts with it and answers",
            Verdict.OK if ready else Verdict.UNKNOWN,
            said if ready else f"{said}; it is not ready, or not by itself: {info.get('role')}",
            not_checked="" if closed else "whether it sent anything: this machine allows no network of its own",
        )
        return [answers, _of_release(version, str(self._reader.facts.get("redis_version", "")))]

    def connect(self, database: int = 0) -> Connection:
        """See ``AskedRedis``."""
        return self._running().connect(database)

    def keys(self) -> int:
        """How many keys it holds, in all databases."""
        return sum(read_keyspace(self._running().info("keyspace")).values())

    def sound(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        server = self._running()
        looked_up = self._look_up(server)  # first: later fewer keys may be alive
        findings = [self._checksum()]
        try:
            readings = self._read(server)
        except UnknownFormatError as unknown:
            return [*findings, _finding(_GIVES_BACK, Verdict.UNKNOWN, unknown.message, hint=unknown.hint)]
        findings += _counts(looked_up, readings)
        expired = int(readings.copy_now["expired_left_out"])
        findings += [
            replace(
                one,
                check=_GIVES_BACK,
                hint="Use another copy; the server that loads this one holds other data." if one.hint else None,
                not_checked=_joined(
                    one.not_checked, f"{expired} keys that have expired, which Redis drops" * (expired > 0)
                ),
            )
            for one in compare(readings.copy_now, readings.served)
        ]
        return findings

    def same(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        findings = self._recorded()
        if self._cross_check is not None:
            findings += _crossed(self._cross_check)
        if not self._sealed:
            findings = [replace(one, not_checked=_joined(one.not_checked, _NO_CHECKSUM)) for one in findings]
        return findings

    def works(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        return check_plan(self._running(), self._checks, self._start_empty)

    def _start(self, folder: Path) -> AbstractContextManager[SandboxRedis]:
        left = max(1.0, self._deadline - clock.monotonic())
        databases = databases_of(self._reader.facts)
        return start_sandbox_redis(self._sandbox, self._launcher, folder, databases=databases, load_seconds=left)

    def _start_empty(self) -> AbstractContextManager[SandboxRedis]:
        return self._start(self._sandbox.child("redis-empty"))

    def _running(self) -> SandboxRedis:
        if self._server is None:
            raise UncheckedError("the server of the sandbox has not been started")
        return self._server

    def _read(self, server: SandboxRedis) -> Readings:
        if self._readings is None:
            recorded = self._reader.fingerprint
            if recorded is not None and recorded.get("format") != FORMAT:
                recorded = None
            self._readings = take_readings(server, self._folder / DATA, recorded, began_ms=self._began_ms)
        return self._readings

    def _checksum(self) -> Finding:
        check = "the checksum of the RDB matches"
        if self._sealed:
            return _finding(check, Verdict.OK)
        return _finding(
            check,
            Verdict.UNKNOWN,
            "the copy carries none: its server writes its RDB without one (rdbchecksum no)",
            hint="Set rdbchecksum yes in the configuration of Redis and restart it; then take a new copy.",
            not_checked=_NO_CHECKSUM,
        )

    def _look_up(self, server: SandboxRedis) -> dict[int, LookedUp]:
        found = {}
        for database in read_keyspace(server.info("keyspace")):
            with server.connect(database) as connection:
                found[database] = look_up_all(connection, self._deadline)
        return found

    def _recorded(self) -> list[Finding]:
        recorded = self._reader.fingerprint
        if recorded is None or recorded.get("format") != FORMAT:
            why = "no fingerprint was recorded with this copy"
            if recorded is not None:
                why = "the recorded fingerprint has a format that this Recoup does not know"
            hint = "Set fingerprint: true for the service in the plan, and take a new copy."
            return [_finding(_HOLDS, Verdict.UNKNOWN, why, hint=hint)]
        readings = self._read(self._running())
        assert readings.copy_then is not None, "there is a recorded fingerprint"
        exact = [replace(one, check=_HOLDS) for one in compare(recorded, readings.copy_then)]
        return [*exact, *_as_served(recorded, readings)]


_GIVES_BACK = "the server holds every key and value that is in the copy"
_HOLDS = "the copy holds the data that were recorded when it was taken"
_SERVES = "the restored server holds the data that were recorded"
_LOOKS_UP = "every key of every database can be looked up"
_COUNTS = "every database has as many keys as the copy"


def _crossed(cross_check: CrossCheck) -> Sequence[Finding]:
    """What goes wrong with the stream takes nothing from what was found of the copy itself."""
    try:
        return cross_check()
    except WrongKeyError:
        raise
    except RecoupError as failure:
        verdict = Verdict.FAILED if isinstance(failure, DamageError) else Verdict.UNKNOWN
        return [_finding(CROSSED, verdict, failure.message, subject="the command stream", hint=failure.hint)]


def _as_served(recorded: Mapping[str, Any], readings: Readings) -> list[Finding]:
    """The recorded fingerprint against what the server holds now; what expired between is said and not compared."""
    before, now = sum(key_counts(recorded).values()), sum(key_counts(readings.served).values())
    if before and not now:
        detail = f"all {before} keys have expired since the copy: a server that loads it is empty"
        return [_finding(_SERVES, Verdict.UNKNOWN, detail, hint="Prove a younger copy.")]
    return [replace(one, check=_SERVES) for one in compare(recorded, readings.served)]


def _counts(looked_up: Mapping[int, LookedUp], readings: Readings) -> list[Finding]:
    """How many keys the server has, between those that must be there still and those that were there when it began."""
    most, least = key_counts(readings.copy_loading), key_counts(readings.served)
    findings = []
    for database in sorted({*looked_up, *most, *least}):
        found = looked_up.get(database, LookedUp(kinds={}))
        subject = f"database {database}"
        if not found.whole:
            detail = f"{found.keys} keys looked up when the time was over"
            findings.append(_finding(_LOOKS_UP, Verdict.UNKNOWN, detail, subject=subject))
            continue
        expected, at_most = least.get(database, 0), most.get(database, 0)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted((found.kinds or {}).items()))
        detail = f"{found.keys} keys ({kinds or 'none'}), {found.expiring} expire, {show_size(found.memory_bytes)}"
        good = found.keys >= expected and found.gone <= at_most - expected
        if not good:
            detail += f"; at least {expected} were expected" + (
                f", {found.gone} are listed and gone" if found.gone else ""
            )
        findings.append(_finding(_LOOKS_UP, Verdict.OK if good else Verdict.FAILED, detail, subject=subject))
    return findings or [_finding(_LOOKS_UP, Verdict.OK, "no keys, and none in the copy")]


def _of_release(started: str, copied: str) -> Finding:
    check = "the server is of the release that the copy was taken from"
    here, there = release(started), release(copied)
    detail = f"started with Redis {started}, taken from Redis {copied or 'of an unknown version'}"
    if here is None or there is None or here[0] != there[0]:
        hint = f"Install Redis {copied.rpartition('.')[0] or copied or 'of that version'} on this machine."
        return _finding(check, Verdict.UNKNOWN, detail, hint=hint)
    unlike = "" if here == there else f"how Redis {there[0]}.{there[1]} itself loads it"
    return _finding(check, Verdict.OK, detail, not_checked=unlike)


def databases_of(facts: Mapping[str, Any]) -> int:
    """How many databases a server needs to load a copy, from its facts; 0 when they do not say."""
    settings, keys = facts.get("settings"), facts.get("keys")
    said = settings.get("databases", "") if isinstance(settings, Mapping) else ""
    used = max((int(one) + 1 for one in keys), default=0) if isinstance(keys, Mapping) else 0
    return max(used, int(said) if str(said).isdigit() else 0)


def _require_memory(reader: CopyReader) -> None:
    """Raise ``UncheckedError`` when loading the copy would take memory that this machine has not free."""
    if STREAM not in {info.name for info in reader.streams()}:
        raise DamageError(f"the copy has no stream {STREAM}")
    used = reader.facts.get("used_memory_bytes")
    need = int((used if isinstance(used, int) else 0) * _MEMORY_MARGIN)
    available = free_memory_bytes()
    if available is not None and need > available:
        raise UncheckedError(
            f"the sandbox needs about {show_size(need)} of memory, {show_size(available)} are free here",
            hint="Verify on a machine with more memory, or when this one has less to do.",
        )


def free_memory_bytes() -> int | None:
    """Memory that a new program can take on this machine without pushing others out (proc(5), MemAvailable)."""
    with contextlib.suppress(OSError):
        if match := re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text()):
            return int(match[1]) * 1024
    return None


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _finding(
    check: str,
    verdict: Verdict,
    detail: str = "",
    *,
    subject: str = STREAM,
    hint: str | None = None,
    not_checked: str = "",
) -> Finding:
    return Finding(check=check, subject=subject, verdict=verdict, detail=detail, hint=hint, not_checked=not_checked)
