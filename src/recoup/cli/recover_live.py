"""The live view of a recovery in a terminal: where it is, how far, how long yet, and what will be asked next.

What happened stays above as plain lines, so that it can be scrolled back to and copied.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recoup.cli.output import Output, clean
from recoup.cli.recover_view import PATIENCE_SECONDS, PlainView, State, budget_left
from recoup.engines.engine import Progress
from recoup.kernel import clock
from recoup.kernel.units import show_duration, show_size
from recoup.recovery.attained import Attained, StepTime
from recoup.recovery.printed import asks, short

_MARKS = {"done": "ok", "skipped": "--", "failed": "XX", "begun": ">>", "waiting": "  "}
_STYLES = {"done": "green", "skipped": "yellow", "failed": "bold red", "begun": "bold", "waiting": "dim"}


class LiveView(PlainView):
    """As ``PlainView``, with a panel below that is drawn again every half second."""

    def __init__(self, output: Output, state: State, console: Console | None = None) -> None:
        super().__init__(output, state)
        self._console = console or Console(stderr=True, highlight=False)
        self._lock = threading.Lock()
        self._bytes: dict[str, tuple[Progress, float, int, float]] = {}
        self._drawn = True
        self._live = self._new()

    def _new(self) -> Live:
        return Live(
            console=self._console, get_renderable=self.picture, refresh_per_second=2, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def __enter__(self) -> LiveView:
        self.speaker.say(self._live.start)
        return self

    def __exit__(self, *_: object) -> None:
        self.speaker.say(self._stop)
        super().__exit__()

    def _stop(self) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def _again(self) -> None:
        if self._drawn:
            self._live = self._new()
            self._live.start()

    def go_plain(self) -> None:
        """From now on only lines: nobody looks any more."""
        if self._drawn:
            self._drawn = False
            self.speaker.done(self._stop, seconds=PATIENCE_SECONDS)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """See ``PlainView.asking``: the panel is taken away."""
        self.speaker.done(self._stop, seconds=PATIENCE_SECONDS)
        try:
            yield
        finally:
            self.speaker.say(self._again)

    def put(self, text: str) -> None:
        """Above the panel."""
        if not self._drawn:
            super().put(text)
        elif not self.output.quiet:
            self._console.print(Text(clean(text, keep_newlines=True)), soft_wrap=True)

    def on_progress(self, progress: Progress, /) -> None:
        """See ``PlainView.on_progress``."""
        now = clock.monotonic()
        with self._lock:
            first = self._bytes.get(progress.what)
            begun = (progress.done_bytes, now) if first is None else (first[2], first[3])
            self._bytes[progress.what] = (progress, now, *begun)

    def picture(self) -> RenderableType:
        """The panel at this instant."""
        found = self.state.attained() if self._drawn else None
        if found is None:
            return Text("")
        now = clock.now().astimezone(ZoneInfo(self.state.zone))
        rows = [self._head(found, now), self._budget(found), *self._steps(found), self._next(found)]
        return Group(*[one for one in rows if one is not None])

    def _head(self, found: Attained, now: datetime) -> Text:
        passed = found.before + found.so_far
        since = "since it was detected" if found.detected is not None else "since the declaration"
        text = Text(f"\nrecovery of {self.state.system} from {self.state.situation}", style="bold")
        text.append(f"   {now:%H:%M:%S}   {show_duration(passed)} {since}", style="not bold")
        left = self.state.left(found)
        unknown = self.state.unknown_left(found)
        if found.healthy is not None:
            text.append(f"\nusers are back, after {show_duration(found.before + found.healthy)}", style="green")
        elif left is None:
            text.append(
                "\nwhen users are back is not known: the steps that are left were never measured", style="not bold"
            )
        else:
            never = f"; {unknown} of the steps left were never measured" if unknown else ""
            at = f"likely at {now + left.p50:%H:%M}"
            text.append(f"\nusers are back in {short(left)}: {at}{never}", style="not bold")
        return text

    def _budget(self, found: Attained) -> RenderableType | None:
        if found.rto is None:
            return Text("no RTO is promised in the plan", style="dim")
        left = budget_left(found)
        used = 1 - left / found.rto
        style = "green" if used < 0.5 else "yellow" if used < 0.8 else "red"
        table = Table.grid(padding=(0, 1))
        words = (
            f"{used:.0%} of {show_duration(found.rto)}; {show_duration(left)} left"
            if left >= timedelta(0)
            else f"missed by {show_duration(-left)}"
        )
        bar = ProgressBar(total=1.0, completed=min(used, 1.0), width=30, complete_style=style, finished_style=style)
        table.add_row("RTO", bar, Text(words, style=style))
        return table

    def _steps(self, found: Attained) -> Iterator[RenderableType]:
        """The steps around the present one, as many as there is room for."""
        current = next((at for at, one in enumerate(found.steps) if one.progress.standing in ("begun", "waiting")), 0)
        room = max(4, self._console.size.height - 12)
        first = max(0, min(current - 2, len(found.steps) - room))
        shown = found.steps[first : first + room]
        for number, one in enumerate(shown, start=first + 1):
            yield self._step(number, one)
            if one.progress.standing == "begun":
                yield from self._moving()
        if (hidden := len(found.steps) - first - len(shown)) > 0:
            yield Text(f"       and {hidden} more", style="dim")

    def _step(self, number: int, one: StepTime) -> Text:
        standing = one.progress.standing
        text = Text(no_wrap=True, overflow="ellipsis", style=_STYLES[standing])
        text.append(f"{_MARKS[standing]} {number:>2} {clean(one.step.title)}")
        likely = None if self.state.outlook is None else self.state.outlook.steps[one.step.id].forecast
        if standing == "begun" and self.state.step_since is not None:
            of = "" if likely is None else f" of {short(likely)}"
            text.append(f"  {show_duration(clock.monotonic() - self.state.step_since)}{of}")
        elif standing == "done":
            text.append(f"  {show_duration(one.machine + one.people)}")
        elif standing == "waiting" and likely is not None:
            text.append(f"  {short(likely)}")
        return text

    def _moving(self) -> Iterator[RenderableType]:
        since = self.state.step_since or 0.0
        with self._lock:
            recent = [one for one in self._bytes.values() if one[1] >= since]
        for progress, at, first_bytes, first_at in recent[-3:]:
            speed = (progress.done_bytes - first_bytes) / (at - first_at) if at > first_at else 0.0
            known = progress.total_bytes is not None and progress.total_bytes >= progress.done_bytes
            of = f" of about {show_size(progress.total_bytes)}" if known and progress.total_bytes is not None else ""
            fast = f", {show_size(int(speed))}/s" if speed > 0 else ""
            table = Table.grid(padding=(0, 1))
            total = float(progress.total_bytes or 0) if known else None
            bar = ProgressBar(total=total or None, completed=progress.done_bytes, width=24, pulse=not total)
            table.add_row("      ", bar, Text(f"{clean(progress.what)}: {show_size(progress.done_bytes)}{of}{fast}"))
            yield table

    def _next(self, found: Attained) -> Text:
        step = self.state.next_decision(found)
        text = Text()
        if step is not None:
            text.append(f"next decision, at step {self.state.number(step)}: {step.title}\n", style="bold")
            text.append(f"  {asks(step, self.state.system, two_people=self.state.two_people)}", style="not bold")
            text.append(f"; replaces {step.replaces}\n" if step.replaces else "\n")
        else:
            text.append("no step needs a decision any more\n")
        text.append("Ctrl-C stops here, and the same command goes on.", style="dim")
        return text
