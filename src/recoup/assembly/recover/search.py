"""Searching for the newest clean recovery point of a service: what is known, look after look, and what it costs.

What to look at next is decided by ``recovery.clean_point``; here the looks are made, written into the run's journal (so
that a run that goes on after a kill does not make them again), and put into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from recoup.assembly.access import Found
from recoup.assembly.prove.checks import check_content
from recoup.assembly.prove.live import clean
from recoup.assembly.recover.forecast import stack_objective
from recoup.assembly.recover.lines import Points, postgres_points, redis_points
from recoup.assembly.recover.looks import Looked, Looker
from recoup.assembly.recover.member import member_of
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, MissingObjectError, RefusedError, StorageError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration
from recoup.plan.services import RedisService
from recoup.recovery.clean_point import Changes, Count, Seen, Settled, Spot, next_move
from recoup.verification.grade import Grade
from recoup.verification.verify import verify_artefact

if TYPE_CHECKING:
    from recoup.assembly.recover.context import Recovery

SEEN: Final = "point-seen"
CHECK: Final = "what it goes back to was seen to be clean before it replaces anything"
#: Less time than this is not given to the looks, whatever was promised: a damaged copy costs more.
_LEAST_SECONDS: Final = 120.0
#: Commands of a Redis have whole milliseconds, and its positions are microseconds.
_REDIS_RESOLUTION: Final = 1000
#: The part of what is left of the promised time that looking may take; the rest is for restoring.
_SHARE: Final = 0.5
_DAY: Final = 24 * 3600.0
_ASKED: Final = "the instant that was asked for"


def points_of(recovery: Recovery, service: str) -> Points:
    """What a database of the plan can go back to. Raise ``UsageError`` or ``RefusedError`` when there is nothing."""
    if isinstance(recovery.system.plan.services[service], RedisService):
        found = redis_points(recovery.opened, service)
    else:
        found = postgres_points(recovery.opened, service)
    if not found.lines:
        raise RefusedError(f"there is no copy of {service} to go back to", hint="`recoup list` shows what there is.")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The choice. ``data`` is for the journal."""

    data: dict[str, Any]
    because: str
    findings: tuple[Finding, ...]


