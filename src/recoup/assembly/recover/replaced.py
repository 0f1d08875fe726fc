"""Where a run has replaced the data of a database, found by plan, stack and journal alone.

Taking a recovery back, and removing what it set aside, touch nothing but the place. The copy that was put there may be
out of reach by then, with the bucket that it is in, or gone: what was closed with ``--keep`` is held no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from recoup.assembly.postgres import postgres_place
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.data import by_hand, place_of
from recoup.assembly.recover.member import PLACED_AS, SETTINGS
from recoup.assembly.redis import RedisHome, redis_place
from recoup.assembly.restore.homes import PostgresHome
from recoup.kernel.errors import UsageError
from recoup.plan.services import PostgresService, RedisService
from recoup.recovery.in_place import DataHome, Undo
from recoup.recovery.stack_in_place import VolumeMember


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A volume whose data a run has replaced, or was about to. ``placement`` is the id under which."""

    service: str
    compose: str  #: its name in the Compose project
    home: DataHome
    undo: Undo
    placement: str


def replaced_in(recovery: Recovery, service: str) -> Replaced | None:
    """Where a run has replaced the data of a service; None for a server that Recoup does not run.

    Raise ``UsageError`` when the plan does not name its place any more, ``EngineError`` from Compose.
    """
    described = recovery.system.plan.services.get(service)
    if not isinstance(described, PostgresService | RedisService):
        raise UsageError(
            f"the plan has no database {service!r} any more, and the run {recovery.run} has replaced its data",
            hint="Put it into the plan again as it was; what was replaced is kept in its volume.",
        )
    if by_hand(recovery, service) or described.url is not None:
        return None
    compose, chosen = described.compose, recovery.learned(f"choose-{service}")
    assert compose is not None, "the plan was checked: url or compose"
    if PLACED_AS not in chosen:
        return _by_the_copy(recovery, service)
    placement = _learned(recovery, service) or recovery.placement(str(chosen[PLACED_AS]))
    home: PostgresHome | RedisHome
    if isinstance(described, PostgresService):
        place = postgres_place(recovery.system, service)
        assert place.stack is not None, "a place without an address is in the stack"
        home = PostgresHome(place=place, stack=place.stack, compose_service=compose)
    else:
        where = redis_place(recovery.system, service)
        assert where.stack is not None, "a place without an address is in the stack"
        facts = {SETTINGS: chosen.get(SETTINGS)}
        home = RedisHome(place=where, stack=where.stack, compose_service=compose, facts=facts)
    return Replaced(service=service, compose=compose, home=home, undo=home, placement=placement)


def _learned(recovery: Recovery, service: str) -> str:
    """The id, from the steps that used it; empty when not one of them came to its end."""
    said = (recovery.learned(step).get("placement") for step in (f"swap-{service}", f"restore-{service}"))
    return str(next(filter(None, said), ""))


def _by_the_copy(recovery: Recovery, service: str) -> Replaced | None:
    """For a run that chose before choices said where they are put: its copies have to be there."""
    member = place_of(recovery, service)
    if not isinstance(member, VolumeMember):
        return None
    assert member.undo is not None, "what is in a volume can be put back"
    return Replaced(
        service=service,
        compose=member.compose,
        home=member.home,
        undo=member.undo,
        placement=_learned(recovery, service) or recovery.placement(member.artefact_id),
    )
