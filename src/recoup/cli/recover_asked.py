"""What the options of ``recoup recover`` ask for, and what is wrong about them; said before anything is opened."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from recoup.kernel import ids
from recoup.kernel.errors import Exit, PlanError, UsageError

if TYPE_CHECKING:
    from recoup.assembly.recover.context import RecoverWish
    from recoup.cli.output import Output

_WITHOUT_A_PLAN: Final = (
    "Go to its folder, or name it: -f FILE. On a machine that has none say where the copies are: --kit FILE, or --from "
    "s3://BUCKET/FOLDER --key-file FILE."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options as they were given."""

    what: str | None = None
    dry_run: bool = False
    form: str = "text"
    resume: bool = False
    show: bool = False
    yes: bool = False
    confirm: str | None = None
    skip: tuple[str, ...] = ()
    because: str | None = None
    pause_before: str | None = None
    services: tuple[str, ...] = ()
    to_time: str | None = None
    destination: Path | None = None
    detected: str | None = None
    install: bool = False
    force: bool = False
    as_name: str | None = None
    close: bool = False
    keep: bool = False
    rollback: bool = False
    abandon: bool = False
    take_over: bool = False
    kit: Path | None = None
    host: str | None = None
    no_provision: bool = False
    source: str | None = None
    key_file: Path | None = None
    file: Path | None = None
    lent: frozenset[str] = frozenset()  #: what the kit put into the environment of this process, for the repository
    brought: frozenset[str] = frozenset()  #: the options that the kit filled in: nobody has to type them beside it

    @property
    def run(self) -> str | None:
        """The run that is meant, where one is; None for the newest."""
        return self.what if self.resume or self.show or self.close or self.rollback or self.abandon else None

    @property
    def places(self) -> str:
        """The options that say where things are, as they have to be typed again."""
        said = [
            ("--kit", self.kit),
            ("--from", self.source),
            ("--key-file", self.key_file),
            ("-f", self.file),
            ("--host", self.host),
        ]
        return "".join(
            f" {name} {shlex.quote(str(value))}"
            for name, value in said
            if value is not None and name not in self.brought
        )

    def command(self, *words: str) -> str:
        """A command to type next, with the same places: ``recoup recover --resume -f plan``."""
        return f"recoup recover {' '.join(words)}{self.places}"


def carry_out(output: Output, asked: Asked) -> Exit:
    """Do what was asked."""
    _require_sense(asked)
    try:
        return _carry_out(output, asked)
    except PlanError as failure:
        if asked.file is None and not _plan_is_here():
            raise PlanError(failure.message, hint=_WITHOUT_A_PLAN) from failure
        raise


def _plan_is_here() -> bool:
    from recoup.plan.load import find

    try:
        find()
    except PlanError:
        return False
    return True


def _carry_out(output: Output, asked: Asked) -> Exit:
    if asked.kit is not None:
        from recoup.cli.recover_kit import with_kit

        asked = with_kit(asked)
    if asked.host is not None:
        from recoup.cli.recover_kit import on_host

        return on_host(output, asked)
    if asked.show:
        from recoup.cli.recover_show import show

        return show(output, asked)
    if asked.close or asked.rollback or asked.abandon:
        from recoup.cli.recover_close import end

        return end(output, asked)
    if asked.dry_run:
        from recoup.cli.recover_show import show_plan

        return show_plan(output, asked)
    from recoup.cli.recover_run import run

    return run(output, asked)


def wish_of(asked: Asked) -> RecoverWish:
    """What is to be recovered from. Raise ``UsageError`` for a time that is none."""
    from recoup.assembly.recover.context import RecoverWish
    from recoup.assembly.system import System
    from recoup.kernel import clock
    from recoup.kernel.errors import RecoupError
    from recoup.recovery.instant import parse_instant
    from recoup.recovery.runbook import RECOVERED

    # Of a run that goes on, the situation is in its journal.
    situation = next((one for one in RECOVERED if one == asked.what), RECOVERED[0])
    detected = None
    if asked.detected is not None:
        try:
            zone = System.from_file(asked.file).plan.timezone
        except RecoupError:
            zone = ""  # no plan on this machine yet
        detected = parse_instant(asked.detected, zone or "UTC")
        if not zone and datetime.fromisoformat(asked.detected.strip()).tzinfo is None:
            raise UsageError(
                f"--detected {asked.detected}: there is no plan here that says its zone",
                hint=f"Say it: {detected:%Y-%m-%dT%H:%M}Z for UTC, {detected:%Y-%m-%dT%H:%M}+01:00.",
            )
        if detected > clock.now():
            raise UsageError(f"--detected {asked.detected} is in the future", hint="When was it first seen?")
    return RecoverWish(
        situation=situation,
        file=asked.file,
        source=asked.source,
        key_file=asked.key_file,
        services=asked.services,
        instant=asked.to_time,
        folder=asked.destination,
        install=asked.install,
        detected=detected,
        force=asked.force,
    )


def _require_sense(asked: Asked) -> None:
    modes = {
        "--show": asked.show,
        "--resume": asked.resume,
        "--close": asked.close,
        "--rollback": asked.rollback,
        "--abandon": asked.abandon,
        "--plan": asked.dry_run,
    }
    given = [name for name, wanted in modes.items() if wanted]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different things", hint="Give one of them.")
    if (asked.skip or asked.abandon) and not (asked.because or "").strip():
        which = "--skip" if asked.skip else "--abandon"
        raise UsageError(f"{which} needs its reason", hint='Say why: --because "…". It is written into the journal.')
    if asked.detected is not None and asked.resume:
        hint = "Leave it out: the clock of the run that goes on counts from what was said then."
        raise UsageError("--detected is written down when a run begins", hint=hint)
    if asked.keep and not asked.close:
        raise UsageError("--keep belongs to --close", hint="It leaves what was set aside where it is.")
    if given and given != ["--plan"]:
        if asked.run is not None and not ids.is_id(asked.run):
            hint = f"Leave {asked.run!r} out for the newest run; `recoup recover --show` names the others."
            raise UsageError(f"{asked.run!r} is no run", hint=hint)
        return
    _require_situation(asked.what)


def _require_situation(what: str | None) -> None:
    from recoup.recovery.runbook import RECOVERED

    known = ", ".join(RECOVERED)
    if what is None:
        raise UsageError(
            "say what happened: recoup recover SITUATION",
            hint=f"It is one of: {known}. `recoup diagnose` looks and says which. "
            "A run that was begun goes on with `recoup recover --resume`.",
        )
    if what in RECOVERED:
        return
    if ids.is_id(what):
        raise UsageError(
            f"{what} is a run and no situation",
            hint=f"Go on with it: `recoup recover --resume {what}`; look at it: `recoup recover --show {what}`.",
        )
    if what == "data-loss":
        raise UsageError(
            "`recoup recover` has no steps for data-loss: nobody but you knows when it happened",
            hint="`recoup diagnose` says what to type; see when one can go back to with `recoup windows`.",
        )
    near = difflib.get_close_matches(what, RECOVERED, n=1, cutoff=0.4)
    meant = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"there is no situation {what!r}", hint=f"{meant}There are: {known}. `recoup diagnose` says which."
    )
