"""``recoup check --prepare`` and ``--undo``: make a server ready for WAL streaming, and take that back."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from recoup.cli.output import Output
from recoup.kernel.errors import Exit, UsageError


def prepare(file: Path | None, output: Output, *, undo: bool, yes: bool) -> Exit:
    """Print every step exactly; do those that need no human hand once confirmed. Exit 4 when some are left to do."""
    from recoup.assembly.protect.prepare import preparations
    from recoup.assembly.system import System

    system = System.from_file(file)
    found = list(preparations(system, undo=undo))
    if not found:
        raise UsageError(
            "no service of the plan streams its WAL or has a heartbeat",
            hint="Add `wal: continuous` or `heartbeat: true` to a PostgreSQL service.",
        )
    for one in found:
        output.line(f"{one.service} ({one.place}):" + ("" if one.steps else " nothing to do"))
        for step in one.steps:
            output.line(f"  {step.text}")
            output.line(f"      {step.why}" + (f"; by hand: {step.by_hand}" if step.by_hand else ""))
    possible = [(one, step) for one in found for step in one.steps if step.by_hand is None]
    done = 0
    if possible and _agreed(len(possible), yes=yes, output=output):
        for one, step in possible:
            one.do(step)
            done += 1
            output.line(f"done: {step.text}")
    left = sum(len(one.steps) for one in found) - done
    output.line("nothing is left to do" if left == 0 else f"left to do: {left}")
    output.document(
        "prepare",
        {
            "undo": undo,
            "done": done,
            "left": left,
            "services": [
                {
                    "service": one.service,
                    "steps": [{"kind": s.kind, "text": s.text, "why": s.why, "by_hand": s.by_hand} for s in one.steps],
                }
                for one in found
            ],
        },
    )
    return Exit.OK if left == 0 else Exit.UNKNOWN


def _agreed(count: int, *, yes: bool, output: Output) -> bool:
    if yes:
        return True
    if output.json or not sys.stdin.isatty():
        output.note("nothing was changed: give --yes to do these steps")
        return False
    return typer.confirm(f"Do {count} of these steps now?", err=True)
