"""The procedure that puts a whole stack back: one list of steps, one stop, one start, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from recoup.engines.engine import CopyReader, ProgressListener
from recoup.kernel.errors import EngineError, Exit, RefusedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.in_place import Consent, Occupant
from recoup.recovery.stack_in_place import Member, OpenMember, Put, StackRestored, VolumeMember, restore_stack, steps

_READER: Any = object()


class World:
    """Homes, stack and note in one, that write down what was done and fail where they are told to."""

    def __init__(self, *, fails: str = "", verdict: Verdict = Verdict.OK, error: type[BaseException] = EngineError):
        self.fails, self.verdict, self.error = fails, verdict, error
        self.acts: list[str] = []
        self.replaced: list[str] = []
        self.stopped: list[str] = []
        self.open = False

    def act(self, what: str) -> None:
        self.acts.append(what)
        if self.fails and what.startswith(self.fails):
            self.fails = ""
            raise self.error(f"{what} failed")

    def dependents(self, service: str) -> Sequence[str]:
        return ()

    def stop(self, services: Sequence[str]) -> None:
        self.act(f"stop {' '.join(services)}")

    def start(self, services: Sequence[str]) -> None:
        self.act(f"start {' '.join(services)}")

    def begin(self, stopped: Sequence[str]) -> None:
        self.stopped, self.open = list(stopped), True

    def done(self, service: str) -> None:
        self.replaced.append(service)

    def end(self) -> None:
        self.open = False


class Home:
    """One data home of a world."""

    def __init__(self, world: World, name: str, *, unfinished: str | None = None) -> None:
        self.world, self.name, self.unfinished = world, name, unfinished

    def look(self) -> Occupant:
        return Occupant(
            place=f"the volume of {self.name}",
            identity=self.name,
            what=f"data of {self.name}",
            unfinished=self.unfinished,
            free_bytes=1 << 30,
        )

    def needs_bytes(self, reader: CopyReader) -> int:
        return 1 << 20

    def stage(self, reader: CopyReader, restore_id: str, on_progress: ProgressListener) -> None:
        self.world.act(f"stage {self.name}")

    def swap(self, restore_id: str) -> str | None:
        self.world.act(f"swap {self.name}")
        self.unfinished = None
        return f"{self.name}-aside"

    def check(self, reader: CopyReader) -> Sequence[Finding]:
        self.world.act(f"check {self.name}")
        return [Finding(check="equal", subject=self.name, verdict=self.world.verdict)]


def members_of(world: World, *, unfinished: str | None = None) -> list[Member]:
    def put() -> Put:
        world.act("put files")
        return Put(kept="files-aside", notes=("two files",))

    def volume(name: str, *, at_once: bool) -> VolumeMember:
        home = Home(world, name, unfinished=None if at_once else unfinished)
        return VolumeMember(
            service=name, compose=name, what="copy", home=home, reader=_READER, artefact_id=name, identity=name,
            at_once=at_once, discard=None if at_once else lambda _: world.act(f"discard {name}"),
        )  # fmt: skip

    files = OpenMember(service="files", what="copy", where="/srv", replaces=lambda: None, put=put)
    return [volume("postgres", at_once=False), volume("redis", at_once=True), files]


def run(
    world: World,
    consent: Consent | None = None,
    say: Callable[[str], None] = lambda _: None,
    *,
    members: list[Member] | None = None,
) -> StackRestored:
    return restore_stack(
        members or members_of(world), ["worker", "api"], world,
        note=world, command="recoup restore --stack one", consent=consent or Consent(yes=True), say=say,
        on_progress=lambda _: None,
    )  # fmt: skip


_ALL = [
    "stop api worker redis postgres",
    "stage postgres",
    "stage redis",
    "swap redis",
    "swap postgres",
    "put files",
    "start postgres",
    "check postgres",
    "start redis",
    "check redis",
    "start worker api",
]


def test_everything_stops_once_is_unpacked_before_anything_is_replaced_and_starts_once() -> None:
    world = World()
    said: list[str] = []
    done = run(world, say=said.append)
    assert world.acts == _ALL
    assert done.kept == {"redis": "redis-aside", "postgres": "postgres-aside", "files": "files-aside"}
    assert done.running == ("postgres", "redis", "worker", "api")
    assert not world.open
    planned = [one.text for one in steps(members_of(World()), ["worker", "api"])]
    assert [line.partition(" ")[2] for line in said] == planned, "the dry run is the run"


@pytest.mark.parametrize("consent", [Consent(), Consent(ask=lambda _: False)])
def test_nothing_is_touched_without_a_yes(consent: Consent) -> None:
    world = World()
    with pytest.raises(RefusedError, match="the volume of redis"):
        run(world, consent)
    assert world.acts == []


def test_one_question_is_asked_for_all_of_it() -> None:
    asked: list[str] = []
    run(World(), Consent(ask=lambda question: not asked.append(question)))
    assert len(asked) == 1
    assert "postgres" in asked[0]
    assert "redis" in asked[0]


@pytest.mark.parametrize("fails", ["stop", "stage postgres", "stage redis"])
def test_a_failure_before_anything_is_replaced_starts_again_what_was_stopped(fails: str) -> None:
    world = World(fails=fails)
    with pytest.raises(EngineError):
        run(world)
    assert world.acts[-1] == "start postgres redis worker api"
    assert ("discard postgres" in world.acts) == (fails == "stage redis"), "what was unpacked for nothing is removed"
    assert not world.open


@pytest.mark.parametrize("fails", [act for act in _ALL if not act.startswith(("stop", "stage", "check"))])
def test_a_failure_later_keeps_the_applications_down_and_the_same_command_goes_on(fails: str) -> None:
    world = World(fails=fails)
    with pytest.raises(EngineError, match="stopped at the step") as failure:
        run(world)
    assert failure.value.hint is not None
    assert "recoup restore --stack one" in failure.value.hint
    assert world.open
    before = list(world.replaced)
    world.acts.clear()
    run(world)
    for service in before:
        assert not any(act in world.acts for act in (f"swap {service}", f"stage {service}"))
    assert world.acts[-1] == "start worker api"
    assert sorted(world.replaced) == ["files", "postgres", "redis"]
    assert not world.open


@pytest.mark.parametrize("fails", [act for act in _ALL if act.startswith(("stage redis", "swap", "put"))])
def test_an_interruption_while_something_is_put_in_place_starts_nothing(fails: str) -> None:
    world = World(fails=fails, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(world)
    assert not any(act.startswith("start") for act in world.acts)
    assert world.open


def test_an_unfinished_swap_is_finished_without_unpacking_again() -> None:
    world = World()
    run(world, members=members_of(world, unfinished="postgres.abc123"))
    assert "stage postgres" not in world.acts
    assert "swap postgres" in world.acts


def test_applications_do_not_start_on_data_that_are_not_the_copied_ones() -> None:
    world = World(verdict=Verdict.FAILED)
    done = run(world)
    assert "start worker api" not in world.acts
    assert done.running == ("postgres", "redis")
    assert any("not started: worker, api" in note for note in done.notes)


def test_a_refusal_of_a_member_stays_a_refusal() -> None:
    world = World(fails="put files", error=RefusedError)
    with pytest.raises(RefusedError) as refused:
        run(world)
    assert refused.value.exit_code is Exit.REFUSED
    assert world.open, "the databases are in place already"
