"""The fingerprint of a Redis data set: equal for equal data, whatever the order, the encodings, the server's version.

For each database and type: how many keys, and the sum (modulo 2^128) of a hash of each key with its type, value and
absolute expiry. Sums do not depend on order, and unlike xor do not cancel duplicates. It is computed from an RDB, so
it costs production nothing beyond the copy, and is exactly of the copy's instant.

**Expiry.** A restored server has lost, rightly, what expired meanwhile. So expiring keys are summed apart, in groups
by when they expire; a comparison demands what could not have expired yet, and passes over what must have. Keys (and
fields of hashes, Redis 7.4) that had expired before the moment of the fingerprint do not count.

It is no proof against an attacker who may choose keys; the copy's digests are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, cast

from recoup.engines.redis.rdb import Element, Entry, Function, Kind, Record, read_rdb
from recoup.kernel.finding import Finding, Verdict

FORMAT = 1
_MODULUS = 1 << 128
_DOUBLE = struct.Struct(">d")

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
#: Width of the groups of expiries, by how far from the origin of the fingerprint they lie: (up to, width), in ms.
_GRID = ((_HOUR, _MINUTE), (_DAY, _HOUR // 4), (14 * _DAY, _HOUR), (400 * _DAY, _DAY))
_NO_TIME = 1 << 62  #: the end of the one group of all that expires, when its times are not looked at


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=16).digest(), "big")


def _framed(*parts: bytes) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


@dataclass(slots=True)
class Sum:
    """How many, and the sum of their hashes."""

    count: int = 0
    total: int = 0

    def add(self, number: int) -> None:
        """Count one more."""
        self.count += 1
        self.total = (self.total + number) % _MODULUS

    def to_json(self) -> list[int | str]:
        """As ``[count, hexadecimal sum]``."""
        return [self.count, f"{self.total:032x}"]


@dataclass(slots=True)
class _PerKind:
    keys: int = 0
    permanent: Sum = field(default_factory=Sum)
    expiring: dict[int, Sum] = field(default_factory=dict)  # by the end of the group, ms since 1970
    content: Sum = field(default_factory=Sum)  # of modules only: see _of_module


def group_of(expires_ms: int, origin_ms: int) -> tuple[int, int]:
    """The group of expiries that ``expires_ms`` falls into: its begin and its end (exclusive), ms since 1970."""
    distance = expires_ms - origin_ms
    for reach, width in _GRID:
        if distance < reach:
            begin = distance // width * width
            return origin_ms + begin, origin_ms + begin + width
    begin = _GRID[-1][0]
    while 2 * begin <= distance:  # beyond the grid, groups that double
        begin *= 2
    return origin_ms + begin, origin_ms + 2 * begin


class _Moment:
    """What has been summed as of one moment."""

    def __init__(self, at_ms: int) -> None:
        self.at = at_ms
        self.sums: dict[int, dict[Kind, _PerKind]] = {}
        self.expired = 0

    def of(self, entry: Entry) -> _PerKind:
        """Where keys like this one are summed."""
        return self.sums.setdefault(entry.database, {}).setdefault(entry.kind, _PerKind())


class Fingerprinter:
    """Takes the records of one RDB and sums them. ``at_ms`` is the moment that decides what has expired.

    ``also_at_ms`` are further moments, each with a fingerprint of its own, from one reading. For comparing what was
    replayed: without ``times`` it says of a key that it expires, and not when; without ``seen`` it leaves out when the
    consumers of a stream were last seen, which no command carries.
    """

    def __init__(
        self,
        *,
        at_ms: int,
        origin_ms: int | None = None,
        also_at_ms: Sequence[int] = (),
        times: bool = True,
        seen: bool = True,
    ) -> None:
        self._times, self._seen = times, seen
        self._origin = at_ms if origin_ms is None else origin_ms
        self._moments = [_Moment(moment) for moment in (at_ms, *also_at_ms)]
        self._functions = Sum()

    def add(self, record: Record) -> None:
        """Take the next record."""
        if isinstance(record, Entry):
            self._add_entry(record)
        elif isinstance(record, Function):
            self._functions.add(_hash(record.code))

    def _add_entry(self, entry: Entry) -> None:
        alive = []
        for moment in self._moments:
            if entry.expires_ms is not None and entry.expires_ms <= moment.at:
                moment.expired += 1
            else:
                alive.append(moment)
        if not alive:
            return
        head = b"%b:%d:%b" % (entry.kind.encode(), len(entry.key), entry.key)
        if entry.kind is Kind.HASH:
            self._add_hash(alive, head, entry)
            return
        content = None
        if entry.kind is Kind.MODULE:
            value, content = _of_module(entry)
        else:
            if entry.kind is Kind.STREAM and not self._seen:
                entry.batches = _unseen(entry.batches)
            value = _ordered(entry) if entry.kind in _ORDERED else _unordered(entry)
        held = [moment.of(entry) for moment in alive]
        self._put(held, head + value, entry.expires_ms)
        for sums in held:
            sums.keys += 1
            if content is not None:
                sums.content.add(_hash(head + content))

    def _add_hash(self, alive: Sequence[_Moment], head: bytes, entry: Entry) -> None:
        """A hash, with each expiring field summed for itself, because it may go while the hash stays."""
        permanent = Sum()
        fields, last = dict.fromkeys(alive, 0), dict.fromkeys(alive, 0)
        for batch in entry.batches:
            for name, value, expires in cast("list[tuple[bytes, bytes, int | None]]", batch):
                if expires is None:
                    permanent.add(_hash(b"%d:%b%b" % (len(name), name, value)))
                    continue
                ends = expires if entry.expires_ms is None else min(expires, entry.expires_ms)
                there = [moment for moment in alive if expires > moment.at]
                data = head + _framed(b"field", name, value, self._stated(expires))
                self._put([moment.of(entry) for moment in there], data, ends)
                for moment in there:
                    fields[moment], last[moment] = fields[moment] + 1, max(last[moment], expires)
        for moment in alive:
            self._end_hash(moment, head, entry, permanent, last[moment] if fields[moment] else None)

    def _end_hash(self, moment: _Moment, head: bytes, entry: Entry, permanent: Sum, last: int | None) -> None:
        """``last``: when its last expiring field goes; None without one."""
        if not permanent.count and last is None:
            moment.expired += 1
            return
        lasting = entry.expires_ms
        if not permanent.count and last is not None:  # gone with its last field
            lasting = last if lasting is None else min(last, lasting)
        sums = moment.of(entry)
        self._put([sums], head + _summed(permanent) + self._stated(entry.expires_ms), lasting)
        sums.keys += 1

    def _stated(self, expires_ms: int | None) -> bytes:
        return b"" if expires_ms is None else b"%d" % expires_ms if self._times else b"some time"

    def _put(self, held: Iterable[_PerKind], data: bytes, expires_ms: int | None) -> None:
        if expires_ms is None:
            number = _hash(data)
            for sums in held:
                sums.permanent.add(number)
            return
        _, end = group_of(expires_ms, self._origin) if self._times else (0, _NO_TIME)
        number = _hash(data + b"@" + self._stated(expires_ms))
        for sums in held:
            sums.expiring.setdefault(end, Sum()).add(number)

    def result(self) -> dict[str, Any]:
        """The fingerprint as of the first moment, ready for JSON."""
        return self.results()[0]

    def results(self) -> list[dict[str, Any]]:
        """The fingerprints, one for each moment in their order."""
        return [self._result(moment) for moment in self._moments]

    def _result(self, moment: _Moment) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "at_ms": moment.at,
            "origin_ms": self._origin,
            "databases": {
                str(database): {
                    kind.value: {
                        "keys": sums.keys,
                        "permanent": sums.permanent.to_json(),
                        "expiring": {str(end): sums.expiring[end].to_json() for end in sorted(sums.expiring)},
                        **({"content": sums.content.to_json()} if sums.content.count else {}),
                    }
                    for kind, sums in sorted(kinds.items())
                }
                for database, kinds in sorted(moment.sums.items())
            },
            "functions": self._functions.to_json(),
            "expired_left_out": moment.expired,
        }


_ORDERED = frozenset({Kind.STRING, Kind.LIST, Kind.STREAM})


def _ordered(entry: Entry) -> bytes:
    digest = blake2b(digest_size=32)
    for batch in entry.batches:
        elements = cast("list[bytes]", batch)
        if entry.kind is Kind.STRING:  # one value, in pieces
            digest.update(elements[0])
        else:
            digest.update(_framed(*elements))
    return digest.digest()


def _unseen(batches: Iterator[list[Element]]) -> Iterator[list[Element]]:
    """The records of a stream (``rdb_stream``) without the eight bytes that end those of consumers."""
    for batch in batches:
        yield [one[:-8] if isinstance(one, bytes) and one.startswith(b"8:consumer") else one for one in batch]


def _of_module(entry: Entry) -> tuple[bytes, bytes]:
    """The module's name, and a digest of its own serialisation.

    A module need not write equal values alike (a vector set of Redis 8 that was loaded writes other bytes than
    before), so the second proves equality where it is equal, and nothing where it is not. The low ten bits of the
    module's id are the version of its encoding.
    """
    (first,) = cast("list[bytes]", next(entry.batches))
    return b"%d" % (int(first.split()[1]) >> 10), _ordered(entry)


def _unordered(entry: Entry) -> bytes:
    total = Sum()
    for batch in entry.batches:
        if entry.kind is Kind.ZSET:
            for member, score in cast("list[tuple[bytes, float]]", batch):
                # + 0.0, because minus zero becomes zero in some encodings
                total.add(_hash(_DOUBLE.pack(score + 0.0) + member))
        else:
            for element in cast("list[bytes]", batch):
                total.add(_hash(element))
    return _summed(total)


def _summed(total: Sum) -> bytes:
    return total.total.to_bytes(16, "big") + b"%d," % total.count


def fingerprint_rdb(chunks: Iterable[bytes], *, at_ms: int, origin_ms: int | None = None) -> dict[str, Any]:
    """Given the bytes of an RDB and the moment (ms since 1970) that decides what has expired, return its fingerprint.

    To compare exactly with an earlier fingerprint, give that one's ``origin_ms``. Raise as ``read_rdb`` does: a
    damaged file has no fingerprint.
    """
    sums = Fingerprinter(at_ms=at_ms, origin_ms=origin_ms)
    for record in read_rdb(chunks):
        sums.add(record)
    return sums.result()


def key_counts(fingerprint: Mapping[str, Any]) -> dict[int, int]:
    """Keys of each database, expired ones not counted."""
    return {int(db): sum(k["keys"] for k in kinds.values()) for db, kinds in fingerprint["databases"].items()}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Finding]:
    """Compare a fingerprint with one taken later, of the restored data: one finding for each database.

    ``after`` must have been computed with the ``origin_ms`` of ``before``. What expired between the two moments is
    passed over, and said. A fingerprint of another format gives *unknown*.
    """
    if before.get("format") != FORMAT or after.get("format") != FORMAT:
        return [_finding("fingerprints", Verdict.UNKNOWN, "a fingerprint has a format this Recoup does not know")]
    if before["origin_ms"] != after["origin_ms"]:
        return [_finding("fingerprints", Verdict.UNKNOWN, "the fingerprints group expiries from different origins")]
    databases = sorted({*before["databases"], *after["databases"]}, key=int)
    findings = [_compare_database(database, before, after) for database in databases]
    if before["functions"] != after["functions"]:
        said = f"{before['functions'][0]} libraries before, {after['functions'][0]} now, or other code"
        findings.append(_finding("functions", Verdict.FAILED, said))
    return findings or [_finding("all databases", Verdict.OK, "no keys before and after")]


def _compare_database(database: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Finding:
    old_kinds, new_kinds = before["databases"].get(database, {}), after["databases"].get(database, {})
    now_ms, origin_ms = after["at_ms"], before["origin_ms"]
    differences: list[str] = []
    unproven: list[str] = []
    compared = gone = unclear = 0
    for kind in sorted({*old_kinds, *new_kinds}):
        old, new = old_kinds.get(kind, _NOTHING), new_kinds.get(kind, _NOTHING)
        compared += old["permanent"][0]
        if old["permanent"] != new["permanent"]:
            differences.append(_difference(kind, "without expiry", old["permanent"], new["permanent"]))
        for end in sorted({*old["expiring"], *new["expiring"]}, key=int):
            was, now = old["expiring"].get(end, _NONE), new["expiring"].get(end, _NONE)
            begin, _ = group_of(int(end) - 1, origin_ms)
            if was == now:
                compared += was[0]
            elif now[0] == 0 and int(end) <= now_ms:
                gone += was[0]
            elif now[0] < was[0] and begin <= now_ms:
                unclear += was[0]
            else:
                differences.append(_difference(kind, "that expire", was, now))
        if old.get("content") != new.get("content"):
            unproven.append(f"the content of {old.get('keys', 0)} values of modules, whose serialisation has changed")
    passed_over = [f"{gone} that have expired since"] if gone else []
    if unclear:
        passed_over.append(f"{unclear} of which some have expired since")
    passed_over += unproven
    verdict = Verdict.FAILED if differences else Verdict.UNKNOWN if unproven else Verdict.OK
    detail = "; ".join(differences) or f"{compared} keys and expiring fields are equal"
    return _finding(f"database {database}", verdict, detail, ", ".join(passed_over))


_NONE: list[int | str] = [0, f"{0:032x}"]
_NOTHING: Mapping[str, Any] = {"permanent": _NONE, "expiring": {}}


def _difference(kind: str, which: str, was: list[int | str], now: list[int | str]) -> str:
    if was[0] == now[0]:
        return f"{kind}: other content in the {was[0]} {which}"
    return f"{kind}: {was[0]} {which} before, {now[0]} now"


def _finding(subject: str, verdict: Verdict, detail: str, not_checked: str = "") -> Finding:
    return Finding(
        check="the data equal those that were backed up",
        subject=subject,
        verdict=verdict,
        detail=detail,
        hint="Keep the present data, and compare with the copy key by key." if verdict is Verdict.FAILED else None,
        not_checked=not_checked,
    )
