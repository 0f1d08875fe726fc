"""Redis services of a plan: how each is reached, the way to copy it, and where its data live in the stack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from urllib.parse import quote

from recoup.assembly.restore.feed import SCRIPT_SECONDS, feed
from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.system import System
from recoup.engines.compose.accounts import redis_password
from recoup.engines.compose.one_off import OneOff, remove_leftovers, run_one_off
from recoup.engines.engine import CopyFacts, CopyReader, ProgressListener, Sink, StreamSink
from recoup.engines.redis.connection import connect
from recoup.engines.redis.fingerprint import compare
from recoup.engines.redis.heartbeat import DATABASE, beat, beat_by_program
from recoup.engines.redis.program import RedisProgram, take_rdb_by_program
from recoup.engines.redis.restore_folder import FolderLayout
from recoup.engines.redis.restore_script import FORGET, MARKER, PLACED, PUT_BACK, kept_folder, restore_argv
from recoup.engines.redis.seal import RdbSeal, sealed_pieces
from recoup.engines.redis.snapshot import STREAM, take_rdb
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command, Completed
from recoup.kernel.secret import Secret
from recoup.plan.services import RedisService
from recoup.recovery.in_place import Occupant

#: Lists what is in the data folder ($1), the free space, which restore was the last and which has begun ($2 and $3 are
#: where that is written), and the names a Redis keeps its data under ($4 ...).
_STATUS = r"""set -eu
cd "$1"
if [ -s "$2" ]; then
  echo "placed $(cat "$2")"
  if [ -d "recoup-replaced-$(cat "$2")" ]; then echo "kept recoup-replaced-$(cat "$2")"; fi
fi
if [ -s "$3" ]; then echo "begun $(cut -d " " -f 1 "$3")"; fi
shift 3
for name in "$@"; do
  if [ -d "$name" ]; then [ -z "$(ls -A "$name")" ] || echo "data $name"
  elif [ -e "$name" ]; then echo "data $name"; fi
done
df -Pk . | tail -n 1 | sed 's/^/df /'
echo end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPlace:
    """One Redis of the plan: by its address, or by ``redis-cli`` inside its container."""

    name: str
    service: RedisService
    url: Secret | None
    program: RedisProgram | None
    stack: Stack | None

    @property
    def identity(self) -> str | None:
        """What its data are known by: the Compose project and service. None when it is reached by its address."""
        if self.stack is None or self.service.compose is None:
            return None
        return f"compose {self.stack.project.name}/{self.service.compose}"

    def snapshot(
        self, sink: Sink, on_progress: ProgressListener, *, fingerprint: bool, origin_ms: int | None = None
    ) -> CopyFacts:
        """Its data set now, as an RDB into ``sink``. ``origin_ms``: of the fingerprint to compare with, if any."""
        if self.url is not None:
            return take_rdb(self.url, sink, on_progress=on_progress, fingerprint=fingerprint, origin_ms=origin_ms)
        assert self.program is not None, "a place has an address or a program"
        return take_rdb_by_program(
            self.program, sink, on_progress=on_progress, fingerprint=fingerprint, origin_ms=origin_ms
        )


def redis_place(system: System, name: str) -> RedisPlace:
    """How the service ``name`` is reached. Raise ``UsageError`` or ``EngineError`` when the plan does not tell."""
    service = system.plan.services[name]
    assert isinstance(service, RedisService)
    resolver = system.resolver
    if service.url is not None:
        return RedisPlace(name=name, service=service, url=resolver.resolve(service.url), program=None, stack=None)
    assert service.compose is not None, "the plan was checked: url or compose"
    stack = open_stack(system)
    password = resolver.resolve(service.password) if service.password else None
    runner = stack.client.runner(service.compose)
    program = RedisProgram(
        runner=runner,
        user=resolver.text(service.user) if service.user else None,
        password=password or redis_password(stack.project.service(service.compose), runner),
    )
    return RedisPlace(name=name, service=service, url=None, program=program, stack=stack)


