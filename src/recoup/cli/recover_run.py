"""Carrying a recovery out from the command line: what is shown first, who is asked what, and how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from recoup.cli.asking import asking_person, somebody_is_here, typed, yes_or_no
from recoup.cli.recover_asked import Asked, wish_of
from recoup.cli.recover_view import PlainView, State, first_change
from recoup.cli.terminal import Terminal, outliving_the_terminal
from recoup.kernel.errors import Exit, RefusedError, UsageError
from recoup.recovery.executor import Agreement
from recoup.recovery.forecast import in_words
from recoup.recovery.printed import short
from recoup.recovery.progress import Progress, read_progress
from recoup.recovery.step import Consent, Step

if TYPE_CHECKING:
    from recoup.assembly.recover.context import RecoverWish
    from recoup.assembly.recover.run import Ready, RecoverControl
    from recoup.assembly.voice import Ask
    from recoup.cli.output import Output
    from recoup.recovery.journal import Line


#: A step that is not to be begun any more.
_OVER = ("done", "skipped")
P = ParamSpec("P")
T = TypeVar("T")


def run(output: Output, asked: Asked) -> Exit:
    """Begin a recovery, or go on with one. The exit code says how it ended."""
    from recoup.assembly.recover.resume import wish_to_resume
    from recoup.assembly.recover.run import run_recovery
    from recoup.assembly.voice import Voice
    from recoup.cli.recover_end import say_outcome

    wish = wish_to_resume(wish_of(asked), asked.run) if asked.resume else wish_of(asked)
    state = State()
    with outliving_the_terminal() as terminal, _view(output, state) as view:
        talk = _Talk(asked, wish, view, terminal)
        voice = Voice(say=view.say, on_progress=view.on_progress, ask=talk.asker())
        ended = run_recovery(wish, voice, talk.control())
        view.alarm()
    return say_outcome(output, asked, ended)


def _view(output: Output, state: State) -> PlainView:
    if sys.stderr.isatty() and not output.json and not output.quiet:
        from recoup.cli.recover_live import LiveView

        return LiveView(output, state)
    return PlainView(output, state)


class _Talk:
    """What is said to the operator, and what they say."""

    def __init__(self, asked: Asked, wish: RecoverWish, view: PlainView, terminal: Terminal) -> None:
        self._asked, self._wish, self._view, self._terminal = asked, wish, view, terminal

    def control(self) -> RecoverControl:
        """As the run is to be controlled."""
        from recoup.assembly.recover.run import RecoverControl
        from recoup.kernel.presence import login_name

        asked, view = self._asked, self._view
        return RecoverControl(
            agree=self._agree,
            who=asked.as_name or login_name(),
            yes=asked.yes,
            run=asked.run,
            take_over=asked.take_over,
            skip={one: (asked.because or "").strip() for one in asked.skip},
            pause_before=asked.pause_before,
            ready=self._ready,
            watch=self._watch,
            begins=self._outliving(view.begins),
            ends=self._outliving(view.ends),
        )

    def asker(self) -> Ask | None:
        """Asks a person for what only a person can do; None when nobody is here."""
        if not self._here:
            return None
        ask = asking_person(self._view.output)

        def asking(step: Step) -> bool | None:
            if not self._here:
                return None
            with self._view.asking():
                return self._answered(lambda: ask(step))

        return asking

    @property
    def _here(self) -> bool:
        return not self._terminal.lost and somebody_is_here()

    def _answered(self, question: Callable[[], T]) -> T:
        """What they said. Raise ``RefusedError`` when the terminal went away over the question."""
        import typer

        try:
            return question()
        except (typer.Abort, OSError):
            if not self._terminal.lost:
                raise
            raise RefusedError(
                "the terminal went away while a question was open",
                hint=f"Nothing of the step was done. `{self._asked.command('--resume')}` asks again.",
            ) from None

    def _outliving(self, told: Callable[P, None]) -> Callable[P, None]:
        """As ``told``, into the log once the terminal is gone."""

        def tell(*args: P.args, **kwargs: P.kwargs) -> None:
            if self._terminal.lost:
                self._view.go_plain()
                self._terminal.write_to_log()
            told(*args, **kwargs)

        return tell

    def _watch(self, lines: Callable[[], Sequence[Line]]) -> None:
        self._view.state.lines = lines

    def _ready(self, ready: Ready) -> None:
        """Say what is about to be done, and ask whether to begin."""
        from recoup.assembly.recover.forecast import expect
        from recoup.assembly.recover.resume import require_same_wish
        from recoup.assembly.recover.runs import run_folder

        self._require_known(ready)
        state, view = self._view.state, self._view
        plan = ready.system.plan
        expected = expect(ready.opened, ready.system, self._wish.situation, ready.steps, ready.runs)
        state.run, state.system, state.zone = ready.run, plan.system, plan.timezone
        state.steps, state.outlook = ready.steps, expected.outlook
        state.two_people = plan.recovery.two_people
        self._terminal.log = run_folder(ready.opened.state_folder, ready.run) / "output.log"
        there = read_progress(ready.lines)
        if there is not None:
            require_same_wish(there, self._wish)
            self._require_ahead(there)
            state.situation = there.situation
            state.lines = lambda: ready.lines
            over = [one for one in there.steps.values() if one.standing in _OVER]
            view.say(
                f"goes on with the recovery of {plan.system} from {there.situation}, run {ready.run}: "
                f"{len(over)} of {len(ready.steps)} steps are over"
            )
            left = expected.outlook.left(name for name, one in there.steps.items() if one.standing in _OVER)
            if left is not None:
                view.say(
                    f"of the steps that are left until the users are back, those that are known take {short(left)}"
                )
            return
        state.situation = str(self._asked.what)
        view.say(f"recovery of {plan.system} from {state.situation}, run {ready.run}: {len(ready.steps)} steps")
        view.say(in_words(expected.outlook))
        change = first_change(ready.steps)
        if change is not None:
            view.say(f"nothing of production is touched before step {view.of(change)}: {change.title}")
        view.say("whatever happens, the same command goes on where it was: Ctrl-C, kill, power cut")
        if self._here and not self._asked.yes:
            with view.asking():
                if not self._answered(lambda: yes_or_no("begin")):
                    raise RefusedError(
                        "not begun",
                        hint=f"Nothing was done. See every step: {self._asked.command(state.situation, '--plan')}",
                    )

    def _require_known(self, ready: Ready) -> None:
        """Raise ``UsageError`` for a step or a name that there is not: now, and not in an hour."""
        names = [step.id for step in ready.steps]
        wanted = [*self._asked.skip, *([self._asked.pause_before] if self._asked.pause_before else [])]
        for name in wanted:
            if name not in names:
                raise UsageError(f"the runbook has no step {name!r}", hint=f"It has: {', '.join(names)}.")
        system = ready.system.plan.system
        if self._asked.confirm is not None and self._asked.confirm != system:
            raise UsageError(
                f"--confirm {self._asked.confirm}: this system is called {system}",
                hint="Is this the right plan? The name says which production is replaced.",
            )

    def _require_ahead(self, there: Progress) -> None:
        """Raise ``UsageError`` for a pause that cannot be: who asks for one counts on what comes after it not to be.

        A step that is left out once more is no fault: the same command may be typed again.
        """
        pause = self._asked.pause_before
        if pause is not None and there.steps[pause].standing in _OVER:
            raise UsageError(
                f"--pause-before {pause}: that step is over already, so the run would not stop there",
                hint=f"Nothing was done. `{self._asked.command('--show')}` shows which steps are left.",
            )
        for name in self._asked.skip:
            if there.steps[name].standing == "done":
                self._view.say(f"--skip {name}: it was done already, so it is not left out")

    def _agree(self, step: Step) -> Agreement | None:
        """Ask for a step's consent. Raise ``RefusedError`` when nobody is here."""
        state, view = self._view.state, self._view
        replaces = step.consent is Consent.TYPED
        if replaces and self._asked.confirm is not None:
            return Agreement(how="typed the name beforehand")
        if not self._here:
            option = f"--confirm {state.system}" if replaces else "--yes"
            raise RefusedError(
                f"step {view.of(step)}, {step.id}, needs somebody who agrees, and nobody is here: {step.title}",
                hint=f"Nothing of it was done. Go on at a terminal, or agree beforehand: "
                f"{self._asked.command('--resume', option)}",
            )
        # Before ``asking``, which waits until it is on the screen: a question must not stand above what it is about.
        view.say(f"step {view.of(step)}, {step.id}: {step.title}")
        view.write(f"  {step.meaning}" + (f"\n  It replaces {step.replaces}." if replaces else ""))
        with view.asking():
            if not replaces:
                return Agreement(how="said yes") if self._answered(lambda: yes_or_no("  do it")) else None
            question = f"  type {state.system} to do it, or nothing to stop here"
            return Agreement(how="typed the name") if self._answered(lambda: typed(question, state.system)) else None