@dataclass(slots=True, kw_only=True)
class Search:
    """The search for one service in one step of a run."""

    recovery: Recovery
    service: str
    step: str
    _looks: dict[Spot, Looked] = field(default_factory=dict)
    _ended: str = ""  #: why no more was looked at, when that was not for its result

    def newest_clean(self, points: Points, most_looks: int) -> Chosen:
        """The newest point that is clean, found with at most ``most_looks`` looks, and within the time.

        Raise ``RefusedError`` when every point is damaged.
        """
        resolution = 1 if points.keys is None else _REDIS_RESOLUTION
        deadline, most, longest = self._deadline(), most_looks, 0.0
        seen = self._from_before(points)
        clean(self.recovery.opened.state_folder)  # what a dead look left behind
        for one in points.said:
            self.recovery.voice.say(f"passed over: {one}")
        counts: list[Changes] = []
        while not isinstance(
            move := next_move(points.lines, seen, counts, most_looks=most, resolution=resolution), Settled
        ):
            if isinstance(move, Count):
                counts.append(points.count(move))
                continue
            if seen and deadline is not None and clock.monotonic() + longest > deadline:
                self._ended = "the time that the promised recovery time leaves for it was over"
                most = len(seen)
                continue
            looked = self._look(points, move.spot, deadline)
            seen.append(looked.seen)
            longest = max(longest, looked.seconds)
        if move.spot is None:
            raise self._nothing(points)
        if len(seen) >= most_looks and not self._ended:
            self._ended = f"it was looked at {len(seen)} points, the most there may be"
        return self._chosen(points, move, move.spot, looked_for=True)

    def newest(self, points: Points) -> Chosen:
        """The newest point whose base is all there, without a look at what is in it.

        Asking each object for its size costs a moment, and a base that lacks one would stop the recovery halfway.
        Raise ``RefusedError`` when there is none.
        """
        while isinstance(move := next_move(points.lines, (), most_looks=0), Settled) and move.spot is not None:
            wrong = self._lacking(move.spot.start)
            if not wrong:
                return self._chosen(points, move, move.spot, looked_for=False)
            self.recovery.voice.say(f"passed over: {move.spot.start}: {wrong}")
            points = _without(points, move.spot.start, wrong)
        raise self._nothing(points)

    def _lacking(self, identifier: str) -> str:
        """What is not as it was stored, of a copy and those it builds on, in every repository that has them."""
        opened = self.recovery.opened
        try:
            find = partial(opened.find, service=self.service, catalog=opened.catalog())
            found = find(identifier)
            for part in (found, *map(find, found.manifest.depends_on)):
                content = check_content(part.manifest.kind)
                seen = [verify_artefact(part.manifest, (one,), Grade.STORED, content) for one in part.holders]
                if all(one.verdict is Verdict.FAILED for one in seen):
                    bad = next(one for one in seen[0].rungs[0].findings if one.verdict is Verdict.FAILED)
                    return f"{bad.subject}: {bad.detail}"
        except (DamageError, MissingObjectError) as damage:
            return damage.message
        except StorageError:
            return ""  # that is not known now, and the restore tries longer
        return ""

    def only(self, member: Found | TimedMember) -> tuple[Finding, ...]:
        """Look at one point that was asked for by name."""
        spot = Spot(line=_ASKED, start="", at=0)
        looked = self._made(spot, member, _ASKED, self._deadline())
        if looked.seen.faults:
            hint = (
                "Leave the instant out and the newest clean point is looked for, or name an earlier one; `recoup "
                "windows` shows what there is."
            )
            return (self._finding(Verdict.FAILED, f"{_ASKED} is damaged: {looked.why}", hint=hint),)
        return (self._judged(looked, _ASKED),)

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look(self, points: Points, spot: Spot, deadline: float | None) -> Looked:
        try:
            member = member_of(self.recovery.opened, points.data(spot))
        except (DamageError, RefusedError) as refusal:  # it is not there any more, or nothing leads to it
            seen = Seen(spot=spot, faults=frozenset({refusal.message}), usable=False)
            return self._noted(Looked(seen=seen, seconds=0.0, why=refusal.message), points.show(spot))
        return self._made(spot, member, points.show(spot), deadline, most_keys=points.keys)

    def _made(
        self, spot: Spot, member: Found | TimedMember, what: str, deadline: float | None, most_keys: int | None = None
    ) -> Looked:
        voice = self.recovery.voice
        voice.say(f"looking at {what} in a sandbox")
        looker = Looker(
            opened=self.recovery.opened, system=self.recovery.system, service=self.service, voice=voice,
            most_keys=most_keys,
        )  # fmt: skip
        allowed = _DAY if deadline is None else max(_LEAST_SECONDS / 2, deadline - clock.monotonic())
        return self._noted(looker.look(spot, member, allowed), what)

    def _noted(self, looked: Looked, what: str) -> Looked:
        self._looks[looked.seen.spot] = looked
        self.recovery.voice.say(f"{what}: {_said(looked)}")
        self.recovery.journal.append(SEEN, step=self.step, what=what, said=_said(looked), **_document(looked))
        return looked

    def _from_before(self, points: Points) -> list[Seen]:
        """The looks that this step made already, before the run was cut off.

        Lines are named by where they begin or by their number: a name may be gone, or another line's, when a copy was
        pruned or a stream broke meanwhile. A look counts where the copy it began at is still one of the line's.
        """
        ends = {(line.name, start.id): line.end for line in points.lines for start in line.starts}
        for line in self.recovery.journal.lines:
            if line.event == SEEN and line.data.get("step") == self.step and line.data.get("faults") is not None:
                looked = _looked(line.data)
                spot = looked.seen.spot
                if (end := ends.get((spot.line, spot.start))) is not None and spot.at <= end:
                    self._looks[spot] = looked
        return [one.seen for one in self._looks.values()]

    def _deadline(self) -> float | None:
        """Until when (by ``clock.monotonic``) looks may be begun, so that what was promised can still be kept."""
        promised = stack_objective(self.recovery.system.plan).rto
        if promised is None:
            return None
        left = (promised - (clock.now() - self.recovery.progress.begun)).total_seconds()
        return clock.monotonic() + max(_LEAST_SECONDS, left * _SHARE)

    # -- words ---------------------------------------------------------------------------------------------------------

    def _chosen(self, points: Points, settled: Settled, spot: Spot, *, looked_for: bool) -> Chosen:
        what, looked = points.show(spot), self._looks.get(spot)
        start = next(one for one in points.line(spot).starts if one.id == spot.start)
        if looked is not None and settled.proven:
            finding = self._judged(looked, what)
        elif settled.proven:
            finding = self._finding(Verdict.OK, f"{what}: {start.because}")
        elif not looked_for:
            unseen = "whether it is sound inside: it is matched byte by byte as it is read, and looked at when it runs"
            finding = self._finding(Verdict.OK, f"{what}: the newest there is", not_checked=unseen)
        else:
            why = self._ended or (looked.why if looked is not None else self._first_lack())
            hint = "It is looked at again when it runs, before applications start; what it replaces is kept."
            finding = self._finding(Verdict.UNKNOWN, f"{what}: it was not proven: {why}", hint=hint)
        findings = [finding]
        if settled.tolerated:
            said = "; ".join(sorted(settled.tolerated)[:5])
            detail = f"wrong in every point that there is, the oldest as well, so that going back mends it not: {said}"
            findings.append(self._finding(Verdict.UNKNOWN, detail))
        because = ". ".join(filter(None, (finding.detail, self._lost(spot, settled), self._over(points))))
        data = points.data(spot) | {
            "because": because,
            "proven": finding.verdict.value,
            "looks": [{"what": points.show(one.seen.spot), "said": _said(one)} for one in self._looks.values()],
        }
        return Chosen(data=data, because=because, findings=tuple(findings))

    def _judged(self, looked: Looked, what: str) -> Finding:
        """A point that was looked at, and no damage found."""
        took = show_duration(looked.seconds)
        if looked.seen.faults is None:
            return self._finding(Verdict.UNKNOWN, f"{what}: it could not be looked at: {looked.why}")
        if looked.open:
            more = f" and {len(looked.open) - 1} more" if len(looked.open) > 1 else ""
            return self._finding(
                Verdict.UNKNOWN, f"{what}: no damage was seen, but not all could be looked at: {looked.open[0]}{more}"
            )
        later = "what is written between this look and the stop of the service, and comes back as well"
        return self._finding(Verdict.OK, f"{what}: seen to be clean in a sandbox, in {took}", not_checked=later)

    def _lost(self, spot: Spot, settled: Settled) -> str:
        if settled.next_bad is None:
            return ""
        here, there = (
            self._looks.get(spot),
            self._looks.get(Spot(line=spot.line, start=spot.start, at=settled.next_bad)),
        )
        last = None if here is None else here.seen.marker
        kept = f"the last change that comes back is {last}" if last else "the changes after it do not come back"
        return f"the damage came with the log behind it ({'' if there is None else there.why}): {kept}"

    def _over(self, points: Points) -> str:
        """What was passed over, and why: copies that are known to be bad, points that were seen damaged."""
        known = [f"{one.id}: {one.because}" for line in points.lines for one in line.starts if one.proven is False]
        unusable = [f"{one.seen.spot.start}: {one.why}" for one in self._looks.values() if not one.seen.usable]
        said = list(dict.fromkeys([*points.said, *known, *unusable]))
        return f"passed over: {'; '.join(said[:5])}" if said else ""

    def _first_lack(self) -> str:
        return next((one.why for one in self._looks.values() if one.seen.faults is None), "no look was made")

    def _nothing(self, points: Points) -> RefusedError:
        looks = [f"{points.show(one.seen.spot)}: {one.why}" for one in self._looks.values()] or [self._over(points)]
        return RefusedError(
            f"every recovery point of {self.service} is damaged: {'; '.join(looks[:4])}",
            hint=f"`recoup list {self.service}` shows all copies, also those in other repositories (--from). "
            "What is left of the data can be read from a copy in a folder: `recoup restore ID --destination FOLDER`.",
        )

    def _finding(self, verdict: Verdict, detail: str, *, hint: str | None = None, not_checked: str = "") -> Finding:
        return Finding(
            check=CHECK, subject=self.service, verdict=verdict, detail=detail, hint=hint, not_checked=not_checked
        )