def redis_address(system: System, name: str) -> Secret:
    """An address under which this machine reaches the Redis ``name``: the plan's, or its container's own.

    Raise ``EngineError`` when its container has none that could be reached from here.
    """
    place = redis_place(system, name)
    if place.url is not None:
        return place.url
    assert place.stack is not None, "a place without an address is in the stack"
    assert place.service.compose is not None, "a place without an address is in the stack"
    assert place.program is not None, "a place without an address has a program"
    running = [one for one in place.stack.client.of_service(place.service.compose) if one.running]
    address = next((ip for one in running for ip in one.addresses), None)
    if address is None:
        raise EngineError(
            f"the container of {name} has no address that this machine reaches",
            hint="Start it (docker compose up -d), or publish its port on 127.0.0.1 and give the plan a url.",
        )
    user = "" if place.program.user is None else quote(place.program.user, safe="")
    password = "" if place.program.password is None else ":" + quote(place.program.password.reveal(), safe="")
    login = f"{user}{password}@" if user or password else ""
    host = f"[{address}]" if ":" in address else address
    return Secret(f"redis://{login}{host}:6379/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RdbSource:
    """Takes RDB snapshots. Implements ``backup.take.Source``."""

    place: RedisPlace
    engine: str = "redis"
    kind: str = "rdb"

    @property
    def service(self) -> str:
        """See ``Source``."""
        return self.place.name

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:  # noqa: ARG002
        """See ``Source``."""
        if self.place.service.heartbeat:
            with contextlib.suppress(EngineError):  # it can be copied all the same; the drill says what it has
                self._beat()
        copy = self.place.snapshot(sink, on_progress, fingerprint=self.place.service.fingerprint)
        return replace(copy, facts={**copy.facts, "place": self.place.identity})

    def _beat(self) -> None:
        if self.place.url is None:
            assert self.place.program is not None, "a place has an address or a program"
            beat_by_program(self.place.program)
            return
        with connect(self.place.url, database=DATABASE) as connection:
            beat(connection)


class Forgetful:
    """A sink that forgets: for fingerprints of what a server holds now."""

    @contextlib.contextmanager
    def stream(self, *_: object, **__: object) -> Iterator[StreamSink]:
        """See ``Sink``."""
        yield self

    def write(self, data: bytes | memoryview) -> None:
        """Forget."""


def compare_with_copy(place: RedisPlace, fingerprint: Mapping[str, object] | None) -> list[Finding]:
    """Compare what the server holds now with the fingerprint of a copy. Costs the server one RDB."""
    check = "the content equals the copied one"
    if fingerprint is None:
        detail = "the copy has no fingerprint"
        return [Finding(check=check, subject=place.name, verdict=Verdict.UNKNOWN, detail=detail)]
    origin = fingerprint.get("origin_ms")
    origin_ms = origin if isinstance(origin, int) else None
    now = place.snapshot(Forgetful(), lambda _: None, fingerprint=True, origin_ms=origin_ms).fingerprint
    if now is None:
        detail = "the server's data cannot be fingerprinted"
        return [Finding(check=check, subject=place.name, verdict=Verdict.UNKNOWN, detail=detail)]
    return compare(fingerprint, now)


def layout_of(facts: Mapping[str, object]) -> FolderLayout:
    """How the Redis of a copy names its files, from the facts of the copy."""
    settings = facts.get("settings")
    said: Mapping[str, str] = settings if isinstance(settings, Mapping) else {}
    return FolderLayout(
        appendonly=said.get("appendonly") == "yes",
        server_version=str(facts.get("redis_version", "7")),
        dbfilename=said.get("dbfilename") or "dump.rdb",
        appendfilename=said.get("appendfilename") or "appendonly.aof",
        appenddirname=said.get("appenddirname") or "appendonlydir",
    )


@dataclass(slots=True, kw_only=True)
class RedisHome:
    """The data volume of a Redis service. Implements ``recovery.in_place.DataHome``."""

    place: RedisPlace
    stack: Stack
    compose_service: str
    facts: Mapping[str, object]
    _placed: str | None = field(default=None, init=False)
    _kept: str | None = field(default=None, init=False)
    _seen: FolderLayout | None = field(default=None, init=False)

    def look(self) -> Occupant:
        """See ``DataHome``."""
        names = self._layout().names
        argv = ("sh", "-c", _STATUS, "recoup-look", self._folder(), PLACED, MARKER, *names)
        said = run_one_off(self.stack.client, self._one_off("look", argv, writable=False)).stdout.decode()
        if "end" not in said.splitlines():
            raise EngineError(f"could not look into the volume of {self.compose_service}: {said.strip()[-300:]}")
        present = [line.removeprefix("data ") for line in said.splitlines() if line.startswith("data ")]
        told = dict(line.split(" ", 1) for line in said.splitlines() if line.startswith(("placed ", "kept ", "begun ")))
        self._placed, self._kept = told.get("placed"), told.get("kept")
        disk = next((line.split() for line in said.splitlines() if line.startswith("df ")), [])
        return Occupant(
            place=f"the volume of {self.compose_service} ({self._folder()})",
            identity=self.place.identity,
            what=f"data ({', '.join(present)})" if present and not self._runs_empty() else None,
            unfinished=None,
            free_bytes=int(disk[4]) * 1024 if len(disk) > 4 and disk[4].isdigit() else 0,
            placed=self._placed,
            begun=told.get("begun"),
        )

    def _runs_empty(self) -> bool:
        """Whether the server runs and has no key: its files are then those of a fresh start, and nobody's data."""
        if self.place.program is None:
            return False
        try:
            (keyspace,) = self.place.program.ask("INFO keyspace")
        except EngineError:
            return False  # it does not run, or may not be asked: its files count as data
        return isinstance(keyspace, str) and "# Keyspace" in keyspace and "keys=" not in keyspace

    def needs_bytes(self, reader: CopyReader) -> int:
        """See ``DataHome``."""
        return sum(info.plain_bytes for info in reader.streams()) * 11 // 10

    def stage(self, reader: CopyReader, restore_id: str, on_progress: ProgressListener) -> None:
        """See ``DataHome``. The script keeps the old data and switches by one rename: nothing is left to swap."""
        remove_leftovers(self.stack.client, except_run=restore_id)
        total = next(info.plain_bytes for info in reader.streams() if info.name == STREAM)
        argv = restore_argv(self._folder(), self._layout(), expected_bytes=total, restore_id=restore_id, force=True)
        one_off = self._one_off(restore_id, tuple(argv))
        said = feed(
            self.stack.client,
            one_off,
            sealed_pieces(reader.read(STREAM), RdbSeal()),
            what=f"restore of {self.place.name}",
            total_bytes=total,
            on_progress=on_progress,
        )
        completed = Completed(command=Command(argv=one_off.argv), exit_status=0, stdout=said, stderr="")
        self._placed, self._kept = restore_id, kept_folder(completed)

    def swap(self, restore_id: str) -> str | None:
        """See ``DataHome``."""
        if self._placed != restore_id:
            raise EngineError(f"{restore_id} is not in place in the volume of {self.compose_service}")
        return None if self._kept is None else self._path(self._kept)

    def put_back(self, restore_id: str) -> str | None:
        """See ``Undo``."""
        argv = ("sh", "-c", PUT_BACK, "recoup-restore", self._folder(), restore_id, *self._layout().names)
        kept = kept_folder(run_one_off(self.stack.client, self._one_off(restore_id, argv)))
        return None if kept is None else self._path(kept)

    def forget(self, restore_id: str) -> Sequence[str]:
        """See ``Undo``."""
        argv = ("sh", "-c", FORGET, "recoup-restore", self._folder(), restore_id)
        said = run_one_off(self.stack.client, replace(self._one_off(restore_id, argv), beside=True)).stdout.decode()
        names = [line.removeprefix("removed ") for line in said.splitlines() if line.startswith("removed ")]
        return [self._path(name) for name in names]

    def _path(self, name: str) -> str:
        return f"{self._folder()}/{name} in the volume of {self.compose_service}"

    def check(self, reader: CopyReader) -> Sequence[Finding]:
        """See ``DataHome``."""
        return compare_with_copy(self.place, reader.fingerprint)

    def _layout(self) -> FolderLayout:
        """From the server while it still runs, since its present settings decide what it will load."""
        if self._seen is None:
            self._seen = self._look_at_settings()
        return self._seen

    def _look_at_settings(self) -> FolderLayout:
        return self._as_commanded(self._as_it_runs(layout_of(self.facts)))

    def _as_commanded(self, layout: FolderLayout) -> FolderLayout:
        """What stands in the service's command holds for the next start, whatever was set meanwhile, or copied.

        A server with an append-only log that it does not find begins empty, whatever snapshot lies beside.
        """
        words = " ".join(self.stack.project.service(self.compose_service).command or ()).split()
        said = [value for word, value in pairwise(words) if word == "--appendonly"]
        return replace(layout, appendonly=said[-1] == "yes") if said else layout

    def _as_it_runs(self, layout: FolderLayout) -> FolderLayout:
        if self.place.program is None:
            return layout
        try:
            setting, info = self.place.program.ask("CONFIG GET appendonly", "INFO server")
        except EngineError:
            return layout  # it does not run, or may not be asked: the facts of the copy decide
        said = setting.splitlines() if isinstance(setting, str) else []
        lines = info.splitlines() if isinstance(info, str) else []
        version = next((x.partition(":")[2].strip() for x in lines if x.startswith("redis_version:")), None)
        return replace(
            layout,
            appendonly=said[1].strip() == "yes" if len(said) > 1 else layout.appendonly,
            server_version=version or layout.server_version,
        )

    def _folder(self) -> str:
        settings = self.facts.get("settings")
        return str(settings.get("dir", "/data")) if isinstance(settings, Mapping) else "/data"

    def _one_off(self, run_id: str, argv: tuple[str, ...], *, writable: bool = True) -> OneOff:
        return OneOff(
            service=self.compose_service,
            argv=argv,
            run_id=run_id,
            timeout_seconds=SCRIPT_SECONDS,
            writable=writable,
        )
