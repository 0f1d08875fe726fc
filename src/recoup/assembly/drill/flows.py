"""The plan's flows and checks as a drill takes them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from recoup.drill.expect import Expect
from recoup.drill.flows import FlowSpec, StepSpec
from recoup.drill.model import ActKind
from recoup.drill.proving import Question, query_proves
from recoup.kernel.finding import subject_of
from recoup.plan.model import Plan
from recoup.plan.people import Flow, FlowStep
from recoup.plan.services import Check, PostgresService, RedisService
from recoup.plan.template import Template

_METHODS: tuple[ActKind, ...] = ("get", "post", "put", "patch", "delete")


def flow_specs(plan: Plan) -> tuple[FlowSpec, ...]:
    """The flows of a plan."""
    return () if plan.drill is None else tuple(_flow(one) for one in plan.drill.flows)


def questions_of(plan: Plan) -> tuple[Question, ...]:
    """The checks of a plan's databases, by the names that their findings have."""
    return tuple(
        Question(
            service=name,
            name=subject_of(one.name, one.sql if isinstance(one, Check) else one.redis),
            sql=one.sql if isinstance(one, Check) else None,
            at_least=one.at_least,
            at_most=one.at_most,
            equals=one.equals,
        )
        for name, service in plan.services.items()
        if isinstance(service, PostgresService | RedisService)
        for one in service.checks
    )


def _flow(flow: Flow) -> FlowSpec:
    steps = tuple(_step(one) for one in flow.steps)
    return FlowSpec(name=flow.name, steps=steps, within=flow.within, passes=flow.passes, production=flow.production)


def _step(step: FlowStep) -> StepSpec:
    expect = Expect(
        status=200 if step.expect.status is None else step.expect.status,
        exit_status=0 if step.expect.exit_status is None else step.expect.exit_status,
        json=step.expect.json_body,
        contains=step.expect.contains,
        value=step.expect.value,
        at_least=step.expect.at_least,
        at_most=step.expect.at_most,
        equals=step.expect.equals,
    )
    act, target, argv = _act(step)
    proves = step.reads_data
    if act == "sql":
        proves = proves or query_proves(target, at_least=expect.at_least, equals=expect.equals)
    elif expect.at_least is not None and expect.at_least > 0:
        proves = True
    return StepSpec(
        act=act,
        target=target,
        argv=argv,
        shown=_shown(act, step, target, argv),
        service=step.service,
        database=step.database,
        headers=_texts(step.headers),
        json=step.json_body,
        expect=expect,
        save=dict(step.save),
        timeout=step.timeout,
        reads_data=proves,
    )


def _act(step: FlowStep) -> tuple[ActKind, str, tuple[str, ...]]:
    for method in _METHODS:
        address: Template | None = getattr(step, method)
        if address is not None:
            return method, address.text, ()
    if step.sql is not None:
        return "sql", step.sql, ()
    assert step.command is not None, "the plan was checked: exactly one act"
    words = shlex.split(step.command) if isinstance(step.command, str) else list(step.command)
    return "command", " ".join(words), tuple(words)


def _shown(act: ActKind, step: FlowStep, target: str, argv: tuple[str, ...]) -> str:
    """How results name it. ``str`` of a template hides a password that is written in an address."""
    if act == "sql":
        return f"sql on {step.service or 'the database'}: {' '.join(target.split())}"
    if act == "command":
        return f"command in {step.service}: {argv[0]}"
    return f"{act.upper()} {getattr(step, act)}"


def _texts(headers: Mapping[str, Template]) -> dict[str, str]:
    return {name: template.text for name, template in headers.items()}
