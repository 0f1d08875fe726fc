"""``recoup verify --rhythm`` and ``--sample``: what the plan wants verified again and again, and reading by slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recoup.cli.documents import finding_document
from recoup.cli.verify_words import coverage_document, say_coverage
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recoup.assembly.access import Readable
    from recoup.assembly.system import System
    from recoup.cli.output import Output
    from recoup.plan.proving import Budget
    from recoup.repository.catalog import Entry


def verify_rhythm(system: System, rhythm: str, output: Output, budget: Budget | None) -> Exit:
    """Do what the plan wants done daily, weekly, monthly, or slice by slice; note down that it was."""
    from recoup.kernel.process import give_way

    give_way()  # production comes first
    code, document = run_rhythm(system, rhythm, output, budget)
    output.document("verify", document)
    return code


def run_rhythm(system: System, rhythm: str, output: Output, budget: Budget | None) -> tuple[Exit, dict[str, Any]]:
    """As ``verify_rhythm``, without printing the document: another command does that."""
    from recoup.assembly.prove.run import recorded

    document: dict[str, Any] = {}

    def act() -> tuple[Exit, str]:
        code, why, said = (
            _slice(system, output, budget) if rhythm == "slice" else _graded(system, rhythm, output, budget)
        )
        document.update(said)
        return code, why

    return recorded(system, rhythm, act), document


def _graded(system: System, rhythm: str, output: Output, budget: Budget | None) -> tuple[Exit, str, dict[str, Any]]:
    from recoup.assembly.prove.copies import choose
    from recoup.assembly.prove.live import allow
    from recoup.assembly.prove.run import readable, verify_all
    from recoup.cli.verify import plan_budget
    from recoup.cli.verify_words import document, say_each, say_rest
    from recoup.kernel.errors import UsageError
    from recoup.verification.grade import Grade

    grade = system.plan.verify.rhythm().get(rhythm)
    if grade is None:
        raise UsageError(f"the plan wants nothing proven {rhythm}", hint=f"Add it: `verify: {{{rhythm}: boots}}`.")
    opened = readable(system)
    chosen = choose(opened, None, service=None, everything=False)
    allowed = allow(plan_budget(system, budget))
    outcomes = verify_all(opened, chosen, Grade(grade), allowed, lambda one: say_each(output, one), capped=True)
    say_rest(output, opened, outcomes)
    return outcomes.exit_code, outcomes.why, document(opened, outcomes)


def _slice(system: System, output: Output, budget: Budget | None) -> tuple[Exit, str, dict[str, Any]]:
    from recoup.assembly.prove.coverage import planned_bytes
    from recoup.assembly.prove.run import readable
    from recoup.kernel.errors import UsageError

    if system.plan.verify.every_byte is None:
        raise UsageError("the plan does not say how often every byte is read", hint="Add `verify: {every_byte: 30d}`.")
    opened = readable(system)
    entries = opened.catalog().entries
    size = planned_bytes(system, opened.repositories, entries)
    return _read(opened, entries, size, output, budget)


def verify_sample(
    opened: Readable,
    reference: str | None,
    service: str | None,
    sample: str,
    output: Output,
    budget: Budget | None,
    *,
    everything: bool,
) -> Exit:
    """Read a part of what was chosen: what was not read for the longest time."""
    from recoup.assembly.prove.copies import choose
    from recoup.assembly.prove.coverage import areas_of

    chosen = choose(opened, reference, service=service, everything=everything)
    wanted = {found.manifest.id for found in chosen.found}
    entries = [entry for entry in opened.catalog().entries if entry.id in wanted]
    total = sum(area.size_bytes for area in areas_of(opened.repositories, entries))
    code, _, document = _read(opened, entries, _size(sample, total), output, budget)
    output.document("verify-sample", document)
    return code


def _size(sample: str, total: int) -> int:
    from recoup.kernel.errors import UsageError
    from recoup.kernel.units import parse_size

    hint = "Write a size such as 20GB, or a part such as 5%."
    try:
        if not sample.endswith("%"):
            return parse_size(sample)
        share = float(sample.removesuffix("%"))
    except ValueError as wrong:
        raise UsageError(f"--sample: {wrong}", hint=hint) from wrong
    if not 0 < share <= 100:
        raise UsageError(f"--sample: {sample!r} is no part of a whole", hint=hint)
    return max(1, round(total * share / 100))


def _read(
    opened: Readable, entries: Sequence[Entry], size: int, output: Output, budget: Budget | None
) -> tuple[Exit, str, dict[str, Any]]:
    from recoup.assembly.prove.coverage import coverage, read_slice
    from recoup.assembly.prove.live import allow
    from recoup.cli.verify import plan_budget
    from recoup.kernel.units import show_size

    allowed = allow(plan_budget(opened.system, budget))
    done = read_slice(opened.state_folder, opened.repositories, entries, size, allowed.watch)
    output.line(
        f"{done.verdict.value:<8}{show_size(done.read_bytes)} of {show_size(done.wanted_bytes)} were read and match"
    )
    for finding in done.findings:
        output.line(f"  {finding.verdict}: {finding.check}: {finding.subject}: {finding.detail}")
        if finding.hint:
            output.line(f"    hint: {finding.hint}")
    if done.ended_by is not None:
        output.line(f"  not reached: {show_size(done.wanted_bytes - done.read_bytes)}: {done.ended_by}")
    output.line("  not checked: WAL, command streams, and whether the copies can be restored")
    now_covered = coverage(opened, entries)
    say_coverage(output, opened, now_covered)
    for name, error in opened.failed.items():
        output.note(f"{name}: not read: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    code = done.exit_code if not opened.failed or done.exit_code is not Exit.OK else Exit.UNKNOWN
    document = {
        "verdict": done.verdict.value,
        "wanted_bytes": done.wanted_bytes,
        "read_bytes": done.read_bytes,
        "ended_by": done.ended_by,
        "findings": [finding_document(one) for one in done.findings],
        "coverage": coverage_document(opened, now_covered),
        "unreachable": {name: {"message": e.message, "hint": e.hint} for name, e in opened.failed.items()},
    }
    return code, done.why, document
