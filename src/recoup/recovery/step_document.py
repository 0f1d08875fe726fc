"""A step as JSON, and back: how it stands in a journal and in a printed runbook, for whoever has no plan at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recoup.recovery.step import Act, Consent, Phase, Step


def step_document(step: Step) -> dict[str, Any]:
    """Everything of a step that is not empty."""
    said = {
        "id": step.id,
        "title": step.title,
        "kind": step.kind,
        "act": step.act.value,
        "phase": step.phase.value,
        "subject": step.subject,
        "meaning": step.meaning,
        "commands": list(step.commands),
        "check": step.check,
        "consent": step.consent.value,
        "replaces": step.replaces,
        "differs": step.differs,
        "stopped_after_seconds": step.seconds,
        "attempts": step.attempts,
    }
    return {name: value for name, value in said.items() if value not in ("", [])}


def step_of_document(said: Mapping[str, Any]) -> Step:
    """The reverse of ``step_document``. Raise ``ValueError`` when it is none."""
    try:
        return Step(
            id=str(said["id"]),
            title=str(said["title"]),
            meaning=str(said.get("meaning", "")),
            act=Act(said["act"]),
            phase=Phase(said["phase"]),
            subject=str(said.get("subject", "")),
            commands=tuple(str(one) for one in said.get("commands", ())),
            check=str(said.get("check", "")),
            consent=Consent(said.get("consent", Consent.NONE.value)),
            replaces=str(said.get("replaces", "")),
            differs=str(said.get("differs", "")),
            seconds=float(said["stopped_after_seconds"]),
            attempts=int(said["attempts"]),
        )
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"this is no step: {wrong}") from wrong
