"""What a report on a drill says: the record, its place among the other drills, and what became of its issues. Pure.

The JSON document, the page (``page.py``) and the paper (``paper.py``) are made of it, so that all say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from recoup.drill.book import Book
from recoup.drill.codec import encode
from recoup.drill.issues import TrackedIssue
from recoup.drill.measure import (
    Forecast,
    Regression,
    TierResult,
    comparable,
    forecast,
    forecast_whole,
    regressions,
    tiers,
)
from recoup.drill.model import DrillRecord, FlowResult, verdicts
from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration
from recoup.repository.signature import PublicKey

#: How many drills a plot and a trend show.
SHOWN: Final = 24

HEADLINES: Final = {
    Verdict.OK: "The drill passed",
    Verdict.FAILED: "The drill failed",
    Verdict.UNKNOWN: "The drill could not establish everything, so it does not count as passed",
}
#: What the seal of a record is worth. Nothing more may be claimed for it anywhere.
_MAC: Final = (
    "The record is authenticated with the repository's key (HMAC-SHA256, bound to its place in the repository): "
    "nobody without that key can change it unnoticed."
)
_SIGNED: Final = (
    f"{_MAC} It is signed as well (Ed25519), by a key that follows from the repository's: whoever has the public key "
    "can check that without any secret, by `recoup drill --verify` or by openssl. Compare the fingerprint with one "
    "that reached you on another way. Whoever holds the repository's key can sign, too; and that no record was removed "
    "is not shown."
)
_UNSIGNED: Final = (
    f"{_MAC} Whoever holds the key could have written it. It is from before records were signed, so a third party "
    "cannot check it; and that no record was removed is not shown."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One drill among the others. ``series`` are the comparable ones and itself, the oldest first."""

    record: DrillRecord
    series: tuple[DrillRecord, ...]
    regressions: tuple[Regression, ...]
    tiers: tuple[TierResult, ...]
    forecast: Mapping[str, Forecast]  #: of each step by its key, from the whole series
    whole: Forecast | None  #: of all steps of this drill together
    issues: tuple[TrackedIssue, ...]  #: of this drill, and those of others that are open
    sha256: str
    places: tuple[str, ...]
    key_id: str
    signer: PublicKey
    signed: Mapping[str, Any] | None  #: the DSSE envelope of the record; None when it is not signed
    today: date

    @property
    def seal(self) -> str:
        """What its seal shows, for people."""
        return _UNSIGNED if self.signed is None else _SIGNED

    @property
    def fingerprint(self) -> str:
        """Of the public key that checks its signature, for people."""
        return "not signed" if self.signed is None else str(self.signer)


def report_on(record: DrillRecord, book: Book, *, key_id: str, signer: PublicKey, today: date) -> Report:
    """The report on one drill of the book. ``signer`` checks its signature."""
    series = (record, *comparable(record, book.records))[:SHOWN]
    likely = forecast(series)
    return Report(
        record=record,
        series=tuple(reversed(series)),
        regressions=regressions(record, book.records),
        tiers=tiers(record),
        forecast=likely,
        whole=forecast_whole([one.key for one in record.steps], likely)[0],
        issues=tuple(one for one in book.issues if one.is_open or one.drill == record.id),
        sha256=book.digests[record.id],
        places=book.places[record.id],
        key_id=key_id,
        signer=signer,
        signed=book.signed.get(record.id),
        today=today,
    )


def document(report: Report) -> dict[str, Any]:
    """All of it as JSON. Durations are in seconds; null is what is not known."""
    record = report.record
    said = of_record(record)
    said["forecast"] = {"steps": encode(report.forecast), "whole": encode(report.whole)}
    said["issues"] = [issue_document(one, report.today) for one in report.issues if one.drill == record.id]
    said["open_issues_of_others"] = [
        issue_document(one, report.today) for one in report.issues if one.drill != record.id
    ]
    said["trend"] = [summary(one) for one in report.series]
    said["regressions"] = [{**encode(one), "said": str(one)} for one in report.regressions]
    said["seal"] = {
        "sha256": report.sha256,
        "algorithm": "HMAC-SHA256",
        "key": report.key_id,
        "repositories": list(report.places),
        "public_key": None if report.signed is None else report.signer.pem,
        "fingerprint": None if report.signed is None else str(report.signer),
        "what_it_shows": report.seal,
    }
    said["signed"] = report.signed
    return said


def of_record(record: DrillRecord) -> dict[str, Any]:
    """The part of the document that follows from the record alone, and so is covered by its signature."""
    said: dict[str, Any] = encode(record)
    said["verdict"] = record.verdict.value
    said["parts"] = {name: verdict.value for name, verdict in verdicts(record)}
    said["rto"] |= {
        "measured": _seconds(record.rto.measured),
        "machine": _seconds(record.rto.machine),
        "verdict": record.rto.verdict.value,
    }
    for one, written in zip(record.rpo, said["rpo"], strict=True):
        written["verdict"] = one.verdict.value
    for flow, written in zip(record.flows, said["flows"], strict=True):
        written["verdict"] = flow.verdict.value
    said["lost"] = _seconds(record.lost)
    said["tiers"] = encode(tiers(record))
    return said


def summary(record: DrillRecord) -> dict[str, Any]:
    """One line about a drill, as JSON."""
    objectives = [one.objective for one in record.rpo if one.objective is not None]
    return {
        "id": record.id,
        "system": record.system,
        "situation": record.situation,
        "kind": record.kind,
        "declared": encode(record.declared),
        "verdict": record.verdict.value,
        "rto": _seconds(record.rto.measured),
        "rto_objective": _seconds(record.rto.objective),
        "machine": _seconds(record.rto.machine),
        "rpo": _seconds(record.lost),
        "rpo_objective": _seconds(min(objectives, default=None)),
        "issues": len(record.issues),
        "plan": record.plan.hash,
    }


def issue_document(one: TrackedIssue, today: date) -> dict[str, Any]:
    """An issue as JSON, with what became of it."""
    return {
        **encode(one.issue),
        "drill": one.drill,
        "found": encode(one.found),
        "state": "open" if one.is_open else "closed",
        "overdue": one.overdue(today),
        "closing": None if one.closing is None else encode(one.closing),
    }


def in_words(duration: timedelta | None, *, nothing: str = "not known") -> str:
    """A duration for people."""
    return nothing if duration is None else show_duration(duration)


def against(measured: timedelta | None, objective: timedelta | None) -> str:
    """A number against what was promised, for people."""
    promised = "nothing was promised" if objective is None else f"{show_duration(objective)} promised"
    return f"{in_words(measured, nothing='not measured')}, {promised}"


def lost_of(tier: TierResult, record: DrillRecord) -> str:
    """What a tier lost, against what was promised, for people. Only databases say what they have lost."""
    if not any(one.tier == tier.tier for one in record.rpo):
        return "not measured: no database is of this tier"
    return against(tier.rpo, tier.rpo_objective)


def tried(flow: FlowResult) -> str:
    """How often a flow was tried and passed, for people."""
    return f"attempts: {flow.attempts}; passed in a row: {flow.passes}"


def outlook(report: Report) -> str:
    """What to expect of the next recovery, for people."""
    if report.whole is None:
        return "not known"
    drills = "1 drill" if len(report.series) == 1 else f"{len(report.series)} drills"
    return (
        f"{show_duration(report.whole.p50)} likely, {show_duration(report.whole.p95)} in a bad case (the sum of the "
        f"95th percentiles of the steps, from {drills})"
    )


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
