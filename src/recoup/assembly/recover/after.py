"""What a recovery of production does when the data are back: ask how it is, do what users do, protect it again.

Each act takes the recovery and its step, may be repeated, and changes nothing that users work with.
"""

from __future__ import annotations

from typing import Final

from recoup.assembly.drill.flows import flow_specs
from recoup.assembly.production_reach import ProductionReach
from recoup.assembly.prove_stack import FLOW, WELL_SECONDS, ask_production, do_flow, flow_findings, wait_until_well
from recoup.assembly.recover.checklist import go_through
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.protect import protect
from recoup.assembly.system import System
from recoup.drill.codec import encode
from recoup.drill.flows import FlowSpec
from recoup.drill.in_production import HINT, lookup_for, why_not
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.checklist import Item, open_items, urgent
from recoup.recovery.step import Done, Step

__all__ = ["checklist", "checks", "flows", "health", "protect", "still_open"]

_NOT_WELL: Final = (
    "`docker compose logs --tail 50 {name}` has its last words. Correct what they say; the same command then goes on "
    "here. When it does not matter now, leave it out: --skip {step} --because '…'."
)

#: The run began with a plan that had some: that nothing was done is no good end.
_NONE: Final = Finding(
    check=FLOW, subject="flows", verdict=Verdict.UNKNOWN, detail="the plan has none any more, so nothing was done",
)  # fmt: skip

#: Of the time of a step, so much is for trying flows again.
_TRYING: Final = 0.75


def health(recovery: Recovery, step: Step, *, seconds: float = WELL_SECONDS) -> Done:
    """Ask a service how it is, from this machine, until it is well.

    Raise ``EngineError`` with its last answer when it is not within ``seconds``, ``UncheckedError`` when its address
    cannot be asked.
    """
    system = recovery.system
    if system.plan.services[step.subject].health is None:
        raise UncheckedError(
            f"the plan has no health address of {step.subject} any more",
            hint=f"Put it back, or leave the step out: --skip {step.id} --because '…'.",
        )
    try:
        took = wait_until_well(system, step.subject, ProductionReach(system), seconds=min(seconds, step.seconds))
    except EngineError as failure:
        name = getattr(system.plan.services[step.subject], "compose", None) or step.subject
        raise EngineError(failure.message, hint=_NOT_WELL.format(name=name, step=step.id)) from failure
    return Done(detail=f"well after {took:.1f} s")


def checks(recovery: Recovery, step: Step) -> Done:
    """Ask the plan's questions of a service, read-only. Raise ``EngineError`` when it cannot be asked."""
    findings = ask_production(recovery.system, step.subject)
    good = sum(one.verdict is Verdict.OK for one in findings)
    return Done(findings=findings, detail=f"{good} of {len(findings)} answers are right")


def flows(recovery: Recovery, step: Step) -> Done:
    """Do what users do. What may not be done in production is *unknown*, and a person is asked for it in the end.

    When most of the step's time is over, no flow is tried again: each still gets its word.
    """
    system = recovery.system
    reach, late = ProductionReach(system), clock.monotonic() + step.seconds * _TRYING
    findings = [_flow(system, one, reach, late) for one in flow_specs(system.plan)] or [_NONE]
    good = sum(one.verdict is Verdict.OK for one in findings)
    return Done(findings=tuple(findings), detail=f"{good} of {len(findings)} flows ended well")


def _flow(system: System, flow: FlowSpec, reach: ProductionReach, late: float) -> Finding:
    reason = why_not(flow)
    if reason is not None:
        detail = f"not done in production: {reason}"
        return Finding(check=FLOW, subject=flow.name, verdict=Verdict.UNKNOWN, detail=detail, hint=HINT)
    secrets = () if system.plan.drill is None else tuple(system.plan.drill.secrets)
    lookup = lookup_for(flow, secrets, system.resolver.lookup)
    done = do_flow(flow, reach, lookup, stopping=lambda: clock.monotonic() > late)
    return flow_findings((done,))[0]


def checklist(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Go through the list of what must be well again. What is wrong with users, data or backups ends the run here.

    What can wait stays open: closing the recovery needs it.
    """
    items = go_through(recovery)
    left = open_items(items)
    detail = f"{len(items) - len(left)} of {len(items)} points are done"
    if left:
        detail += f"; open: {', '.join(one.id for one in left)}"
    return Done(
        findings=tuple(one.finding for one in urgent(items)),
        detail=detail,
        data={"items": [encode(one) for one in items]},
    )


def still_open(recovery: Recovery) -> tuple[Item, ...]:
    """What keeps a recovery from being closed, looked at and asked for now; nothing when the list is done."""
    return open_items(go_through(recovery))
