"""``recoup daemon``: keep the plan, by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import FileOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.system import System
    from recoup.kernel.log import Log


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "daemon",
        daemon,
        examples=(
            "recoup daemon                          # in the foreground, until SIGTERM",
            "recoup daemon --print-timers           # systemd timers that do the same",
            "recoup daemon --print-timers --into /etc/systemd/system",
            "recoup daemon --only-workers           # what runs without end; timers do the rest",
        ),
    )


def daemon(
    grace: Annotated[
        str, typer.Option(metavar="DURATION", help="What a copy in hand may still take after SIGTERM.")
    ] = "1m",
    only_workers: Annotated[
        bool, typer.Option("--only-workers", help="Only what runs without end: the streams of WAL and Redis, alarms.")
    ] = False,
    print_timers: Annotated[
        bool,
        typer.Option("--print-timers", help="Print systemd units that do all of this without the daemon, and end."),
    ] = False,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --print-timers: write the units there.", show_default=False),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="With --print-timers: the user the units run as.", show_default=False)
    ] = None,
    file: FileOption = None,
) -> Exit:
    """Keep the plan: streams, scheduled copies, verification and pruning, in the foreground and without an end.

    SIGTERM or Ctrl-C ends it in order: nothing new begins, and the copy in hand may end within the grace; a second one
    ends it at once. SIGHUP loads the plan anew; a wrong one is refused, and the old one stays in force. There is one
    daemon for a plan (6). It logs to stderr, one event a line, and tells systemd how it is.
    """
    from recoup.assembly.system import System
    from recoup.kernel.errors import UsageError
    from recoup.kernel.units import parse_duration

    try:
        limit = parse_duration(grace)
    except ValueError as wrong:
        raise UsageError(f"--grace: {wrong}", hint="Write a duration such as 1m or 10m.") from None
    if (into or user) and not print_timers:
        raise UsageError("--into and --user belong to --print-timers", hint="Add --print-timers, or leave them out.")
    system = System.from_file(file)
    if print_timers:
        return _timers(system, into, user)
    from recoup.assembly.protect.daemon import Duties

    return _run(system, Duties(tasks=not only_workers, grace=limit))


def _run(system: System, duties: Any) -> Exit:
    import os
    import signal
    import threading

    from recoup.assembly.protect.daemon import LEASE, Daemon
    from recoup.backup.supervise import silence_excepthook
    from recoup.kernel.notify import ServiceManager
    from recoup.kernel.signals import catching
    from recoup.repository.lease import hold_lease

    log = _log()
    file = system.loaded.file
    silence_excepthook(log)
    with (
        hold_lease(system.state_folder, LEASE, "recoup daemon"),
        catching((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)) as signals,
    ):
        code = Daemon(
            system,
            duties=duties,
            log=log,
            signals=signals,
            manager=ServiceManager.from_environment(),
            reload=lambda: type(system).from_file(file),
        ).run()
    if any(not one.daemon for one in threading.enumerate() if one is not threading.main_thread()):
        os._exit(int(code))  # a worker that did not drain left threads; Python would wait for them
    return code


def _log() -> Log:
    """Lines on stderr, each with its time and level; under systemd with the level as journald reads it."""
    import contextlib
    import os
    import sys
    import threading

    from recoup.cli.output import clean, write_error
    from recoup.kernel import clock
    from recoup.kernel.log import Level

    journal, lock = "JOURNAL_STREAM" in os.environ, threading.Lock()

    def say(level: Level, event: str, /) -> None:
        at = clock.to_text(clock.now())[:19] + "Z"
        prefix = f"<{int(level)}>" if journal else f"{at} {level.name.lower()} "
        with lock, contextlib.suppress(OSError, ValueError):  # nobody listens: the work goes on
            write_error(prefix + clean(event) + "\n")
            sys.stderr.flush()

    return say


def _timers(system: System, into: Path | None, user: str | None) -> Exit:
    from recoup.assembly.protect.timers import units_for
    from recoup.cli.output import write_out
    from recoup.kernel import files
    from recoup.kernel.errors import RecoupError

    units = units_for(system, user=user)
    if into is None:
        write_out("\n".join(f"# {name}\n{text}" for name, text in units.items()))
        return Exit.OK
    try:
        for name, text in units.items():
            files.write_atomically(into / name, text.encode(), mode=0o644)
    except OSError as failure:
        raise RecoupError(
            f"cannot write units into {into}: {failure.strerror or failure}",
            hint="Name a folder that is there and that you may write, such as /etc/systemd/system.",
        ) from failure
    timers = [name for name in units if name.endswith(".timer")]
    write_out(f"wrote {len(units)} units into {into}\n")
    write_out(f"hint: systemctl daemon-reload && systemctl enable --now {' '.join(timers)}\n")
    return Exit.OK
