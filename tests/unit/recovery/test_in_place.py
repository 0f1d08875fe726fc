"""The procedure that puts a copy back where a service lives: what it asks, in which order it acts, how it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from recoup.engines.engine import CopyReader, ProgressListener
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.in_place import Consent, Occupant, Restored, decide, restore_in_place

ARTEFACT = "20261123-020000-k7f3q2"


def occupant(**changed: Any) -> Occupant:
    said: dict[str, Any] = {
        "place": "the volume of postgres",
        "identity": "711",
        "what": "the cluster 711",
        "unfinished": None,
        "free_bytes": 1 << 30,
    }
    return Occupant(**{**said, **changed})


class World:
    """A data home and a stack in one, that write down what was done to them and fail where they are told to."""

    def __init__(self, found: Occupant, *, fails: str = "", verdict: Verdict = Verdict.OK) -> None:
        self.found, self.fails, self.verdict = found, fails, verdict
        self.done: list[str] = []

    def _do(self, what: str) -> None:
        self.done.append(what)
        if self.fails and what.startswith(self.fails):
            self.fails = ""
            raise EngineError(f"{what} failed")

    def look(self) -> Occupant:
        return self.found

    def needs_bytes(self, reader: CopyReader) -> int:
        return 1 << 20

    def stage(self, reader: CopyReader, restore_id: str, on_progress: ProgressListener) -> None:
        self._do("stage")

    def swap(self, restore_id: str) -> str | None:
        self._do(f"swap {restore_id}")
        return "aside" if self.found.what else None

    def check(self, reader: CopyReader) -> Sequence[Finding]:
        self._do("check")
        return [Finding(check="equal", subject="postgres", verdict=self.verdict)]

    def dependents(self, service: str) -> Sequence[str]:
        return ["worker", "api"]

    def stop(self, services: Sequence[str]) -> None:
        self._do(f"stop {' '.join(services)}")

    def start(self, services: Sequence[str]) -> None:
        self._do(f"start {' '.join(services)}")


def run(world: World, consent: Consent, say: Callable[[str], None] = lambda _: None) -> Restored:
    reader: Any = object()
    return restore_in_place(
        "postgres",
        world,
        world,
        reader,
        artefact_id=ARTEFACT,
        identity="711",
        consent=consent,
        say=say,
        on_progress=lambda _: None,
    )


def test_applications_stop_first_and_start_last_and_the_old_data_are_named() -> None:
    world = World(occupant())
    done = run(world, Consent(yes=True))
    assert [act.partition(".")[0] for act in world.done] == [
        "stop api worker postgres",
        "stage",
        f"swap {ARTEFACT}",
        "start postgres",
        "check",
        "start worker api",
    ]
    assert done.kept == "aside"
    assert done.restarted == ("postgres", "worker", "api")


@pytest.mark.parametrize(
    ("found", "consent", "reason"),
    [
        (occupant(), Consent(), "nobody agreed"),
        (occupant(), Consent(ask=lambda _: False), "nobody agreed"),
        (occupant(identity="999", what="the cluster 999"), Consent(yes=True), "not what this copy was taken of"),
        (occupant(identity=None, what="something"), Consent(yes=True), "not what this copy was taken of"),
        (occupant(free_bytes=10), Consent(force=True), "10 B are free"),
        (occupant(unfinished="20260101-000000-aaaaaa.xyz"), Consent(force=True), "20260101-000000-aaaaaa"),
    ],
    ids=["no answer", "the answer is no", "another cluster", "unknown data", "no room", "another placement unfinished"],
)
def test_nothing_is_touched_when_it_may_not_be(found: Occupant, consent: Consent, reason: str) -> None:
    world = World(found)
    with pytest.raises(RefusedError, match=reason) as refused:
        run(world, consent)
    assert world.done == []
    assert refused.value.hint


@pytest.mark.parametrize(
    ("found", "consent"),
    [
        (occupant(what=None, identity=None), Consent()),
        (occupant(), Consent(ask=lambda _: True)),
        (occupant(identity="999"), Consent(force=True)),
        (occupant(unfinished=f"{ARTEFACT}.abc123", free_bytes=0), Consent()),
    ],
    ids=["an empty place", "the answer is yes", "forced", "its own unfinished placement"],
)
def test_what_may_be_replaced_is(found: Occupant, consent: Consent) -> None:
    decide(found, identity="711", artefact_id=ARTEFACT, needed_bytes=1 << 20, consent=consent)


def test_a_failure_before_the_swap_starts_again_what_was_stopped() -> None:
    world = World(occupant(), fails="stage")
    with pytest.raises(EngineError, match="stage failed"):
        run(world, Consent(yes=True))
    assert world.done == ["stop api worker postgres", "stage", "start postgres worker api"]


def test_a_failure_in_the_swap_says_that_nothing_is_lost_and_the_same_command_goes_on() -> None:
    world = World(occupant(), fails="swap")
    with pytest.raises(EngineError, match="interrupted") as failed:
        run(world, Consent(yes=True))
    assert failed.value.hint is not None
    assert f"recoup restore {ARTEFACT}" in failed.value.hint
    assert not any(act.startswith("start") for act in world.done), "half-placed data are not started"


def test_an_interrupted_swap_is_finished_under_its_own_id_without_staging_again() -> None:
    world = World(occupant(unfinished=f"{ARTEFACT}.abc123"))
    run(world, Consent())
    assert "stage" not in world.done
    assert f"swap {ARTEFACT}.abc123" in world.done


def test_applications_are_not_started_on_data_that_are_not_the_copied_ones() -> None:
    said: list[str] = []
    world = World(occupant(), verdict=Verdict.FAILED)
    done = run(world, Consent(yes=True), said.append)
    assert world.done[-1] == "check"
    assert done.restarted == ("postgres",)
    assert any("not starting worker, api" in line for line in said)


def test_a_check_that_cannot_be_carried_out_is_unknown_and_the_applications_start() -> None:
    world = World(occupant(), fails="check")
    done = run(world, Consent(yes=True))
    assert [finding.verdict for finding in done.findings] == [Verdict.UNKNOWN]
    assert world.done[-1] == "start worker api"


def test_a_server_that_does_not_start_on_the_copy_names_where_the_old_data_are() -> None:
    world = World(occupant(), fails="start postgres")
    with pytest.raises(EngineError, match="does not start on it") as failed:
        run(world, Consent(yes=True))
    assert failed.value.hint is not None
    assert "The old data are kept in aside" in failed.value.hint
