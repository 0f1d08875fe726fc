"""Keeps a recovery's lease in the repositories, and copies its journal there while it goes on.

Each repository has a thread of its own, so that one that hangs delays neither the others nor the run. The run waits at
each line for a moment only, and only for repositories that kept up so far. What goes wrong is said once; it is tried
again as long as the run goes on.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from recoup.kernel import clock
from recoup.kernel.errors import BusyError, DamageError, RecoupError, StorageError, UnknownFormatError
from recoup.kernel.presence import Presence
from recoup.repository import run_lease
from recoup.repository.repository import Repository
from recoup.repository.run_journals import put_lines
from recoup.repository.run_lease import Rhythm, RunLease

#: How long a run waits, at each line of its journal, for those that keep up.
BOUNDARY_SECONDS: Final = 2.0
#: How long it waits in the beginning for those that answer, and at its end for what is still to be copied.
_BEGIN_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0
_TURN_SECONDS: Final = 0.2
_FIRST_PAUSE_SECONDS: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 60.0

#: The lines of a journal after the first so many, and how many there are in all.
Lines = Callable[[int], tuple[bytes, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who wants to recover what. ``take_over``: also when somebody else holds the lease."""

    system: str
    purpose: str
    who: str
    presence: Presence
    take_over: bool = False
    rhythm: Rhythm = field(default_factory=Rhythm)

    def lease(self) -> RunLease:
        """A lease for this, of now."""
        now = clock.now()
        return RunLease(
            system=self.system,
            purpose=self.purpose,
            who=self.who,
            presence=self.presence,
            token=secrets.token_hex(16),
            since=now,
            until=now + timedelta(seconds=self.rhythm.lasts_seconds),
            every_seconds=self.rhythm.every_seconds,
        )


