"""Proving a copy by bringing it to life: restored into a sandbox, started there, and asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RecoupError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.limits import LimitReached, Watch
from recoup.verification.grade import LIVE_GRADES, Grade, Rung
from recoup.verification.verify import Verification, not_reached


class LiveCopy(Protocol):
    """A copy that was restored into a sandbox. Each method makes the checks of one grade, and of that one only.

    ``DamageError`` means that the copy is bad, every other ``RecoupError`` that it could not be checked; both may be
    raised instead of being put into a finding. ``boots`` is called first, the others only when it found nothing bad.
    """

    def boots(self) -> Sequence[Finding]:
        """Start it: the right major version, consistent recovery reached, it answers."""
        ...

    def sound(self) -> Sequence[Finding]:
        """Look for damage inside."""
        ...

    def same(self) -> Sequence[Finding]:
        """Compare what it holds with what was recorded when it was taken."""
        ...

    def works(self) -> Sequence[Finding]:
        """Ask what the plan wants to be true."""
        ...


#: Restores the copy into a new sandbox, and removes all of it at the end, however that comes.
OpenLive = Callable[[], AbstractContextManager[LiveCopy]]


def climb(verification: Verification, asked: Grade, open_live: OpenLive, watch: Watch | None = None) -> Verification:
    """Given what verifying the stored bytes established, go on up to ``asked`` in a sandbox.

    A copy whose bytes are bad is not restored: nothing is decrypted that does not match. A copy that does not start
    ends there; any other grade that fails does not keep the next from being looked at, so that one run says all that
    is wrong. What was not reached is not in ``rungs``, unless a limit of ``watch`` is why: then it is *unknown* there.
    """
    wanted = [grade for grade in LIVE_GRADES if grade.rank <= asked.rank]
    if verification.verdict is Verdict.FAILED or not wanted:
        return replace(verification, asked=asked)
    watch = watch or Watch()
    rungs: list[Rung] = []
    limit = watch.reached()
    begun = clock.monotonic()
    try:
        # The limits end where the removal of the sandbox begins: that is never cut short.
        with contextlib.ExitStack() as until_removed, watch.interrupting():
            for grade in wanted if limit is None else ():
                begun = clock.monotonic()
                if grade is Grade.BOOTS:
                    live = until_removed.enter_context(open_live())
                rungs.append(_rung(live, grade, begun))
                limit = watch.reached()
                if limit is not None or (grade is Grade.BOOTS and rungs[-1].verdict is Verdict.FAILED):
                    break
    except LimitReached as reached:
        limit = reached.reason
    except WrongKeyError:
        raise
    except RecoupError as failure:
        # Restoring failed, or removing the sandbox did; the second is never hidden behind good findings either.
        grade = wanted[0] if not rungs else rungs[-1].grade
        rungs.append(Rung(grade=grade, findings=(_fault(grade, failure),), seconds=clock.monotonic() - begun))
    if limit is not None:
        done = {rung.grade for rung in rungs}
        late = [grade for grade in wanted if grade not in done]
        rungs += [Rung(grade=grade, findings=(not_reached(grade, limit),)) for grade in late]
    return replace(verification, asked=asked, rungs=(*verification.rungs, *_merged(rungs)))


def _rung(live: LiveCopy, grade: Grade, begun: float) -> Rung:
    check = {
        Grade.BOOTS: live.boots,
        Grade.SOUND: live.sound,
        Grade.SAME: live.same,
        Grade.WORKS: live.works,
    }[grade]
    try:
        findings = tuple(check())
    except WrongKeyError:
        raise
    except RecoupError as failure:
        findings = (_fault(grade, failure),)
    return Rung(grade=grade, findings=findings, seconds=clock.monotonic() - begun)


def _fault(grade: Grade, failure: RecoupError) -> Finding:
    return Finding(
        check=f"the checks of the grade {grade} could be made",
        subject="the sandbox",
        verdict=Verdict.FAILED if isinstance(failure, DamageError) else Verdict.UNKNOWN,
        detail=failure.message,
        hint=failure.hint,
    )


def _merged(rungs: Sequence[Rung]) -> list[Rung]:
    """One rung for each grade: what went wrong at the end belongs to the last one."""
    merged: dict[Grade, Rung] = {}
    for rung in rungs:
        before = merged.get(rung.grade)
        findings = rung.findings if before is None else (*before.findings, *rung.findings)
        seconds = rung.seconds if before is None else before.seconds
        merged[rung.grade] = Rung(grade=rung.grade, findings=findings, seconds=seconds)
    return list(merged.values())
