"""What a Redis of a sandbox holds, read out of it whole, beside what the RDB says that it was loaded from.

Two readings of one data set, taken at the same moment: the file, by our own reader, and what the server sends to a
replica, which goes through every key and value it has. They must be equal to the last byte of the last value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recoup.engines.redis.connection import Connection
from recoup.engines.redis.fingerprint import Fingerprinter
from recoup.engines.redis.rdb import read_rdb
from recoup.engines.redis.sandbox_server import LOAD_SECONDS, SandboxRedis
from recoup.engines.redis.snapshot import milliseconds_now
from recoup.engines.redis.tee import FingerprintTee
from recoup.engines.redis.transfer import receive_rdb
from recoup.kernel import clock
from recoup.kernel.errors import EngineError

_PIECE = 1 << 20
_PAGE = 1000
#: How far ahead the moment lies as of which both readings are taken; what expires before it is in neither.
_AHEAD_MS = (5_000, 30_000, 180_000)

#: One page of SCAN, summed up in the server: keys by type and encoding, how many expire, their memory, what is gone.
_LOOK_UP = """
local page = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])
local kinds, expiring, memory, gone = {}, 0, 0, 0
for _, key in ipairs(page[2]) do
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then
    gone = gone + 1
  else
    local named = kind .. ' ' .. (redis.call('OBJECT', 'ENCODING', key) or '?')
    kinds[named] = (kinds[named] or 0) + 1
    if redis.call('PTTL', key) >= 0 then expiring = expiring + 1 end
    memory = memory + (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', '0') or 0)
  end
end
local answer = {page[1], expiring, string.format('%.0f', memory), gone}
for named, count in pairs(kinds) do
  answer[#answer + 1] = named
  answer[#answer + 1] = count
end
return answer
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Fingerprints that group expiries from one origin. ``recorded_ms`` is the moment of the recorded one, if any."""

    copy_then: Mapping[str, Any] | None  #: of the file, as of ``recorded_ms``
    copy_loading: Mapping[str, Any]  #: of the file, as of when the server began to load it
    copy_now: Mapping[str, Any]  #: of the file, as of the moment of ``served``
    served: Mapping[str, Any]  #: of what the server holds


def take_readings(server: SandboxRedis, rdb: Path, recorded: Mapping[str, Any] | None, *, began_ms: int) -> Readings:
    """Read both. ``began_ms``: when the server was started.

    Raise ``DamageError`` when one of them is no whole RDB, ``UnknownFormatError`` when it holds what this Recoup does
    not know, ``EngineError`` when the server fails.
    """
    recorded_ms = None if recorded is None else int(recorded["at_ms"])
    origin_ms = began_ms if recorded is None else int(recorded["origin_ms"])
    served = _served(server, origin_ms)
    moments = [] if recorded_ms is None else [recorded_ms]
    sums = Fingerprinter(at_ms=began_ms, origin_ms=origin_ms, also_at_ms=[served["at_ms"], *moments])
    for record in read_rdb(_pieces(rdb)):
        sums.add(record)
    loading, now, *then = sums.results()
    return Readings(copy_then=then[0] if then else None, copy_loading=loading, copy_now=now, served=served)


def _served(server: SandboxRedis, origin_ms: int) -> Mapping[str, Any]:
    for ahead in _AHEAD_MS:
        at_ms = milliseconds_now() + ahead
        begun: list[int] = []
        tee = FingerprintTee(at_ms=at_ms, origin_ms=origin_ms, patience_seconds=LOAD_SECONDS)
        try:
            with server.connect() as connection:
                receive_rdb(connection, tee.write, on_size=_stamps(begun))
            outcome = tee.finish()
        except BaseException:
            tee.abandon()
            raise
        if isinstance(outcome, str):
            raise EngineError(f"what the server of the sandbox holds could not be read: {outcome}")
        if begun and begun[0] <= at_ms:  # the server forked before: all that lives at that moment was there
            return outcome[0]
    raise EngineError("the server of the sandbox took too long to begin its answer; this machine is very busy")


def _stamps(begun: list[int]) -> Callable[[int | None], None]:
    return lambda _: begun.append(milliseconds_now())


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as handle:
        while piece := handle.read(_PIECE):
            yield piece


@dataclass(slots=True, kw_only=True)
class LookedUp:
    """What looking up every key of a database gave. A key may have been looked up twice."""

    keys: int = 0
    expiring: int = 0
    memory_bytes: int = 0
    gone: int = 0  #: listed, and not there any more when it was asked for
    kinds: dict[str, int] | None = None  #: by type and encoding: ``hash listpack``
    whole: bool = True  #: False when the time allowed was over first


def look_up_all(connection: Connection, deadline: float) -> LookedUp:
    """Look every key of the selected database up, until ``deadline`` (``clock.monotonic``) at the latest.

    Raise ``EngineError`` when the server refuses or fails.
    """
    total = LookedUp(kinds={})
    cursor = b"0"
    while True:
        answer = connection.command("EVAL", _LOOK_UP, 0, cursor, _PAGE)
        if not isinstance(answer, list) or len(answer) < 4 or not isinstance(answer[0], bytes):
            raise EngineError("the server of the sandbox gave no page of keys")
        cursor = answer[0]
        expiring, memory, gone, *kinds = answer[1:]
        total.expiring += _number(expiring)
        total.memory_bytes += _number(memory)
        total.gone += _number(gone)
        for named, count in zip(kinds[::2], kinds[1::2], strict=True):
            assert isinstance(named, bytes)
            assert total.kinds is not None
            total.keys += _number(count)
            total.kinds[named.decode()] = total.kinds.get(named.decode(), 0) + _number(count)
        if cursor == b"0":
            return total
        if clock.monotonic() > deadline:
            total.whole = False
            return total


def _number(value: object) -> int:
    if isinstance(value, bytes | int):
        return int(value)
    raise EngineError("the server of the sandbox gave no number")
