"""The JSON shapes that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recoup.kernel.finding import Finding
    from recoup.repository.catalog import Entry
    from recoup.repository.manifest import Manifest


def finding_document(finding: Finding) -> dict[str, Any]:
    """One finding."""
    return {
        "check": finding.check,
        "subject": finding.subject,
        "verdict": finding.verdict.value,
        "detail": finding.detail,
        "hint": finding.hint,
        "not_checked": finding.not_checked,
    }


def manifest_summary(manifest: Manifest) -> dict[str, Any]:
    """What identifies an artefact, and its sizes."""
    from recoup.kernel import clock

    return {
        "id": manifest.id,
        "service": manifest.service,
        "engine": manifest.engine,
        "kind": manifest.kind,
        "label": manifest.label,
        "begun": clock.to_text(manifest.begun),
        "ended": clock.to_text(manifest.ended),
        "plain_bytes": manifest.plain_bytes,
        "stored_bytes": manifest.stored_bytes,
    }


def entry_document(entry: Entry) -> dict[str, Any]:
    """One entry of the catalog."""
    return {
        "id": entry.id,
        "service": entry.service,
        "engine": entry.engine,
        "kind": entry.kind,
        "label": entry.label,
        "begun": entry.begun_text,
        "ended": entry.ended_text,
        "plain_bytes": entry.plain_bytes,
        "stored_bytes": entry.stored_bytes,
        "repositories": list(entry.repositories),
        "depends_on": list(entry.depends_on),
    }


def proof_words(proof: dict[str, Any] | None) -> str:
    """What is proven of a copy, in a few words: ``same 3 d ago``, ``FAILED intact``, ``never``."""
    from recoup.kernel import clock
    from recoup.kernel.units import show_duration

    if proof is None:
        return "never"
    if proof["failed"] is not None:
        return f"FAILED {proof['failed']}"
    if proof["grade"] is None:
        return "unknown"
    age = max((clock.now() - clock.from_text(proof["proven_at"])).total_seconds(), 0)
    return f"{proof['grade']} {show_duration(age)} ago" + (", expired" if proof["expired"] else "")
