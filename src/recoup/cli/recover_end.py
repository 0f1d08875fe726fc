"""How a recovery ended, and what is to be done now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recoup.cli.documents import finding_document
from recoup.cli.recover_asked import Asked
from recoup.cli.recover_show import attained_document, say_attained
from recoup.kernel.errors import Exit
from recoup.kernel.finding import Verdict, exit_code
from recoup.recovery.attained import Attained, attained
from recoup.recovery.progress import has_replaced
from recoup.recovery.step import Act, Phase

if TYPE_CHECKING:
    from recoup.assembly.recover.run import RecoveryOutcome
    from recoup.cli.output import Output


def say_outcome(output: Output, asked: Asked, ended: RecoveryOutcome) -> Exit:
    """Say how this call ended: results on stdout. The exit code tells the same."""
    found = attained(ended.lines)
    assert found is not None, "it was begun"
    outcome = ended.outcome
    code = _code(ended, found)
    if outcome.finished:
        output.line(_finished(found, outcome.verdict))
    elif outcome.stopped_at is not None:
        step = outcome.stopped_at
        number = ended.steps.index(step) + 1
        how = "failed" if outcome.verdict is Verdict.FAILED else "is where it stopped"
        output.line(f"step {number} of {len(ended.steps)}, {step.id}, {how}: {outcome.detail}")
        if outcome.hint:
            output.line(f"hint: {outcome.hint}")
    say_attained(output, found)
    for one in outcome.findings:
        if one.verdict is not Verdict.OK:
            output.line(f"{one.verdict.value:<8}{one.check}: {one.subject}: {one.detail}")
            if one.hint:
                output.line(f"        hint: {one.hint}")
    listed = next((one for one in found.steps if one.step.act is Act.CHECKLIST), None)
    if outcome.finished and listed is not None and listed.progress.detail:
        output.line(f"the list of what must be well before it is closed: {listed.progress.detail}")
    nexts = _next(asked, ended, found)
    if nexts:
        output.line("what to type now:")
    for number, (command, meaning) in enumerate(nexts, start=1):
        output.line(f"  {number}. {command}")
        output.line(f"     {meaning}")
    output.document("recover", _document(ended, found, code, nexts))
    return code


def _code(ended: RecoveryOutcome, found: Attained) -> Exit:
    verdict, step = ended.outcome.verdict, ended.outcome.stopped_at
    if verdict is Verdict.FAILED and step is not None and step.phase is not Phase.PROVE:
        return Exit.FAILED
    code = exit_code(verdict)
    missed = Verdict.FAILED in (found.rto_verdict, found.rpo_verdict)
    return Exit.BAD if code is Exit.OK and missed else code


def _finished(found: Attained, verdict: Verdict) -> str:
    said = f"recovery from {found.progress.situation}, run {found.progress.run}"
    match verdict:
        case Verdict.OK:
            return f"{said}: done and proven"
        case Verdict.FAILED:
            return f"{said}: done, and something is wrong"
        case Verdict.UNKNOWN:
            return f"{said}: done, and not everything could be proven"


def _next(asked: Asked, ended: RecoveryOutcome, found: Attained) -> list[tuple[str, str]]:
    """What to type now, and what it does."""
    replaced = any(one.step.replaces and has_replaced(found.progress, one.step.subject) for one in found.steps)
    back = (asked.command("--rollback"), "Puts back what was replaced; it is kept until the recovery is closed.")
    if ended.outcome.finished:
        close = "Ends the hold and removes what was set aside. Do it when everybody agrees that all is well."
        return [(asked.command("--close"), close), *([back] if replaced else [])]
    step = ended.outcome.stopped_at
    assert step is not None, "a run that is not finished stands in front of a step"
    said = [(asked.command("--resume"), f"Goes on with {step.id}. What was done is looked at, and not done twice.")]
    if ended.outcome.verdict is Verdict.FAILED:
        skip = asked.command("--resume", "--skip", step.id, "--because", "'…'")
        said.append((skip, "Leaves this step out. The reason is written down, and the outcome is unknown then."))
    return [*said, *([back] if replaced else [])]


def _document(ended: RecoveryOutcome, found: Attained, code: Exit, nexts: list[tuple[str, str]]) -> dict[str, Any]:
    outcome = ended.outcome
    return {
        "run": ended.run,
        "resumed": ended.resumed,
        "finished": outcome.finished,
        "verdict": outcome.verdict.value,
        "exit_code": int(code),
        "stopped_at": None if outcome.stopped_at is None else outcome.stopped_at.id,
        "detail": outcome.detail,
        "hint": outcome.hint,
        "findings": [finding_document(one) for one in outcome.findings],
        **attained_document(found),
        "next": [{"command": command, "meaning": meaning} for command, meaning in nexts],
    }
