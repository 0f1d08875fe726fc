"""A runbook to read: as text for a terminal, as Markdown for paper, as JSON for programs. Pure; one list of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from recoup.kernel import clock
from recoup.kernel.units import show_duration
from recoup.recovery.forecast import Forecast, Likely, Outlook, in_words
from recoup.recovery.step import Consent, Phase, Step
from recoup.recovery.step_document import step_document

_PHASES: Final = {
    Phase.PREPARE: "Before",
    Phase.RECOVER: "Bring it back",
    Phase.PROVE: "Prove that users can work",
    Phase.AFTER: "Afterwards (the users are back; take the time it needs)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """The steps for one situation on one day. ``command`` carries them out; ``silent`` could not be asked."""

    system: str
    situation: str
    steps: tuple[Step, ...]
    outlook: Outlook
    made: datetime
    command: str
    two_people: bool = False  #: who agrees to what replaces data is not who began the run
    silent: tuple[str, ...] = ()


def asks(step: Step, system: str, *, two_people: bool = False) -> str:
    """Whom a step waits for, and what they say; empty when nobody is asked."""
    if step.kind == "person":
        return "a person does this, and says done"
    match step.consent:
        case Consent.NONE:
            return ""
        case Consent.YES:
            return "asks first: yes (or beforehand: --yes)"
        case Consent.TYPED if two_people:
            return f"asks first somebody else than who began the run: type {system} (--as NAME)"
        case Consent.TYPED:
            return f"asks first: type {system} (or beforehand: --confirm {system})"


def replaced(step: Step) -> str:
    """What a step sets aside; empty when nothing."""
    if not step.replaces:
        return ""
    return f"replaces {step.replaces}; it is kept until --close, and --rollback puts it back"


def forecast_words(likely: Likely) -> str:
    """How long a step takes, and from what that is known."""
    if likely.forecast is None:
        return f"time unknown: {likely.basis}"
    return f"{short(likely.forecast)} ({likely.basis})"


def short(forecast: Forecast | None) -> str:
    """A forecast in a few characters."""
    if forecast is None:
        return "time unknown"
    if forecast.p50 == forecast.p95:
        return f"about {show_duration(forecast.p50)}"
    return f"about {show_duration(forecast.p50)}, at worst {show_duration(forecast.p95)}"


def as_text(book: Runbook) -> str:
    """For a terminal. Ends with a newline."""
    lines = [f"recovery of {book.system} from {book.situation}: {len(book.steps)} steps"]
    phase = None
    for number, step in enumerate(book.steps, start=1):
        if step.phase is not phase:
            phase = step.phase
            lines += ["", _PHASES[phase]]
        lines.append(f"{number:>3}  {step.id}: {step.title}")
        lines += [f"       {one}" for one in _facts(book, step)]
    lines += ["", in_words(book.outlook)]
    lines += [f"not asked: {one}" for one in book.silent]
    lines += ["nothing was done. This does it:", f"  {book.command}"]
    return "\n".join(lines) + "\n"


def _facts(book: Runbook, step: Step) -> Iterator[str]:
    yield step.meaning
    yield from (f"$ {one}" for one in step.commands)
    if step.check:
        yield f"checked afterwards: {step.check}"
    yield from (one for one in (asks(step, book.system, two_people=book.two_people), replaced(step)) if one)
    yield forecast_words(book.outlook.steps[step.id])


def as_markdown(book: Runbook) -> str:
    """For paper: everything of each step, and room to write down who did it and when. Ends with a newline."""
    lines = [
        f"# Runbook: recovery of {_plain(book.system)} from {book.situation}",
        "",
        f"Made {book.made:%Y-%m-%d %H:%M} UTC from the plan and the copies of that day.",
        _sentence(in_words(book.outlook)),
        "",
        "One command carries out these steps, asks where it says so, and can be repeated after any interruption:",
        "",
        "```sh",
        book.command,
        "```",
        "",
        "The commands below are what the same step would be by hand.",
    ]
    phase = None
    for number, step in enumerate(book.steps, start=1):
        if step.phase is not phase:
            phase = step.phase
            lines += ["", f"## {_PHASES[phase]}"]
        lines += ["", f"### {number}. {_plain(step.title)}", "", _plain(step.meaning), ""]
        if step.commands:
            lines += ["```sh", *step.commands, "```", ""]
        lines.append(f"- step: `{step.id}`")
        lines += [f"- checked afterwards: {_plain(step.check)}"] if step.check else []
        lines += [
            f"- **{_plain(one)}**"
            for one in (asks(step, book.system, two_people=book.two_people), replaced(step))
            if one
        ]
        lines.append(f"- {_plain(forecast_words(book.outlook.steps[step.id]))}")
        lines.append("- [ ] done at ____________ by ____________")
    lines += [f"\nNot asked for this forecast: {_plain(one)}" for one in book.silent]
    return "\n".join(lines) + "\n"


def as_document(book: Runbook) -> dict[str, Any]:
    """For programs. Times are seconds; None is unknown."""
    return {
        "system": book.system,
        "situation": book.situation,
        "made": clock.to_text(book.made),
        "command": book.command,
        "steps": [
            {
                "number": number,
                **step_document(step),
                "asks": asks(step, book.system, two_people=book.two_people) or None,
                "forecast": forecast_document(book.outlook.steps[step.id].forecast),
                "forecast_basis": book.outlook.steps[step.id].basis,
            }
            for number, step in enumerate(book.steps, start=1)
        ],
        "total": {
            "healthy": forecast_document(book.outlook.healthy),
            "never_measured": list(book.outlook.unknown),
            "rto_seconds": None if book.outlook.rto is None else book.outlook.rto.total_seconds(),
            "verdict": book.outlook.verdict.value,
            "in_words": in_words(book.outlook),
        },
        "not_asked": list(book.silent),
    }


def forecast_document(forecast: Forecast | None) -> dict[str, Any] | None:
    """A forecast for programs, in seconds."""
    if forecast is None:
        return None
    return {
        "likely_seconds": round(forecast.p50.total_seconds(), 3),
        "at_worst_seconds": round(forecast.p95.total_seconds(), 3),
        "measured_times": forecast.times,
    }


def _plain(text: str) -> str:
    """Text that Markdown takes as it is."""
    return "".join(f"\\{one}" if one in "\\`*_<>[]#|" else one for one in text).replace("\n", " ")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
