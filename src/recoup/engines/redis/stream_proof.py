"""Proving a command stream by the next copy: an earlier copy with the commands up to the later one's place equals it.

Both ways to one state are independent: the later copy was sent by the server, the other was built from an earlier
copy and every command between. A missing, damaged or doubled command shows, and so does a wrong earlier copy. While
the scratch server loads, and after, nothing expires; so the comparison is exact, as of the later copy's own moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from recoup.engines.engine import CopyReader
from recoup.engines.redis.fingerprint import FORMAT, Fingerprinter, compare, fingerprint_rdb
from recoup.engines.redis.local_servers import release
from recoup.engines.redis.rdb import read_rdb
from recoup.engines.redis.replay import Scratch
from recoup.engines.redis.seal import RdbSeal, sealed_pieces
from recoup.engines.redis.snapshot import STREAM
from recoup.kernel.finding import Finding, Verdict, overall

CHECK = "an earlier copy with the commands after it gives this one"
_PIECE = 1 << 20
_AHEAD_MS = (2_000, 7_000, 31_000, 127_000, 1_009_000)
_SEEN = "when the consumers of streams were last seen"
_TIMES = "when keys expire, to the second, and what expired within {} s of the copy"
_HINT = (
    "Do not count on instants between the two copies: restore a copy as it is. `recoup windows` shows what is reached; "
    "take a new copy, from which a new stream is proven."
)


def prove_stream(
    scratch: Scratch,
    replay: Callable[[Scratch, int], Path],
    earlier: CopyReader,
    commands: Iterable[bytes],
    later: CopyReader,
    *,
    databases: int,
    named: str,
) -> list[Finding]:
    """Replay ``commands`` onto ``earlier`` in ``scratch`` and compare with ``later`` and its recorded fingerprint.

    ``replay`` starts the server there; ``named`` says which way was gone, for the findings. Raise ``DamageError`` when
    the earlier copy or a command is damaged, ``EngineError`` when the scratch server cannot load them.
    """
    recorded = later.fingerprint
    if recorded is None or recorded.get("format") != FORMAT:
        return []
    scratch.write(sealed_pieces(earlier.read(STREAM), RdbSeal()), commands)
    built = replay(scratch, databases)
    sums = fingerprint_rdb(_pieces(built), at_ms=int(recorded["at_ms"]), origin_ms=int(recorded["origin_ms"]))
    findings = compare(recorded, sums)
    if overall(findings) is Verdict.FAILED:
        exact = (release(str(later.facts.get("redis_version", ""))) or (7, 0)) >= (7, 0)
        findings = _as_replayed(built, later, int(recorded["at_ms"]), times=exact)
    return [
        replace(one, check=CHECK, detail=f"{one.detail} ({named})", hint=_HINT if one.hint else None)
        for one in findings
    ]


def _as_replayed(built: Path, later: CopyReader, at_ms: int, *, times: bool) -> list[Finding]:
    """Compare the two data sets but for what commands do not carry: when consumers of streams were last seen.

    Not ``times``: and when keys expire. A Redis before 7 replicates times to live as they were given, so each is off by
    the time that it travelled. A key that expires just then may count on one side only; so several moments are tried,
    and one has to be equal.
    """
    moments = [at_ms] if times else [at_ms + ahead for ahead in _AHEAD_MS]
    sides = []
    for pieces in (later.read(STREAM), _pieces(built)):
        sums = Fingerprinter(at_ms=moments[0], origin_ms=at_ms, also_at_ms=moments[1:], times=times, seen=False)
        for record in read_rdb(pieces):
            sums.add(record)
        sides.append(sums.results())
    findings: list[Finding] = []
    for copied, replayed in zip(*sides, strict=True):
        findings = compare(copied, replayed)
        if overall(findings) is not Verdict.FAILED:
            gaps = [_SEEN] if times else [_SEEN, _TIMES.format((copied["at_ms"] - at_ms) // 1000)]
            return [replace(one, not_checked=", ".join(filter(None, (one.not_checked, *gaps)))) for one in findings]
    return findings


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as handle:
        while piece := handle.read(_PIECE):
            yield piece
