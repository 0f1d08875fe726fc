"""Taking an RDB through the server's own ``redis-cli``, for a Redis that only its container can reach.

``redis-cli --rdb -`` writes to standard output since 6.2. When the server sends the RDB without a length (diskless
replication, the default since 7.0), redis-cli cuts the 40-byte end mark off a file but cannot cut it off a pipe
(Redis, src/redis-cli.c, ``getRDB``), so it is taken off here. Older programs write a temporary file in the container.
"""

from __future__ import annotations

import copy
import os
import re
import secrets
import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from recoup.engines.engine import Content, CopyFacts, ProgressListener, Sink
from recoup.engines.redis.connection import error_of, info_fields, read_keyspace
from recoup.engines.redis.seal import RdbSeal
from recoup.engines.redis.snapshot import SETTINGS, STREAM, RdbReceipt, facts_of, milliseconds_now
from recoup.engines.redis.transfer import IDLE_SECONDS
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.process import Child, Command, Runner, open_child, run
from recoup.kernel.secret import Secret

_MARK_BYTES = 40
_ERROR = re.compile(r"(\(error\) )?(ERR|NO[A-Z]+|WRONGPASS|LOADING|MISCONF|[A-Z]{5,}) ")
_LOGIN_FAILED = re.compile(r"AUTH failed: (.*)")
_MARK = re.compile(rb"[0-9a-f]{40}")
_PIECE = 256 * 1024
_ASK_SECONDS = 60.0
_STDOUT_SINCE = (6, 2)
# The names of temporary files come from mktemp; the program and its arguments are the script's own arguments.
_BY_FILE = 'set -eu; umask 077; f=$(mktemp); trap \'rm -f "$f"\' EXIT; "$@" --rdb "$f" >&2; cat "$f"'


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisProgram:
    """How to call ``redis-cli`` where the server is. ``arguments`` may name a port, a socket or TLS files."""

    runner: Runner
    user: str | None = None
    password: Secret | None = None
    program: str = "redis-cli"
    arguments: Sequence[str] = ()

    def command(self, *words: str, timeout_seconds: float | None = _ASK_SECONDS) -> Command:
        """The call, as it is started here. The password travels in the environment."""
        login = [] if self.user is None else ["--user", self.user]
        argv = [self.program, *self.arguments, *login, *words]
        return self._wrapped(argv, timeout_seconds)

    def rdb_command(self, *, by_file: bool) -> Command:
        """The call that writes the RDB to standard output."""
        if not by_file:
            return self.command("--rdb", "-", timeout_seconds=None)
        login = [] if self.user is None else ["--user", self.user]
        return self._wrapped(["sh", "-c", _BY_FILE, "recoup", self.program, *self.arguments, *login], None)

    def _wrapped(self, argv: list[str], timeout_seconds: float | None) -> Command:
        environment = {} if self.password is None else {"REDISCLI_AUTH": self.password}
        return self.runner.wrap(Command(argv=argv, environment=environment, timeout_seconds=timeout_seconds))

    def ask(self, *commands: str) -> list[str | EngineError]:
        """What the server answers to each command, by one call; an ``EngineError`` in place of a refused one.

        Raise ``EngineError`` when the program cannot be run or not even log in. The program's exit status is 0 also
        when the server answered errors, so the answers themselves are looked at.
        """
        marker = secrets.token_hex(12)
        text = "".join(f"ECHO {marker}\n{command}\n" for command in commands)
        completed = run(self.command(), stdin=text.encode())
        said = completed.stdout.decode(errors="replace").replace("\r", "")
        if login := _LOGIN_FAILED.search(completed.stderr + said):  # it would go on without a login
            raise self._refusal(login[1])
        answers = said.split(marker + "\n")[1:]
        if len(answers) != len(commands):
            why = (said or completed.stderr).strip().splitlines() or ["nothing"]
            raise self._refusal(why[0])
        return [self._refusal(answer) if _ERROR.match(answer) else answer for answer in answers]

    def _refusal(self, said: str) -> EngineError:
        return error_of(f"Redis on {self.runner}", said.strip().removeprefix("(error) "), self.password)


