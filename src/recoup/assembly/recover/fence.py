"""Ends what a dead process of a run left at work on this machine, before anything of that run is done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from recoup.kernel.finding import Finding
from recoup.kernel.marked import Mark, end_processes
from recoup.recovery.executor import Actor
from recoup.recovery.step import Done, Step

#: In the environment of everything that a run starts. Its value is the run's id.
RUN_VARIABLE: Final = "RECOUP_RUN"
#: In the environment of what is started to stay when the run is over: an engine of containers, say.
TO_STAY: Final[Mapping[str, str]] = {RUN_VARIABLE: ""}


def mark_of(run: str) -> Mark:
    """What everything carries that a run has started."""
    return Mark(variable=RUN_VARIABLE, value=run, what=f"the run {run}")


class FencedActor:
    """An actor whose fence ends the processes of the run as well. What this process itself has started stays."""

    def __init__(self, inner: Actor, run: str) -> None:
        """``inner`` carries out the steps of ``run``."""
        self._inner, self._run = inner, run

    def fence(self, step: Step) -> None:
        """See ``Actor``. The clients first: what they have in a container engine would be taken for living else."""
        end_processes(mark_of(self._run), strangers_only=True)
        self._inner.fence(step)

    def done(self, step: Step) -> bool:
        """See ``Actor``."""
        return self._inner.done(step)

    def act(self, step: Step) -> Done:
        """See ``Actor``."""
        return self._inner.act(step)

    def after(self, step: Step) -> Sequence[Finding]:
        """See ``Actor``."""
        return self._inner.after(step)
