"""The history band: does a copy hold as much as the copies before it did? Pure; from what was counted, no restore.

A copy that equals its source proves nothing about a source that had lost its rows before the copy was taken. So the
counts of a copy are held against those of the recovery points before it: what had rows and has none, what is gone, and
what shrank beyond a bound is *unknown*. It may have been on purpose, which nothing here can tell; the copy itself then
becomes part of the band, and the next one is measured against it too. For the same reason a queue that was empty in
one of the copies before may be empty again; and tables that are numbered may rotate: the oldest go when new ones come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.kernel.finding import Finding, Verdict

#: How many recovery points before it make the band.
BAND: Final = 7
#: A table may keep this share of the least that it had in the band.
LEAST_SHARE: Final = 0.5
#: Below this many rows, only becoming empty counts: small tables halve every day.
SMALL: Final = 100

_NUMBERS: Final = re.compile(r"[0-9]+")
_CHECK: Final = "it holds as much as the copies before it"
_HINT: Final = (
    "Look whether that was on purpose, before the copies that still hold it expire (`recoup hold` keeps them). "
    "If it was, nothing needs to be done: the next copy is measured against this one as well."
)

#: Rows by what holds them, ``shop "public"."orders"``; None where they could not be counted.
Counts = Mapping[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierCopy:
    """What a recovery point before it held."""

    id: str
    counts: Counts


def history_findings(
    now: Counts | None,
    earlier: Sequence[EarlierCopy],
    *,
    subject: str,
    unread: Sequence[str] = (),
    least_share: float = LEAST_SHARE,
    small: int = SMALL,
) -> list[Finding]:
    """Given what a copy holds and what the ones before it held, newest first, say what it lost.

    ``now`` is None for a copy that was not counted. ``unread`` are recovery points before it that could not be
    looked at, with the reason: when no other is there, nothing was compared, and that is *unknown*. The first copy of
    all has nothing to be compared with, which is said.
    """
    if now is None:
        return [_unknown(subject, "the copy has no fingerprint", "Set fingerprint: true for the service in the plan.")]
    if not earlier:
        if unread:
            return [_unknown(subject, f"the copies before it cannot be compared with: {'; '.join(unread[:3])}", None)]
        return [
            Finding(
                check=_CHECK, subject=subject, verdict=Verdict.OK, detail="it is the first one",
                not_checked="whether rows had been lost before this copy: there is no earlier one to compare it with",
            )
        ]  # fmt: skip
    newest, findings = earlier[0], []
    rotated = _rotated(newest.counts, now)
    for name, before in newest.counts.items():
        if name in rotated:
            continue
        if name not in now:
            had = "" if before is None else f" with {before} rows"
            findings.append(_unknown(name, f"it was in {newest.id}{had}, and is gone", _HINT))
            continue
        lost = _lost(now[name], [copy.counts.get(name) for copy in earlier], least_share, small)
        if lost is not None:
            findings.append(_unknown(name, f"{before} rows were in {newest.id}, {lost}", _HINT))
    return findings or [
        Finding(
            check=_CHECK, subject=subject, verdict=Verdict.OK,
            detail=f"{len(newest.counts)} tables or databases compared with those of {len(earlier)} copies before it, "
            f"the last of them {newest.id}" + (f"; gone by rotation: {', '.join(sorted(rotated))}" if rotated else ""),
            not_checked="rows that were changed, or deleted in lesser numbers, before the copy was taken",
        )
    ]  # fmt: skip


def _rotated(before: Counts, now: Counts) -> set[str]:
    """Tables that are gone as partitions go: the lowest numbers of a family, while a higher one has come.

    A family is what has the same name but for its numbers: ``log_2026_10`` and ``log_2026_11``. One from the middle
    that is gone, or one for which no other came, is not meant.
    """
    families: dict[str, list[str]] = {}
    for name in before:
        families.setdefault(_NUMBERS.sub("#", name), []).append(name)
    rotated: set[str] = set()
    for family, members in families.items():
        members.sort(key=_numbers)
        gone = {name for name in members if name not in now}
        stayed = [name for name in members if name in now]
        came = [name for name in now if name not in before and _NUMBERS.sub("#", name) == family]
        oldest_went = bool(gone) and set(members[: len(gone)]) == gone
        if oldest_went and stayed and came and min(map(_numbers, came)) > _numbers(stayed[-1]):
            rotated |= gone
    return rotated


def _numbers(name: str) -> list[int]:
    return [int(number) for number in _NUMBERS.findall(name)]


def _lost(now: int | None, before: Sequence[int | None], least_share: float, small: int) -> str | None:
    """What there is now, in words, when that is less than the band allows."""
    counted = [one for one in before if one is not None]
    if now is None or not counted or before[0] is None:
        return None  # not being readable is a finding of the comparison with the fingerprint
    least = min(counted)
    if now == 0:
        return "none are there" if least > 0 else None
    if least >= small and now < least * least_share:
        return f"{now} are there, less than {least_share:.0%} of the least in the copies before ({least})"
    return None


def _unknown(subject: str, detail: str, hint: str | None) -> Finding:
    return Finding(check=_CHECK, subject=subject, verdict=Verdict.UNKNOWN, detail=detail, hint=hint)
