"""How long a recovery is likely to take: from the times that its steps took before, at today's sizes. Pure.

Numbers are ones that were measured, in drills or in recoveries; a step that was never measured is *unknown*, and so is
then the whole, which is at least the sum of the others. Time of steps that move bytes grows with them: a time is
scaled by the bytes of today against those of then. Below ``FLOOR_BYTES`` it is the time of starting and asking, which
does not grow. What a person does is forecast from real recoveries only: in a drill nobody orders a server.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration, show_size
from recoup.recovery.step import Act, Phase, Step

#: Below this, a copy's size has little to do with how long it takes.
FLOOR_BYTES: Final = 64 << 20
#: How many times of a step are looked at, the newest.
COUNTED: Final = 20
#: From how many times the size on a scaled time is a guess, and said to be one.
FAR: Final = 10.0

_MOVES_BYTES: Final = frozenset({Act.CHOOSE, Act.FILES, Act.RESTORE, Act.PROTECT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How long a step is likely to take. ``p95`` of fewer than twenty times is the longest of them."""

    p50: timedelta
    p95: timedelta
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How long a step took once, when it went well.

    ``seconds`` is what the machine needed, ``waited`` what people were waited for. ``size`` is the bytes of the copy it
    worked on; None when that is not known any more. ``rehearsed``: it was a drill.
    """

    step: str
    at: datetime
    seconds: float
    waited: float = 0.0
    size: int | None = None
    rehearsed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Likely:
    """What is known of one step. ``forecast`` None: unknown. ``basis`` says from what it is known, or why not."""

    forecast: Forecast | None
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a whole recovery. ``healthy`` is the time until the users are back, of the steps that are known;
    ``unknown`` are the steps until then that are not. ``rto`` None: nothing was promised."""

    steps: Mapping[str, Likely]
    healthy: Forecast | None
    unknown: tuple[str, ...]
    rto: timedelta | None = None
    needed: tuple[str, ...] = field(default=())  #: the steps until the users are back

    @property
    def verdict(self) -> Verdict:
        """Ok when even the longest times keep the promise, failed when the likely ones break it; else unknown."""
        if self.rto is None or self.healthy is None:
            return Verdict.UNKNOWN
        if self.healthy.p50 > self.rto:
            return Verdict.FAILED
        return Verdict.OK if self.healthy.p95 <= self.rto and not self.unknown else Verdict.UNKNOWN

    def left(self, done: Iterable[str], current: str | None = None, in_it: float = 0.0) -> Forecast | None:
        """What is left until the users are back. ``in_it``: seconds already spent in the step ``current``.

        None when nothing is known of what is left. ``unknown`` still says what is not in it.
        """
        over = set(done)
        rest: dict[str, Forecast] = {}
        for name in self.needed:
            known = self.steps[name].forecast
            if known is not None and name not in over:
                rest[name] = known
        if current in rest:
            spent = timedelta(seconds=in_it)
            now = rest[current]
            zero = timedelta(0)
            rest[current] = Forecast(p50=max(now.p50 - spent, zero), p95=max(now.p95 - spent, zero), times=now.times)
        return forecast_whole(list(rest), rest)[0]