class Keeper:
    """The lease and the journal in one repository. Use through ``keeping``."""

    def __init__(self, repository: Repository, claim: Claim) -> None:
        self.repository = repository
        self.asked = threading.Event()  #: it was tried to take the lease: ``generation``, ``lost`` or ``problem``
        self.generation: int | None = None
        self.lost: BusyError | None = None  #: who has it instead
        self.problem: RecoupError | None = None
        self.copied = 0  #: so many lines are there
        self.slow = False  #: the last lines took long: it is not waited for until some go quickly again
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()  #: for people
        self._claim, self._lease = claim, claim.lease()
        self._lines: Lines | None = None
        self._folder = ""
        self._wake, self._stop, self._at_rest = threading.Event(), threading.Event(), threading.Condition()
        self._renew_at = 0.0
        self.renewed = 0  #: how often it was made sure that the lease is still held
        self._thread = threading.Thread(target=self._work, name=f"keeper of {repository.name}", daemon=True)

    def start(self) -> None:
        """Begin to take the lease."""
        self._thread.start()

    def copy_from_now(self, folder: str, lines: Lines) -> None:
        """Copy this journal from now on, all of it: what was there before was read, or cannot be believed."""
        self._folder, self._lines = folder, lines
        self._wake.set()

    def wake(self) -> None:
        """There are more lines."""
        self._wake.set()

    def make_sure(self) -> None:
        """Look now whether the lease is still held, and not when the time has come."""
        self._renew_at = 0.0
        self._wake.set()

    def wait_renewed(self, number: int, deadline: float) -> None:
        """Wait until it was made sure so often, or it turned out that it cannot be."""
        with self._at_rest:
            self._at_rest.wait_for(
                lambda: self.renewed >= number or not self.keeps_up(), max(0.0, deadline - clock.monotonic())
            )

    def keeps_up(self) -> bool:
        """Whether it is worth waiting for."""
        return self._lines is not None and self.generation is not None and self.problem is None and self.lost is None

    def wait_copied(self, number: int, deadline: float) -> bool:
        """Wait until so many lines are there; False when that was not so in time."""
        with self._at_rest:
            return self._at_rest.wait_for(
                lambda: self.copied >= number or not self.keeps_up(), max(0.0, deadline - clock.monotonic())
            )

    def stop(self) -> None:
        """Copy what is left, let the lease go, and end; it is not waited for."""
        self._stop.set()
        self._wake.set()

    def join(self, deadline: float) -> None:
        """Wait for its end, but not longer than until then."""
        self._thread.join(max(0.0, deadline - clock.monotonic()))

    # -- its thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._keep()
        finally:
            self.asked.set()
            if not self._stop.is_set() and self.lost is None:
                self._note(StorageError("what keeps the lease there has ended"))

    def _keep(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            stopping = self._stop.is_set()
            try:
                self._do_what_is_due()
                self._note(None)
                pause = _FIRST_PAUSE_SECONDS
            except BusyError as busy:
                self.lost = busy
            except RecoupError as failure:
                self._note(failure)
            self.asked.set()
            if stopping or self.lost is not None:
                break
            if self.problem is not None:
                self._stop.wait(pause)  # more lines are no reason to ask more often
                pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
            else:
                self._wake.wait(max(0.0, self._renew_at - clock.monotonic()))
            self._wake.clear()
        self._note(self.problem)
        if self.generation is not None and self.lost is None:
            with contextlib.suppress(RecoupError):  # it ends by itself soon
                run_lease.release(self.repository, self._lease, self.generation)

    def _do_what_is_due(self) -> None:
        if self.generation is None:
            self._take()
        elif clock.monotonic() >= self._renew_at:
            self._renew(self.generation)
        if self._lines is not None and self.generation is not None:
            data, last = self._lines(self.copied)
            if data:
                begun = clock.monotonic()
                put_lines(self.repository, self._folder, self.generation, self.copied + 1, data)
                self.slow = clock.monotonic() - begun > BOUNDARY_SECONDS / 2
            self.copied = last

    def _note(self, failure: RecoupError | None) -> None:
        with self._at_rest:
            self.problem = failure
            self._at_rest.notify_all()

    def _take(self) -> None:
        claim, seen = self._claim, self._look()
        if seen.lease is not None and seen.lease.token == self._lease.token:
            # It was made earlier, and what came after that failed. It is written anew at once: time has passed since.
            self.generation, self._renew_at = seen.generation, 0.0
            return
        stands = "free" if claim.take_over else run_lease.standing(seen.lease, claim.presence, clock.now())
        if stands == "watch":
            seconds = claim.rhythm.watch_seconds
            self.said.put(
                f"{self.repository.name}: a lease that is over is watched for {seconds:.0f} s, "
                f"and taken when nobody writes it any more: {seen.lease}"
            )
            if self._stop.wait(seconds):
                return
            before, seen = seen, self._look()
            stands = "free" if seen == before else "held"
        if stands == "held" and seen.lease is not None:
            raise run_lease.held(self.repository, seen.lease)
        self._lease = replace(claim.lease(), token=self._lease.token)  # by which it is known again
        self.generation = run_lease.take(self.repository, self._lease, seen)
        # Soon, for a store that may have let two of us make it.
        self._renew_at = clock.monotonic() + claim.rhythm.look_again_seconds

    def _look(self) -> run_lease.Seen:
        try:
            return run_lease.look(self.repository, self._claim.system)
        except (DamageError, UnknownFormatError) as wrong:
            if not self._claim.take_over:
                raise BusyError(wrong.message, hint="Nobody else recovers this stack? Then add --take-over.") from wrong
            return run_lease.Seen(generation=run_lease.newest_generation(self.repository, self._claim.system))

    def _renew(self, generation: int) -> None:
        rhythm = self._claim.rhythm
        other = run_lease.renew(self.repository, self._lease, generation, lasts_seconds=rhythm.lasts_seconds)
        if other is not None:
            raise run_lease.held(self.repository, other)
        self._renew_at = clock.monotonic() + rhythm.every_seconds
        self.renewed += 1


class Keepers:
    """The keepers of all repositories. Use through ``keeping``."""

    def __init__(self, keepers: Sequence[Keeper], say: Callable[[str], None]) -> None:
        self._keepers, self._say = keepers, say
        self._said: set[str] = set()
        self._lines: Lines | None = None

    def lost(self) -> str | None:
        """Why the run is somebody else's now, when it is."""
        return next((one.lost.message for one in self._keepers if one.lost is not None), None)

    def held_in(self) -> tuple[str, ...]:
        """The repositories in which the lease is held."""
        return tuple(one.repository.name for one in self._keepers if one.generation is not None and one.lost is None)

    def copy_from_now(self, folder: str, lines: Lines) -> None:
        """Copy this journal to every repository in which the lease is held, or will be."""
        self._lines = lines
        for one in self._keepers:
            one.copy_from_now(folder, lines)

    def at_boundary(self) -> None:
        """There are more lines. Wait a moment for them to be copied; never raises."""
        self._wait(BOUNDARY_SECONDS)
        for one in self._keepers:
            _pass_on(one, self._say)
            name, failure = one.repository.name, one.problem
            if failure is not None and name not in self._said:
                self._say(f"{name}: neither lease nor journal of this run are kept there for now: {failure.message}")
                self._said.add(name)
            elif failure is None and name in self._said:
                self._say(f"{name}: lease and journal of this run are kept there again")
                self._said.remove(name)
            elif one.slow and f"{name} is slow" not in self._said:
                self._say(f"{name}: it answers slowly; the copy of the journal follows behind")
                self._said.add(f"{name} is slow")

    def make_sure(self) -> None:
        """Look in every repository that keeps up, for a moment, whether the lease is still held. Never raises."""
        asked = [(one, one.renewed + 1) for one in self._keepers if one.keeps_up()]
        for one, _ in asked:
            one.make_sure()
        deadline = clock.monotonic() + BOUNDARY_SECONDS
        for one, number in asked:
            one.wait_renewed(number, deadline)

    def problems(self) -> Mapping[str, str]:
        """The repositories in which the lease is not held, and why."""
        return {
            one.repository.name: _late().message if one.problem is None else one.problem.message
            for one in self._keepers
            if one.generation is None
        }

    def uncopied(self) -> Mapping[str, str]:
        """The repositories that do not have the whole journal, and why."""
        whole = 0 if self._lines is None else self._lines(0)[1]
        return {
            one.repository.name: _late().message if one.problem is None else one.problem.message
            for one in self._keepers
            if one.copied < whole
        }

    def finish(self) -> None:
        """Wait, not for ever, until every repository has all lines. Call it before what it says is read."""
        self._wait(_END_SECONDS, also_slow=True)

    def _wait(self, seconds: float, *, also_slow: bool = False) -> None:
        if self._lines is None:
            return
        number, deadline = self._lines(0)[1], clock.monotonic() + seconds
        for one in self._keepers:
            one.wake()
        for one in self._keepers:
            if one.keeps_up() and (also_slow or not one.slow) and not one.wait_copied(number, deadline):
                one.slow = True


@contextlib.contextmanager
def keeping(repositories: Sequence[Repository], claim: Claim, say: Callable[[str], None]) -> Iterator[Keepers]:
    """Hold the lease in every repository that answers, while inside; at the end the journal's last lines are copied.

    Raise ``BusyError`` when somebody else holds it in one of them.
    """
    keepers = [Keeper(one, claim) for one in repositories]
    for one in keepers:
        one.start()
    try:
        deadline = clock.monotonic() + _BEGIN_SECONDS + claim.rhythm.watch_seconds
        for one in keepers:
            while not one.asked.wait(_TURN_SECONDS) and clock.monotonic() < deadline:
                _pass_on(one, say)
            _pass_on(one, say)
            if not one.asked.is_set():
                one.problem = _late()
        lost = next((one.lost for one in keepers if one.lost is not None), None)
        if lost is not None:
            raise lost
        yield Keepers(keepers, say)
    finally:
        deadline = clock.monotonic() + _END_SECONDS
        for one in keepers:
            one.stop()
        for one in keepers:
            one.join(deadline)


def _pass_on(keeper: Keeper, say: Callable[[str], None]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            say(keeper.said.get_nowait())


def _late() -> StorageError:
    return StorageError("it does not answer in time")
