"""What a recovery says while it goes on: plain lines, each with its time, that a log or a telephone can carry.

Nothing that goes wrong with saying it ends the recovery: the journal has it all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

from recoup.cli.output import Output, progress_lines
from recoup.cli.speaker import Speaker
from recoup.engines.engine import Progress
from recoup.kernel import clock
from recoup.kernel.finding import Verdict
from recoup.kernel.presence import boot_id
from recoup.kernel.units import show_duration
from recoup.recovery.attained import Attained, Moment, attained
from recoup.recovery.forecast import Forecast, Outlook
from recoup.recovery.journal import Line
from recoup.recovery.printed import short
from recoup.recovery.step import Consent, Step

#: At which parts of the RTO somebody is told.
_ALARMS: Final = (0.5, 0.8, 1.0)
#: How long a terminal may take to show what has to be shown before a question, or at the end.
PATIENCE_SECONDS: Final = 5.0


@dataclass(kw_only=True)
class State:
    """A run as it is shown. ``lines`` reads its journal; ``outlook`` None: not forecast."""

    run: str = ""
    system: str = ""
    situation: str = ""
    steps: tuple[Step, ...] = ()
    zone: str = "UTC"
    outlook: Outlook | None = None
    two_people: bool = False
    lines: Callable[[], Sequence[Line]] = tuple
    step_since: float | None = None  #: since when the step goes on that goes on, by ``clock.monotonic``
    boot: str = field(default_factory=boot_id)

    def number(self, step: Step) -> int:
        """Which one of all it is, from 1."""
        return self.steps.index(step) + 1

    def attained(self) -> Attained | None:
        """The clock at this instant."""
        return attained(self.lines(), Moment(at=clock.now(), clock=clock.monotonic(), boot=self.boot))

    def next_decision(self, found: Attained) -> Step | None:
        """The next step that waits for a person, be it the one under way."""
        for one in found.steps:
            person = one.step.kind == "person"
            open_still = one.progress.standing in ("waiting", "failed") or (person and one.progress.standing == "begun")
            asks = person or one.step.consent is not Consent.NONE
            if open_still and asks and one.progress.approved_by is None:
                return one.step
        return None

    def left(self, found: Attained) -> Forecast | None:
        """What is likely left until the users are back, of the steps that are known."""
        if self.outlook is None or found.healthy is not None:
            return None
        over = [one.step.id for one in found.steps if one.progress.standing in ("done", "skipped")]
        current = next((one.step.id for one in found.steps if one.progress.standing == "begun"), None)
        in_it = 0.0 if self.step_since is None else clock.monotonic() - self.step_since
        return self.outlook.left(over, current, in_it)

    def unknown_left(self, found: Attained) -> int:
        """How many of the steps that are left until then were never measured."""
        over = {one.step.id for one in found.steps if one.progress.standing in ("done", "skipped")}
        return 0 if self.outlook is None else len([one for one in self.outlook.unknown if one not in over])


class PlainView:
    """Lines on stderr. ``RecoverControl`` calls ``begins`` and ``ends``, the work ``say`` and ``on_progress``."""

    def __init__(self, output: Output, state: State) -> None:
        self.output, self.state = output, state
        self.speaker = Speaker()
        self._listen = progress_lines(self._now_and_then)
        self._alarmed = 0
        self._told_skips: set[str] = set()

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        self.speaker.close(seconds=PATIENCE_SECONDS)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """While inside, nothing else is written: a person is being asked."""
        self.speaker.done(lambda: None, seconds=PATIENCE_SECONDS)
        yield

    def go_plain(self) -> None:
        """From now on only lines: nobody looks any more."""

    def say(self, text: str) -> None:
        """A line with its time. Any thread may call it; it never waits."""
        at = clock.now().astimezone(ZoneInfo(self.state.zone))
        self.write(f"{at:%H:%M:%S}  {text}")

    def write(self, text: str) -> None:
        """Put it out when everything before it is."""
        self.speaker.say(lambda: self.put(text))

    def put(self, text: str) -> None:
        """Put it out, in the speaker's thread."""
        self.output.note(text)

    def on_progress(self, progress: Progress, /) -> None:
        """How far a step's bytes have come. Any thread may call it."""
        self._listen(progress)

    def _now_and_then(self, text: str) -> None:
        """A line on a step that takes long; and whether the RTO runs out meanwhile."""
        self.say(text.rstrip("\n"))
        self.alarm()

    def begins(self, step: Step, attempt: int) -> None:
        """A step begins."""
        self._skipped()
        self.state.step_since = clock.monotonic()
        known = None if self.state.outlook is None else self.state.outlook.steps[step.id].forecast
        more = [*([] if known is None else [short(known)]), *([f"attempt {attempt}"] if attempt > 1 else [])]
        self.say(f"step {self.of(step)}, {step.id}: {step.title}" + (f" ({', '.join(more)})" if more else ""))

    def ends(self, step: Step, verdict: Verdict, detail: str) -> None:
        """A step ended."""
        since, self.state.step_since = self.state.step_since, None
        took = "" if since is None else f" after {show_duration(clock.monotonic() - since)}"
        word = {Verdict.OK: "ok", Verdict.FAILED: "FAILED", Verdict.UNKNOWN: "done, and not proven"}[verdict]
        self.say(f"step {self.of(step)}, {step.id}: {word}{took}" + (f": {detail}" if detail else ""))
        self.alarm()

    def of(self, step: Step) -> str:
        """``5 of 14``."""
        return f"{self.state.number(step)} of {len(self.state.steps)}"

    def alarm(self) -> None:
        """Say when half, four fifths or all of the RTO is used."""
        found = self.state.attained()
        if found is None or found.rto is None or found.healthy is not None:
            return
        used = (found.before + found.so_far) / found.rto
        reached = sum(1 for one in _ALARMS if used >= one)
        if reached <= self._alarmed:
            return
        self._alarmed = reached
        left = budget_left(found)
        if left >= timedelta(0):
            self.say(f"{used:.0%} of the RTO is used: {show_duration(left)} of {show_duration(found.rto)} are left")
        else:
            self.say(f"the RTO of {show_duration(found.rto)} is missed, by {show_duration(-left)} so far")

    def _skipped(self) -> None:
        for line in self.state.lines():
            name = str(line.data.get("step", ""))
            if line.event == "step-skipped" and name not in self._told_skips:
                self._told_skips.add(name)
                self.say(f"left out: {name}, because {line.data.get('because', '')}")


def budget_left(found: Attained) -> timedelta:
    """What is left of the RTO; negative when it is missed. Only where one is promised."""
    assert found.rto is not None
    return found.rto - found.before - (found.so_far if found.healthy is None else found.healthy)


def first_change(steps: Sequence[Step]) -> Step | None:
    """The first step that changes anything of production that users could feel."""
    return next((one for one in steps if one.consent is not Consent.NONE), None)