def take_rdb_by_program(
    program: RedisProgram,
    sink: Sink,
    *,
    on_progress: ProgressListener,
    fingerprint: bool = True,
    origin_ms: int | None = None,
    idle_seconds: float = IDLE_SECONDS,
) -> CopyFacts:
    """As ``snapshot.take_rdb``, by ``redis-cli`` run through ``program.runner``.

    Raise ``EngineError`` when the program is missing, refused, silent for ``idle_seconds`` or ends badly, and
    ``DamageError`` when what came is no whole RDB, whatever the program's exit status said.
    """
    facts, left_out, at_ms = _gather(program)
    by_file = _version(program) < _STDOUT_SINCE
    with sink.stream(STREAM, content=Content.OPAQUE) as stream:
        receipt = RdbReceipt(stream.write, on_progress, at_ms=at_ms if fingerprint else None, origin_ms=origin_ms)
        try:
            with open_child(program.rdb_command(by_file=by_file)) as child:
                marked = _without_mark(_pieces(child, idle_seconds), receipt.write, child)
            more, sums, missing = receipt.finish()
        except BaseException:
            receipt.abandon()
            raise
    return CopyFacts(facts=facts | more | {"diskless": marked}, fingerprint=sums, left_out=(*left_out, *missing))


def _pieces(child: Child, idle_seconds: float) -> Iterator[bytes]:
    handle = child.stdout.fileno()
    while True:
        if not select.select([handle], [], [], idle_seconds)[0]:
            raise EngineError(f"{child.command.argv[0]} sent nothing of the RDB for {idle_seconds:g} s")
        piece = os.read(handle, _PIECE)
        if not piece:
            return
        yield piece


def _without_mark(pieces: Iterator[bytes], write: Callable[[bytes], None], child: Child) -> bool:
    """Pass everything on but an end mark, and require that the program ended well and the RDB is whole.

    Return whether there was a mark. The checksum before it tells a mark from data.
    """
    seal, held = RdbSeal(), b""
    for piece in pieces:
        held += piece
        ready, held = held[:-_MARK_BYTES], held[-_MARK_BYTES:]
        if ready:
            seal.write(ready)
            write(ready)
    child.require_success(_ASK_SECONDS)
    if _MARK.fullmatch(held):
        try:
            copy.deepcopy(seal).finish()
            return True
        except DamageError:
            pass  # then the 40 characters belong to the data, and the whole is judged below
    seal.write(held)
    write(held)
    seal.finish()
    return False


def _gather(program: RedisProgram) -> tuple[dict[str, Any], tuple[tuple[str, str], ...], int]:
    """Facts, what the server would not say, and its clock."""
    about, time, *settings = program.ask("INFO", "TIME", *(f"CONFIG GET {name}" for name in SETTINGS))
    if isinstance(about, EngineError):
        raise about
    info = dict(info_fields(about))
    if "redis_version" not in info:
        raise EngineError(f"{program.program} on {program.runner} gave no INFO", hint="Look at the log of the server.")
    facts = facts_of(info, f"Redis on {program.runner}", read_keyspace(info))
    refused = next((answer for answer in settings if isinstance(answer, EngineError)), None)
    left_out = () if refused is None else (("settings", f"CONFIG GET is not allowed: {refused.message}"),)
    known = [answer.split("\n") for answer in settings if isinstance(answer, str)]
    facts["settings"] = {lines[0]: lines[1] for lines in known if len(lines) >= 2 and lines[0]}
    return facts, left_out, _milliseconds(time)


def _version(program: RedisProgram) -> tuple[int, int]:
    said = run(program.command("--version")).stdout.decode(errors="replace")
    match = re.search(r"(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _milliseconds(answer: str | EngineError) -> int:
    """Given the answer to ``TIME``, return ms since 1970; this machine's clock where TIME is not allowed."""
    parts = answer.split() if isinstance(answer, str) else []
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[0]) * 1000 + int(parts[1]) // 1000
    return milliseconds_now()
