"""What one check established. The vocabulary of every verification, check and diagnosis."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from recoup.kernel.errors import Exit

_LONGEST_SUBJECT: Final = 120


class Verdict(enum.StrEnum):
    """The three answers a check can give. Unknown is never ok."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check of one subject: the verdict, what was seen, and what to do about it."""

    check: str  #: what was asked, a few words: ``every stored byte matches``
    subject: str  #: what it was asked of: an object key, a table, a service
    verdict: Verdict
    detail: str = ""  #: what was measured or seen
    hint: str | None = None  #: what to do; a full sentence
    not_checked: str = ""  #: what this verdict does not cover
    left_to: str = ""  #: the grade that covers it, when one does: who comes that far need not hear of it


def subject_of(name: str | None, asked: str) -> str:
    """What reports call a check of the plan: its name, or what it asks, on one line that is not too long."""
    text = name or " ".join(asked.split())
    return text if len(text) <= _LONGEST_SUBJECT else text[: _LONGEST_SUBJECT - 1] + "…"


def overall(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of several findings. Unknown when nothing was checked."""
    return worst(finding.verdict for finding in findings)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Failed if one is, else unknown if one is or there is none, else ok."""
    seen = set(verdicts)
    if Verdict.FAILED in seen:
        return Verdict.FAILED
    return Verdict.OK if seen == {Verdict.OK} else Verdict.UNKNOWN


def exit_code(verdict: Verdict) -> Exit:
    """The exit code a command ends with for a verdict: 0, 3 or 4."""
    return {Verdict.OK: Exit.OK, Verdict.FAILED: Exit.BAD, Verdict.UNKNOWN: Exit.UNKNOWN}[verdict]
