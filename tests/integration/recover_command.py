"""``recoup recover`` called as people call it, over steps that are files: all is real but what the steps do.

``python -m tests.integration.recover_command FOLDER …`` is the command with the plan of FOLDER. In the folder
``orders`` a test says what a step shall do: ``wait-STEP`` (until ``go``), ``fail-STEP``,
``ask-STEP``, ``unknown-STEP``, ``chatter-STEP``; ``old``: the newest record that comes back is an hour old.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from recoup.assembly.recover import run as recover_run
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.run import Parts
from recoup.cli.main import main
from recoup.demo.host import wait_until
from recoup.engines.engine import Progress
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.step import Done, Step
from tests.at_terminal import AtTerminal
from tests.at_terminal import at_terminal as type_at_terminal
from tests.integration.recover_world import FileActor, parts_of

_SECONDS = 280.0
SITUATION = "database-corruption"
#: What agrees to everything beforehand.
AGREED = ("--yes", "--confirm", "marketplace")


@dataclass
class OrderedActor(FileActor):
    """As ``FileActor``, and does what a test ordered."""

    @property
    def orders(self) -> Path:
        """Where the orders are."""
        return self.world.parent / "orders"

    def act(self, step: Step) -> Done:
        """Do the step as it was ordered."""
        voice, waited = self.recovery.voice, 0.0
        if (self.orders / f"fail-{step.id}").exists():
            raise EngineError("the disk is full", hint="Make room: df -h.")
        if (self.orders / f"wait-{step.id}").exists():
            voice.on_progress(Progress(what="base.tar", done_bytes=1 << 30, total_bytes=4 << 30))
            (self.orders / f"at-{step.id}").touch()
            assert wait_until((self.orders / "go").exists, limit_seconds=_SECONDS)
        if (self.orders / f"chatter-{step.id}").exists():
            for number in range(300):
                voice.say(f"{number} is a line that somebody would have to read")
        if (self.orders / f"ask-{step.id}").exists():
            since = clock.monotonic()
            said = None if voice.ask is None else voice.ask(step)
            waited = clock.monotonic() - since
            if not said:
                raise EngineError(f"nobody did it: {said}", hint="Do it, and go on.")
        age = timedelta(hours=1 if (self.orders / "old").exists() else 0)
        data = {"newest": clock.to_text(clock.now() - age), "how": "last commit"}
        return replace(super().act(step), waited=waited, data=data)

    def after(self, step: Step) -> Sequence[Finding]:
        """Look; a step may be ordered not to be provable."""
        if (self.orders / f"unknown-{step.id}").exists():
            unknown = Verdict.UNKNOWN
            return [Finding(check="it is done", subject=step.id, verdict=unknown, detail="not seen", hint="Look.")]
        return super().after(step)


def ordered_parts(world: Path) -> Parts:
    """A recovery whose steps do what is ordered."""

    def actor(recovery: Recovery) -> OrderedActor:
        return OrderedActor(recovery, world)

    return replace(parts_of(world), actor=actor)


class Desk:
    """Where the command is typed."""

    def __init__(self, plan: Path, capture: Callable[[], tuple[str, str]]) -> None:
        self.plan, self._capture = plan, capture
        self.orders = plan.parent / "orders"
        self.orders.mkdir()
        self.out = self.err = ""

    def recover(self, *arguments: str, expect: int = 0) -> str:
        """Type it, and read everything it says."""
        code = main(["recover", *arguments, "-f", str(self.plan)])
        self.out, self.err = self._capture()
        said = self.out + self.err
        assert code == expect, said
        assert "Traceback" not in said
        return said

    def type(self, *arguments: str) -> str:
        """Type another command about the same plan; what it prints, however it ends."""
        main([*arguments, "-f", str(self.plan)])
        self.out, self.err = self._capture()
        return self.out

    def json(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Type it with --json."""
        self.recover(*arguments, "--json", expect=expect)
        found: dict[str, Any] = json.loads(self.out)
        return found

    def order(self, name: str) -> None:
        """Say what a step shall do."""
        (self.orders / name).touch()

    def done(self) -> set[str]:
        """The steps that were done."""
        return {one.name for one in (self.plan.parent / "world").iterdir()}


def at_terminal(plan: Path, *arguments: str) -> AtTerminal:
    """Type ``recoup recover …`` at a terminal."""
    return type_at_terminal([sys.executable, "-m", __name__, str(plan.parent), *arguments], environment=os.environ)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    recover_run.production_parts = lambda: ordered_parts(place / "world")
    sys.exit(main(["recover", *sys.argv[2:], "-f", str(place / "recoup.yaml")]))
