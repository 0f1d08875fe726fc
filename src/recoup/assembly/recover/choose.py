"""The step of a recovery that chooses what a database goes back to, before anything is stopped or replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recoup.assembly.drill.members import choose_database, what_of
from recoup.assembly.recover.member import data_of, member_of, place_data
from recoup.assembly.recover.search import Search, points_of
from recoup.recovery.clean_point import MOST_LOOKS
from recoup.recovery.instant import parse_instant
from recoup.recovery.runbook import Situation
from recoup.recovery.step import Done, Step

if TYPE_CHECKING:
    from recoup.assembly.recover.context import Recovery

#: After these a copy may carry what one wants to leave behind.
_DAMAGED: Final[tuple[Situation, ...]] = ("database-corruption", "redis-loss", "data-loss")


def choose(recovery: Recovery, step: Step) -> Done:
    """Choose what the service of ``step`` goes back to; ``Done.data`` is ``data_of`` the choice, with every look.

    After the loss of a server the newest point is taken as it is: speed counts then, and there is nothing that could be
    damaged and still run. Otherwise the newest one that was seen to be clean. Raise ``RefusedError`` when there is
    nothing to go back to, or nothing that is not damaged.
    """
    service, text = step.subject, recovery.wish.instant
    damaged = recovery.wish.situation in _DAMAGED
    search = Search(recovery=recovery, service=service, step=step.id)
    if text not in (None, "latest"):
        instant = parse_instant(str(text), recovery.system.plan.timezone)
        member = choose_database(recovery.opened, recovery.opened.catalog(), service, instant)
        findings = search.only(member) if damaged else ()
        because = "the instant that was asked for"
        data = data_of(member, because) | place_data(member)
        return Done(findings=findings, detail=f"{what_of(member)}: {because}", data=data)
    points = points_of(recovery, service)
    found = search.newest_clean(points, MOST_LOOKS) if damaged else search.newest(points)
    again = member_of(recovery.opened, found.data)  # it can be read again from what is written down
    return Done(findings=found.findings, detail=found.because, data={**found.data, **place_data(again)})
