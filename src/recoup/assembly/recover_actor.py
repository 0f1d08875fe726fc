"""Carries the steps of a recovery of production out: each act by the module that knows it (``executor.Actor``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Final

from recoup.assembly import recover_data as data
from recoup.assembly.recover_context import Recovery
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Finding
from recoup.recovery.step import Act, Done, Step

#: What carries out an act.
_Doing = Callable[[Recovery, Step], Done]

_DATA: Final[dict[Act, _Doing]] = {
    Act.ASK: data.ask,
    Act.HOLD: data.hold,
    Act.STOP: data.stop,
    Act.RESTORE: data.restore,
    Act.SWAP: data.swap,
    Act.START: data.start,
    Act.APPLICATION: data.application,
}
#: By module and function: what brings a machine back and what proves it is loaded when it is needed.
_OTHERS: Final[dict[Act, tuple[str, str]]] = {
    Act.CONFIRM: ("recover_confirm", "confirm"),
    Act.CHOOSE: ("recover_choose", "choose"),
    Act.MACHINE: ("recover_blank", "machine"),
    Act.FILES: ("recover_blank", "files"),
    Act.SOURCE: ("recover_blank", "source"),
    Act.IMAGES: ("recover_blank", "images"),
    Act.STACK: ("recover_blank", "stack"),
    Act.HEALTH: ("recover_after", "health"),
    Act.CHECKS: ("recover_after", "checks"),
    Act.FLOWS: ("recover_after", "flows"),
    Act.PROTECT: ("recover_after", "protect"),
    Act.CHECKLIST: ("recover_after", "checklist"),
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
        return self._doing(step)(self._recovery, step)

    def after(self, step: Step) -> Sequence[Finding]:
        """See ``Actor``. What was started must still be well when the next step begins."""
        return data.after(self._recovery, step)

    def _doing(self, step: Step) -> _Doing:
        if step.act in _DATA:
            return _DATA[step.act]
        module, name = _OTHERS[step.act]
        try:
            found: _Doing = getattr(importlib.import_module(f"recoup.assembly.{module}"), name)
        except (ImportError, AttributeError) as missing:
            raise UncheckedError(f"this version of Recoup cannot do the step {step.id} ({step.act}) yet") from missing
        return found
