"""What ends a recovery for good: ``--close``, ``--rollback`` and ``--abandon``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from recoup.cli.asking import asking_person, somebody_is_here, typed, yes_or_no
from recoup.cli.documents import finding_document
from recoup.cli.recover_asked import Asked
from recoup.cli.restore import say_findings
from recoup.kernel.errors import Exit, RefusedError, UsageError
from recoup.kernel.finding import exit_code, overall
from recoup.recovery import progress as written
from recoup.recovery.progress import Progress

if TYPE_CHECKING:
    from recoup.assembly.recover.context import Recovery
    from recoup.assembly.recover.end import Given
    from recoup.assembly.recover.undo import Undone
    from recoup.cli.output import Output


def end(output: Output, asked: Asked) -> Exit:
    """Close a run, put back what it replaced, or give it up."""
    from recoup.assembly.recover.end import Given
    from recoup.assembly.recover.hold import Who
    from recoup.assembly.recover.resume import system_here
    from recoup.assembly.voice import Voice
    from recoup.kernel.presence import login_name

    opened, system = system_here(asked.file, asked.source, asked.key_file)
    ask = asking_person(output) if somebody_is_here() else None
    with output.progress() as listener:
        given = Given(
            opened=opened,
            system=system,
            who=Who(name=asked.as_name or login_name(), take_over=asked.take_over),
            voice=Voice(say=output.note, on_progress=listener, ask=ask),
            run=asked.run,
        )
        if asked.abandon:
            return _abandon(output, asked, given)
        if asked.rollback:
            return _roll_back(output, asked, given)
        return _close(output, asked, given)


def _abandon(output: Output, asked: Asked, given: Given) -> Exit:
    from recoup.assembly.recover.aside import set_aside
    from recoup.assembly.recover.data import hold_name
    from recoup.assembly.recover.end import abandon
    from recoup.recovery.progress import read_progress

    because = (asked.because or "").strip()
    progress = read_progress(abandon(given, because))
    assert progress is not None, "it was begun"
    output.line(f"run {progress.run} is given up, because {because}")
    stopped = _stopped(progress)
    if stopped:
        output.line("what it stopped stands still: docker compose up -d --wait starts it")
    unpacked = _services(progress, written.has_unpacked)
    if unpacked:
        output.line(f"what it unpacked of {unpacked} lies beside the old data until it is closed")
    files = ", ".join(str(one) for one in set_aside(given.system.folder, progress.run))
    if files:
        output.line(f"the files that it set aside are in {files} until it is closed")
    nexts = [asked.command("--close", progress.run)]
    if not progress.frozen:
        nexts = [f"recoup hold --release {hold_name(progress.run)}"]
        output.line("its journal is lost: nobody knows what it stopped or replaced, and `recoup diagnose` looks")
        output.line("its hold stays, so that nothing expires; this ends it:")
    elif _services(progress, written.has_replaced):
        nexts.insert(0, asked.command("--rollback", progress.run))
        output.line("what it replaced is kept aside, and its hold stays. Put it back, or let it go:")
    else:
        what = "no database" if files else "nothing"
        output.line(f"it replaced {what}. Its hold stays, so that nothing expires; this ends it:")
    for one in nexts:
        output.line(f"  {one}")
    output.document("recover-abandon", {"run": progress.run, "because": because, "next": nexts})
    return Exit.OK


def _roll_back(output: Output, asked: Asked, given: Given) -> Exit:
    from recoup.assembly.recover.end import open_run
    from recoup.assembly.recover.undo import roll_back, rollback_step

    system = given.system.plan.system
    if asked.confirm is not None and asked.confirm != system:
        raise UsageError(
            f"--confirm {asked.confirm}: this system is called {system}",
            hint="Is this the right plan? Nothing was done.",
        )
    with open_run(given, "rollback of a recovery") as recovery:
        step = rollback_step(recovery)
        _require_second_person(asked, given, recovery)
        output.note(f"{step.title}\n  {step.meaning}\n  It replaces {step.replaces}.")
        how = _agreed(asked, system, recovery)
        recovery.journal.append(written.APPROVED, step=step.id, by=given.who.name, how=how)
        undone = roll_back(recovery)
        run = recovery.run
    return _say(output, run, undone, f"run {run} is rolled back: production is as it was before it", "recover-rollback")


def _agreed(asked: Asked, system: str, recovery: Recovery) -> str:
    if asked.confirm is not None:
        return "typed the name beforehand"
    hint = f"Nothing was done. Agree beforehand: {asked.command('--rollback', recovery.run, '--confirm', system)}"
    if not somebody_is_here():
        raise RefusedError("putting back replaces production, and nobody is here to agree", hint=hint)
    if not typed(f"  type {system} to do it, or nothing to stop here", system):
        raise RefusedError("nobody agreed to the rollback", hint="Nothing was done. The same command asks again.")
    return "typed the name"


def _require_second_person(asked: Asked, given: Given, recovery: Recovery) -> None:
    """Raise ``RefusedError`` when the plan asks for another person than the one who began the run."""
    began = recovery.journal.lines[0].who
    if given.system.plan.recovery.two_people and began == given.who.name:
        raise RefusedError(
            f"{began} began this run, and the plan asks for another person to agree to what replaces production",
            hint=f"Nothing was done. Somebody else agrees with: {asked.command('--rollback', '--as', 'NAME')}.",
        )


def _close(output: Output, asked: Asked, given: Given) -> Exit:
    from recoup.assembly.recover.end import open_run
    from recoup.assembly.recover.undo import close, closing

    with open_run(given, "closing of a recovery") as recovery:
        run = recovery.run
        # What is open is told before anybody is asked: a yes to what is refused then is none.
        what = closing(recovery, keep=asked.keep)
        if not asked.yes:
            if not somebody_is_here():
                raise RefusedError(
                    f"closing run {run} {what}, and nobody is here to agree",
                    hint=f"Agree beforehand: {asked.command('--close', run, '--yes')}",
                )
            if not yes_or_no(f"closing run {run} {what}. Close it"):
                raise RefusedError("not closed", hint="Nothing was done. The same command asks again.")
        undone = close(recovery, what)
    return _say(output, run, undone, f"run {run} is closed", "recover-close")


def _say(output: Output, run: str, undone: Undone, said: str, schema: str) -> Exit:
    output.line(said)
    for one in undone.said:
        output.line(one)
    say_findings(output, undone.findings)
    findings = [finding_document(one) for one in undone.findings]
    output.document(schema, {"run": run, "said": list(undone.said), "findings": findings})
    return exit_code(overall(undone.findings)) if undone.findings else Exit.OK


def _stopped(progress: Progress) -> bool:
    stop = progress.steps.get("stop")
    return stop is not None and stop.attempts > 0


def _services(progress: Progress, which: Callable[[Progress, str], bool]) -> str:
    names = dict.fromkeys(name.partition("-")[2] for name in progress.steps)
    return ", ".join(name for name in names if which(progress, name))
