"""What a recovery goes back to, as data for its journal, and from there again.

The step that restores may run in another process, or on another machine, than the one that chose. So a choice is
data: which copy, or which instant of which log from which copy; ``member_of`` makes of it what can be restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.drill.members import copies_of, service_of
from recoup.assembly.restore.moment import MomentWish, choose_moment
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RefusedError

if TYPE_CHECKING:
    from recoup.assembly.restore.postgres_moment import PostgresMoment

#: In a choice: what stands for the copy in the id under which it is put in place, and how a Redis names its files.
PLACED_AS: Final = "placed_as"
SETTINGS: Final = "settings"
_NAMES: Final = ("dir", "appendonly", "dbfilename", "appendfilename", "appenddirname")


def member_of(opened: Readable, data: Mapping[str, Any]) -> Found | TimedMember:
    """What a choice that was written down (``data_of``) stands for: exactly that copy, or that instant.

    Raise ``DamageError`` when ``data`` is no choice, ``RefusedError`` or ``UsageError`` when nothing was chosen, or
    what was chosen is not in the repositories any more.
    """
    if not data:
        raise RefusedError(
            "what to go back to was not chosen: the step that does it was left out",
            hint="Begin a new run. `--to-time` names an instant; `recoup windows` shows which there are.",
        )
    try:
        service, kind, artefact = str(data["service"]), str(data["kind"]), str(data["artefact"])
        target: Mapping[str, Any] = data.get("target") or {}
        timeline, base = data.get("timeline"), data.get("base")
        time = None if "time" not in target else clock.from_text(str(target["time"]))
    except (KeyError, ValueError) as wrong:
        raise DamageError(f"the run's journal holds no choice of what to go back to: {wrong}") from wrong
    if kind == "copy":
        return opened.find(artefact, service=service)
    wish = MomentWish(
        time=time,
        end=bool(target.get("latest")),
        lsn=None if "lsn" not in target else str(target["lsn"]),
        before=bool(target.get("before")),
        timeline=None if timeline is None else int(timeline),
        base=None if base is None else str(base),
    )
    moment, act = choose_moment(opened, service, wish)
    return TimedMember(service=service, moment=moment, act=act)


def data_of(member: Found | TimedMember, because: str) -> dict[str, Any]:
    """A choice as data for the journal: ``member_of`` brings back the same. ``because`` is why it was chosen.

    The end of a log stays its end: what is written after the choice and before the service is stopped comes back too.
    It is that of the timeline of the choice, so that what the recovered server writes itself later is not meant.
    """
    said: dict[str, Any] = {
        "service": service_of(member), "kind": "copy", "artefact": copies_of(member)[0].manifest.id, "target": {},
        "timeline": None, "base": None, "because": because,
    }  # fmt: skip
    if isinstance(member, Found):
        return said
    from recoup.assembly.restore.postgres_moment import PostgresMoment
    from recoup.assembly.restore.redis_moment import RedisTarget

    if isinstance(member.moment, PostgresMoment):
        return said | _postgres(member.moment)
    assert isinstance(member.moment, RedisTarget), "only databases have moments"
    return said | {"kind": "moment", "target": {"time": clock.to_text(member.moment.target)}}


def place_data(member: Found | TimedMember) -> dict[str, Any]:
    """What a choice says besides, so that the place where it is put can be found without the copy."""
    from recoup.assembly.restore.postgres_moment import PostgresMoment

    if isinstance(member, TimedMember) and isinstance(member.moment, PostgresMoment):
        return {PLACED_AS: member.moment.placement_id}
    manifest = copies_of(member)[0].manifest
    said = manifest.facts.get(SETTINGS)
    names = {name: said[name] for name in _NAMES if name in said} if isinstance(said, Mapping) else {}
    return {PLACED_AS: manifest.id} | ({SETTINGS: names} if names else {})


def _postgres(moment: PostgresMoment) -> dict[str, Any]:
    from recoup.engines.postgres.recovery_target import AtLsn, AtTime, Latest

    match moment.choice.target:
        case Latest():
            target: dict[str, Any] = {"latest": True}
        case AtTime(time=time, before=before):
            target = {"time": clock.to_text(time), "before": before}
        case AtLsn(lsn=lsn, before=before):
            target = {"lsn": str(lsn), "before": before}
        case other:
            raise AssertionError(f"a recovery does not choose {other}")
    return {
        "kind": "moment",
        "target": target,
        "timeline": moment.choice.history.timeline,
        "base": moment.choice.bases[0].id,
    }