def percentile(values: Sequence[timedelta], part: float) -> timedelta:
    """The nearest-rank percentile: a value that was measured, never one in between."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def forecast_of(times: Sequence[timedelta]) -> Forecast:
    """From the times that something took, at least one."""
    return Forecast(p50=percentile(times, 0.5), p95=percentile(times, 0.95), times=len(times))


def forecast_whole(keys: Sequence[str], known: Mapping[str, Forecast]) -> tuple[Forecast | None, tuple[str, ...]]:
    """What all the steps together are likely to take, one after the other, and the steps that nothing is known of.

    The p95 of the sum is not the sum of the p95: it is an upper bound, which is what a promise needs.
    """
    missing = tuple(key for key in keys if key not in known)
    found = [known[key] for key in keys if key in known]
    if not found:
        return None, missing
    zero = timedelta(0)
    whole = Forecast(
        p50=sum((one.p50 for one in found), zero),
        p95=sum((one.p95 for one in found), zero),
        times=min(one.times for one in found),
    )
    return whole, missing


def outlook(
    steps: Sequence[Step], taken: Sequence[Taken], sizes: Mapping[str, int], rto: timedelta | None = None
) -> Outlook:
    """Given the steps, what steps took before, and the bytes of each service's copy today, say what to expect."""
    by_step: dict[str, list[Taken]] = {}
    for one in sorted(taken, key=lambda one: one.at, reverse=True):
        by_step.setdefault(one.step, []).append(one)
    unpacked = {one.subject for one in steps if one.act is Act.RESTORE}
    found: dict[str, Likely] = {}
    for step in steps:
        # Where nothing was unpacked beside, putting in place is what moves the bytes.
        moves = step.act in _MOVES_BYTES or (step.act is Act.SWAP and step.subject not in unpacked)
        found[step.id] = _likely(step, by_step.get(step.id, ()), sizes.get(step.subject) if moves else None, moves)
    needed = tuple(one.id for one in steps if one.phase is not Phase.AFTER)
    known = {name: one.forecast for name, one in found.items() if one.forecast is not None}
    healthy, unknown = forecast_whole(needed, known)
    return Outlook(steps=found, healthy=healthy, unknown=unknown, rto=rto, needed=needed)


def _likely(step: Step, before: Sequence[Taken], today: int | None, moves: bool) -> Likely:
    person = step.kind == "person"
    counted = [one for one in before if not (person and one.rehearsed)][:COUNTED]
    if not counted:
        why = "a person does it; no recovery has measured how long that takes" if person else "it was never measured"
        return Likely(forecast=None, basis=why)
    times = [timedelta(seconds=_scaled(one, today, person)) for one in counted]
    return Likely(forecast=forecast_of(times), basis=_basis(counted, today, moves))


def _scaled(one: Taken, today: int | None, person: bool) -> float:
    if person:
        return one.seconds + one.waited
    return one.seconds * _factor(one.size, today)


def _factor(then: int | None, today: int | None) -> float:
    if then is None or today is None:
        return 1.0
    return max(today, FLOOR_BYTES) / max(then, FLOOR_BYTES)


def _basis(counted: Sequence[Taken], today: int | None, moves: bool) -> str:
    drills = sum(1 for one in counted if one.rehearsed)
    sources = [_counted(drills, "drill"), _counted(len(counted) - drills, "recovery")]
    said = "from " + " and ".join(one for one in sources if one)
    if not moves:
        return said
    known = [one.size for one in counted if one.size is not None]
    if today is None or not known:
        return f"{said}; not scaled, because the size {'today' if today is None else 'then'} is not known"
    factors = [_factor(one, today) for one in known]
    if all(0.9 <= one <= 1.1 for one in factors):
        return said
    then = show_size(min(known)) if len(set(known)) == 1 else f"{show_size(min(known))} to {show_size(max(known))}"
    far = "; so far from what was measured, it is a guess" if max(factors) >= FAR or min(factors) <= 1 / FAR else ""
    return f"{said}; scaled from {then} to {show_size(today)}{far}"


def _counted(number: int, what: str) -> str:
    if number == 0:
        return ""
    plural = "recoveries" if what == "recovery" else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def in_words(found: Outlook) -> str:
    """The whole against the promise, in one sentence."""
    promised = "no RTO is promised" if found.rto is None else f"the RTO is {show_duration(found.rto)}"
    if found.healthy is None:
        return f"how long it takes is not known: no step was ever measured; {promised}"
    some = f", and {len(found.unknown)} steps that were never measured" if len(found.unknown) > 1 else ""
    some = ", and one step that was never measured" if len(found.unknown) == 1 else some
    least = "at least " if found.unknown else ""
    said = (
        f"users are back after {least}about {show_duration(found.healthy.p50)}, "
        f"at worst {show_duration(found.healthy.p95)}{some}; {promised}"
    )
    if found.rto is None:
        return said
    if found.verdict is Verdict.FAILED:
        return f"{said}, which will be missed"
    return f"{said}, which is kept" if found.verdict is Verdict.OK else f"{said}, which may be missed"
