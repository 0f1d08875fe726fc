"""``recoup recover`` called as people call it, over steps that are files: all is real but what the steps do.

``python -m tests.integration.recover_command FOLDER …`` is the command with the plan of FOLDER. In the folder
``orders`` a test says what a step shall do: ``wait-STEP`` (until ``go``), ``fail-STEP``,
``ask-STEP``, ``unknown-STEP``, ``chatter-STEP``; ``old``: the newest record that comes back is an hour old.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
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
from tests.integration.recover_world import FileActor, parts_of

_SECONDS = 60.0
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


@dataclass
class AtTerminal:
    """The command in a session of its own, with a terminal, whose other end is here."""

    process: subprocess.Popen[bytes]
    screen: int
    shown: str = ""

    def _read(self) -> bool:
        """Read what is there; false when nobody has the other end open any more."""
        try:
            self.shown += os.read(self.screen, 65536).decode(errors="replace")
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def until(self, text: str) -> None:
        """Read the screen until ``text`` was shown."""
        wait_until(lambda: not self._read() or text in self.shown, limit_seconds=_SECONDS)
        assert text in self.shown, f"{text!r} was not shown: {self.shown}"

    def until_at(self, mark: Path) -> None:
        """Wait until a step has left its mark."""
        assert wait_until(lambda: mark.exists() or self.process.poll() is not None, limit_seconds=_SECONDS)
        assert mark.exists(), f"it ended with {self.process.returncode}"

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self.screen, text.encode() + b"\n")

    def hang_up(self) -> None:
        """The connection breaks."""
        os.close(self.screen)
        self.screen = -1

    def ended(self) -> int:
        """Read on until it ends; the exit code."""
        assert wait_until(lambda: (self._read(), self.process.poll())[1] is not None, limit_seconds=_SECONDS), (
            self.shown
        )
        return int(self.process.wait())


def at_terminal(plan: Path, *arguments: str) -> AtTerminal:
    """Type ``recoup recover …`` at a terminal."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    termios.tcsetwinsize(theirs, (40, 150))
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(plan.parent), *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm"}, preexec_fn=_own_the_terminal,
    )  # fmt: skip
    os.close(theirs)
    return AtTerminal(process, ours)


def _own_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    recover_run.production_parts = lambda: ordered_parts(place / "world")
    sys.exit(main(["recover", *sys.argv[2:], "-f", str(place / "recoup.yaml")]))
