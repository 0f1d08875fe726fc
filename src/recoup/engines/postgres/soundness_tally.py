"""Counting what one check of the grade *sound* looked at, and turning it into findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from recoup.engines.postgres.soundness_ask import CannotAskError, Refusal
from recoup.kernel.finding import Finding, Verdict

_MOST_FINDINGS: Final = 25
_MOST_NAMED: Final = 10


class Tally:
    """One check of many objects: what was looked at, what is wrong, what was not reached."""

    def __init__(self, check: str, subject: str, *, unit: str, not_checked: str = "") -> None:
        self.check, self.subject, self.unit = check, subject, unit
        self.examined = 0
        self.also: list[str] = []  #: more to say when all is well
        self._left_out: list[str] = [not_checked] if not_checked else []
        self._faults: list[Finding] = []
        self._unreached: list[str] = []

    def failed(self, subject: str, detail: str, *, hint: str | None = None) -> None:
        """An object is bad."""
        self._add(subject, Verdict.FAILED, detail, hint)

    def unknown(self, subject: str, detail: str, *, hint: str | None = None) -> None:
        """An object could not be checked."""
        self._add(subject, Verdict.UNKNOWN, detail, hint)

    def refused(self, subject: str, refusal: Refusal) -> None:
        """A question about an object was refused."""
        if refusal.out_of_time:
            self._unreached.append(subject)
        else:
            self._add(subject, refusal.verdict, refusal.detail, refusal.hint)

    def leave_out(self, what: str, names: Iterable[str] | None = None) -> None:
        """Say what this check does not cover, by its nature. With ``names``, only when there are any."""
        if names is None:
            self._left_out.append(what)
        elif listed := some(sorted(names)):
            self._left_out.append(f"{what}: {listed}")

    @property
    def clean(self) -> bool:
        """Whether everything so far is well."""
        return not self._faults and not self._unreached

    def findings(self) -> list[Finding]:
        """One finding for each object that is not well, or one for all when all are."""
        left_out = "; ".join(self._left_out)
        if self.clean:
            detail = "; ".join([f"{self.examined} {self.unit}", *self.also])
            return [
                Finding(check=self.check, subject=self.subject, verdict=Verdict.OK, detail=detail, not_checked=left_out)
            ]
        worst_first = sorted(self._faults, key=lambda fault: fault.verdict is not Verdict.FAILED)
        found = worst_first[:_MOST_FINDINGS]
        if more := worst_first[_MOST_FINDINGS:]:
            found.append(
                Finding(
                    check=self.check,
                    subject=self.subject,
                    verdict=more[0].verdict,
                    detail=f"and {len(more)} more: {some([fault.subject for fault in more])}",
                )
            )
        if self._unreached:
            found.append(
                Finding(
                    check=self.check,
                    subject=self.subject,
                    verdict=Verdict.UNKNOWN,
                    detail=f"the time allowed ran out before {some(self._unreached)}",
                    hint="Allow the verification more time.",
                )
            )
        found[-1] = replace(found[-1], not_checked=left_out)
        return found

    def _add(self, subject: str, verdict: Verdict, detail: str, hint: str | None) -> None:
        self._faults.append(Finding(check=self.check, subject=subject, verdict=verdict, detail=detail, hint=hint))


def given_up(check: str, subject: str, failure: CannotAskError) -> Finding:
    """The finding for a check that could not be made at all."""
    refusal = failure.refusal
    return Finding(check=check, subject=subject, verdict=refusal.verdict, detail=refusal.detail, hint=refusal.hint)


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def many(count: object, noun: str) -> str:
    """A count with its noun: ``1 row``, ``2 rows``."""
    return f"{count} {noun}" + ("" if str(count) == "1" else "s")
