"""``recoup restore --to-time …``: the part of ``recoup restore`` that goes back to a moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from recoup.kernel.errors import Exit, UsageError

ToTime = Annotated[
    str | None,
    typer.Option("--to-time", metavar="TIME|latest", help="Back to this instant; latest: all WAL.", show_default=False),
]
ToLsn = Annotated[str | None, typer.Option("--to-lsn", metavar="LSN", help="Back to this position of the WAL.")]
ToXid = Annotated[int | None, typer.Option("--to-xid", metavar="XID", min=3, help="Back to this transaction.")]
ToName = Annotated[str | None, typer.Option("--to-name", metavar="NAME", help="Back to this restore point.")]
Before = Annotated[bool, typer.Option("--before", help="Stop just before the time, position or transaction.")]
Timeline = Annotated[int | None, typer.Option("--timeline", min=1, help="On which PostgreSQL timeline it was.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMoment:
    """What the options say."""

    time: str | None = None
    lsn: str | None = None
    xid: int | None = None
    name: str | None = None
    before: bool = False
    timeline: int | None = None

    @property
    def any(self) -> bool:
        """Whether a moment is asked for."""
        given = (self.time, self.lsn, self.xid, self.name, self.timeline)
        return self.before or any(one is not None for one in given)


def restore_to_moment(
    output: Any,
    asked: AskedMoment,
    reference: str | None,
    service: str | None,
    kind: str | None,
    places: tuple[Path | None, str | None, Path | None],
    wish: Any,
    consent: Any,
    *,
    dry_run: bool,
) -> Exit:
    """Carry it out, or show how. ``places`` are the plan's file, the repository and the key's file as given."""
    from recoup.assembly.restore.moment import MomentWish, choose_moment
    from recoup.cli.restore import finish_restore, open_readable
    from recoup.kernel import clock
    from recoup.recovery.instant import parse_instant

    targets = [one for one in (asked.time, asked.lsn, asked.xid, asked.name) if one is not None]
    if len(targets) != 1:
        raise UsageError(
            "say exactly one of --to-time, --to-lsn, --to-xid and --to-name", hint="--to-time latest is the newest."
        )
    if kind not in (None, "base", "incremental") or wish.database is not None or wish.into is not None:
        raise UsageError("a moment is restored as a whole server: leave out --kind, --database and --into")
    started = clock.monotonic()
    opened = open_readable(output, *places)
    end = asked.time == "latest"
    zone = "UTC" if opened.system is None else opened.system.plan.timezone
    moment, act = choose_moment(
        opened,
        service,
        MomentWish(
            time=None if asked.time is None or end else parse_instant(asked.time, zone),
            end=end,
            lsn=asked.lsn,
            xid=asked.xid,
            name=asked.name,
            before=asked.before,
            timeline=asked.timeline,
            base=None if reference == "latest" else reference,
        ),
    )
    where = wish.destination or f"where {moment.service} lives"
    if dry_run:
        output.line(f"would restore {moment.service} into {where}")
        output.line(f"from {moment}")
        output.document("restore-plan", {"service": moment.service, "into": where, "from": str(moment)})
        return Exit.OK
    with output.progress() as listener:
        report = act(wish, consent, output.note, listener)
    return finish_restore(output, report, clock.monotonic() - started)
