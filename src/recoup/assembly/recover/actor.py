"""Carries the steps of a recovery of production out: each act by the module that knows it (``executor.Actor``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from recoup.assembly.recover import after as after
from recoup.assembly.recover import aside as aside
from recoup.assembly.recover import blank as blank
from recoup.assembly.recover import data as data
from recoup.assembly.recover.choose import choose
from recoup.assembly.recover.confirm import confirm
from recoup.assembly.recover.context import Recovery
from recoup.kernel.finding import Finding
from recoup.recovery.step import Act, Done, Step

#: What carries out an act.
_Doing = Callable[[Recovery, Step], Done]

#: Every act has one; ``tests/unit/assembly`` sees to it.
DOING: Final[dict[Act, _Doing]] = {
    Act.ASK: data.ask,
    Act.HOLD: aside.hold,
    Act.CONFIRM: confirm,
    Act.CHOOSE: choose,
    Act.MACHINE: blank.machine,
    Act.FILES: blank.files,
    Act.SOURCE: blank.source,
    Act.IMAGES: blank.images,
    Act.STACK: blank.stack,
    Act.STOP: data.stop,
    Act.RESTORE: data.restore,
    Act.SWAP: data.swap,
    Act.START: data.start,
    Act.APPLICATION: data.application,
    Act.HEALTH: after.health,
    Act.CHECKS: after.checks,
    Act.FLOWS: after.flows,
    Act.PROTECT: after.protect,
    Act.CHECKLIST: after.checklist,
}


class ProductionActor:
    """Implements ``recovery.executor.Actor``. It keeps nothing: all that a step needs is in the journal or in place."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery

    def fence(self, step: Step) -> None:
        """See ``Actor``."""
        data.fence(self._recovery, step)

    def done(self, step: Step) -> bool:
        """See ``Actor``. Acts that put data in place look themselves, with the same look that they need anyway."""
        return step.act is Act.STOP and data.all_stopped(self._recovery)

    def act(self, step: Step) -> Done:
        """See ``Actor``."""
        return DOING[step.act](self._recovery, step)

    def after(self, step: Step) -> Sequence[Finding]:
        """See ``Actor``. What was started must still be well when the next step begins."""
        return data.after(self._recovery, step)
