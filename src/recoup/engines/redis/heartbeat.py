"""The heartbeat of a Redis: one key with the time, the newest record that a recovery can bring back.

It is never the only key. A Redis that lost everything must look empty, to whoever asks it and in the copies of it, so
beside nothing else the key is not written, and what is left of it is deleted. One round costs three small commands.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from recoup.engines.redis.connection import Connection, info_fields, read_info, read_keyspace
from recoup.engines.redis.program import RedisProgram
from recoup.engines.redis.snapshot import server_time_ms
from recoup.kernel.errors import EngineError

KEY: Final = "recoup:heartbeat"
DATABASE: Final = 0

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUESTIONS: Final = ("INFO keyspace", f"EXISTS {KEY}", "TIME")


def beat(connection: Connection) -> bool:
    """Write the server's time, over a connection to the database 0; whether it was written. Raise ``EngineError``."""
    keys = sum(read_keyspace(read_info(connection, "keyspace")).values())
    there = connection.command("EXISTS", KEY) == 1
    connection.command(*_next(keys, there=there, now_ms=server_time_ms(connection)))
    return keys > there


def beat_by_program(program: RedisProgram) -> bool:
    """As ``beat``, by ``redis-cli`` in the server's container."""
    info, exists, time = (_answer(one) for one in program.ask(*_QUESTIONS))
    seconds, microseconds = (int(part) for part in time.split())
    keys, there = sum(read_keyspace(dict(info_fields(info))).values()), exists.strip() == "1"
    words = _next(keys, there=there, now_ms=seconds * 1000 + microseconds // 1000)
    (said,) = program.ask(" ".join(words))
    _answer(said)
    return keys > there


def _next(keys: int, *, there: bool, now_ms: int) -> tuple[str, ...]:
    """What to do, given the number of all keys and whether the heartbeat is one of them."""
    return ("SET", KEY, str(now_ms)) if keys > there else ("DEL", KEY)


def _answer(said: str | EngineError) -> str:
    if isinstance(said, EngineError):
        raise said
    return said


def newest_beat(connection: Connection) -> datetime | None:
    """When the key was written; None where there is none. Raise ``EngineError``."""
    said = connection.command("GET", KEY)
    return _instant(said.decode(errors="replace") if isinstance(said, bytes) else "")


def newest_beat_by_program(program: RedisProgram) -> datetime | None:
    """As ``newest_beat``, by ``redis-cli`` in the server's container."""
    (said,) = program.ask(f"GET {KEY}")
    return _instant(_answer(said))


def _instant(text: str) -> datetime | None:
    """The instant that a key says; None for what no heartbeat writes."""
    try:
        return _EPOCH + timedelta(milliseconds=int(text))
    except (ValueError, OverflowError):
        return None
