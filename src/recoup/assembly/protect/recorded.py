"""Taking a copy, with a record of the run: what ``recoup status`` shows, and what pauses after failures rest on."""

from __future__ import annotations

import os

from recoup.assembly.protect.copies import Options, Protected, Task, protect
from recoup.assembly.system import System
from recoup.assembly.watch.pings import Pings
from recoup.backup.run_records import Outcome, begin_task, drop_request, end_task, read_requests
from recoup.engines.engine import ProgressListener
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, Exit, RecoupError
from recoup.kernel.finding import Verdict


def protect_recorded(system: System, task: Task, options: Options, on_progress: ProgressListener) -> Protected:
    """As ``protect``. However it ends, short of ``kill -9``, the record says how."""
    folder = system.state_folder
    begun = begin_task(folder, task.service, task.kind, pid=os.getpid(), now=clock.now())
    pings = Pings(system, task.service, task.kind)
    pings.begin()
    outcome: Outcome = "interrupted"
    code, error = Exit.INTERRUPTED, "it was interrupted"
    try:
        result = protect(system, task, options, on_progress)
        outcome, code, error = _ended(result)
    except RecoupError as failure:
        outcome, code, error = "failed", failure.exit_code, failure.message
        raise
    finally:
        end_task(folder, begun, outcome, now=clock.now(), exit_code=int(code), error=error or None)
        pings.end(outcome, error or None)
    asked = read_requests(folder).get((task.service, task.kind))
    if result.taken is not None and asked is not None and asked <= result.taken.outcome.manifest.begun:
        drop_request(folder, task.service, task.kind)
    return result


def _ended(result: Protected) -> tuple[Outcome, Exit, str]:
    """How the run counts, its exit code, and what went wrong in a few words."""
    if isinstance(result.error, BusyError):
        return "interrupted", result.exit_code, result.error.message
    match result.exit_code:
        case Exit.OK:
            return "ok", Exit.OK, ""
        case Exit.UNKNOWN:
            return "unknown", Exit.UNKNOWN, _why(result)
        case code:
            return "failed", code, _why(result)


def _why(result: Protected) -> str:
    if result.error is not None:
        return result.error.message
    if result.not_kept is not None:
        return f"the images were not kept: {result.not_kept.message}"
    failed = dict(result.unopened) | (dict(result.taken.outcome.failed) if result.taken is not None else {})
    if failed:
        return "; ".join(f"not in {name}: {error.message}" for name, error in failed.items())
    findings = result.verification.findings if result.verification is not None else ()
    bad = [one for one in findings if one.verdict is not Verdict.OK]
    return "; ".join(f"{one.check}: {one.subject}: {one.detail}" for one in bad[:3])