def _without(points: Points, start: str, because: str) -> Points:
    """The points without what begins at a copy that is known to be bad."""
    lines = tuple(
        replace(line, starts=tuple(
            replace(one, proven=False, because=because) if one.id == start else one for one in line.starts
        ))
        for line in points.lines
    )  # fmt: skip
    return replace(points, lines=lines)


def _said(looked: Looked) -> str:
    """The result of a look, in a few words."""
    if looked.seen.faults is None:
        return f"it could not be looked at: {looked.why}"
    took = show_duration(looked.seconds)
    if looked.seen.faults:
        return f"{'damaged' if looked.seen.usable else 'cannot be gone back to'} ({took}): {looked.why}"
    return f"clean ({took})" + (f"; not looked at: {len(looked.open)}" if looked.open else "")


def _document(looked: Looked) -> dict[str, Any]:
    seen, spot = looked.seen, looked.seen.spot
    return {
        "line": spot.line, "start": spot.start, "at": spot.at,
        "faults": None if seen.faults is None else sorted(seen.faults), "marker": seen.marker, "usable": seen.usable,
        "seconds": round(looked.seconds, 3), "open": list(looked.open), "why": looked.why,
    }  # fmt: skip


def _looked(data: Mapping[str, Any]) -> Looked:
    spot = Spot(line=str(data["line"]), start=str(data["start"]), at=int(data["at"]))
    faults: Sequence[str] = data["faults"]
    seen = Seen(
        spot=spot, faults=frozenset(str(one) for one in faults), marker=data.get("marker"), usable=bool(data["usable"])
    )
    return Looked(
        seen=seen, seconds=float(data["seconds"]), open=tuple(str(one) for one in data["open"]), why=str(data["why"])
    )
