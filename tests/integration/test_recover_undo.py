"""Taking a recovery back and closing it, as it is typed: what a kill leaves, and what may be repeated.

The steps are files, and the volume is an object that knows what is in place and what was set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from recoup.assembly.recover import undo as recover_undo
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.replaced import Replaced
from recoup.assembly.recover.runs import local_runs
from recoup.assembly.system import System
from recoup.engines.postgres.volume_script import BACK
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding
from recoup.recovery.in_place import Occupant
from recoup.recovery.runbook import Database
from tests.integration import recover_world
from tests.integration.recover_command import AGREED, SITUATION, Desk
from tests.integration.recover_world import FACTS

_NEEDS_IT = SimpleNamespace(depends_on=[SimpleNamespace(service="postgres")])
_PROJECT = SimpleNamespace(services={"worker": _NEEDS_IT, "api": _NEEDS_IT, "postgres": SimpleNamespace(depends_on=[])})


@dataclass
class Volume:
    """A volume with what a run has put there, and what it set aside: a placement and its undoing are words."""

    placed: str | None = None
    aside: list[str] = field(default_factory=lambda: ["old data"])
    forgotten: int = 0
    ends: list[Callable[[], None]] = field(default_factory=list)  #: what happens when everything is started again
    runs: set[str] = field(default_factory=lambda: {"postgres", "api", "worker"})
    stops: list[str] = field(default_factory=list)  #: everything that was stopped, in that order
    started: list[str] = field(default_factory=list)
    fails: bool = False  #: the container engine does not answer

    def found(self, recovery: Recovery, service: str) -> Replaced:
        assert service == "postgres", "of another one nothing was replaced"
        placement = recovery.placement("copy")
        self.placed = self.placed or placement
        return Replaced(service=service, compose=service, home=self, undo=self, placement=placement)  # type: ignore[arg-type]

    def look(self) -> Occupant:
        return Occupant(
            place="the volume", identity=None, what="a cluster", unfinished=None, free_bytes=1 << 30, placed=self.placed
        )

    def put_back(self, restore_id: str) -> str | None:
        assert self.placed in (restore_id, restore_id + BACK)
        self.placed, self.aside = restore_id + BACK, ["recovered data"]
        return "beside"

    def forget(self, restore_id: str) -> list[str]:
        assert self.placed is not None
        assert self.placed.startswith(restore_id)
        if self.fails:
            raise EngineError("docker does not answer", hint="Start it.")
        self.forgotten += 1
        gone, self.aside = self.aside, []
        return gone

    def start(self, _recovery: Recovery, stopped: Sequence[str]) -> list[Finding]:
        if self.ends:
            self.ends.pop()()
        self.started += reversed(stopped)
        return []

    def stop(self, services: Sequence[str]) -> None:
        self.stops += services
        self.runs -= set(services)

    def of_service(self, name: str) -> list[SimpleNamespace]:
        return [one for one in self.containers() if one.service == name]

    def containers(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(service=one, running=True, state="running", exit_status=None) for one in self.runs]


@pytest.fixture
def volume(monkeypatch: pytest.MonkeyPatch) -> Volume:
    found = Volume()
    monkeypatch.setattr(recover_undo, "replaced_in", found.found)
    monkeypatch.setattr(recover_undo, "open_stack", lambda _system: SimpleNamespace(client=found, project=_PROJECT))
    monkeypatch.setattr(recover_undo, "_start", found.start)
    return found


def test_a_rollback_that_was_cut_off_is_finished_and_nothing_else_is_done_to_the_run(
    desk: Desk, volume: Volume
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    desk.order("fail-start-postgres")
    desk.recover(SITUATION, *AGREED, expect=1)
    (desk.orders / "fail-start-postgres").unlink()
    volume.ends.append(killed)
    desk.recover("--rollback", "--confirm", "marketplace", expect=130)
    assert volume.aside == ["recovered data"]
    shown = desk.recover("--show", expect=3)
    assert "putting back what it replaced was begun and is not over; finish it: recoup recover --rollback" in shown
    for refused in (("--resume", *AGREED), (SITUATION, *AGREED), ("--close", "--yes")):
        said = desk.recover(*refused, expect=5)
        assert "was begun and is not over" in said
        assert "recoup recover --rollback" in said
    assert "start-postgres" not in desk.done()
    desk.recover("--abandon", "--because", "nobody has the time")
    assert "was begun and is not over" in desk.recover("--close", "--yes", expect=5)
    assert volume.aside == ["recovered data"]
    for _ in range(2):
        assert "is rolled back" in desk.recover("--rollback", "--confirm", "marketplace")
        assert "rolled back: production is as it was before it; it is not closed" in desk.recover("--show", expect=3)
    assert "removed recovered data" in desk.recover("--close", "--yes")


def test_what_must_not_be_put_back_is_refused_before_a_rollback_begins(desk: Desk, volume: Volume) -> None:
    desk.recover(SITUATION, *AGREED)
    volume.placed = "of another restore"
    said = desk.recover("--rollback", "--confirm", "marketplace", expect=5)
    assert "the data there are not those that this run put in place" in said
    assert "done and proven" in desk.recover("--show")


def test_what_is_kept_when_a_run_is_closed_can_be_put_back_or_removed_later(desk: Desk, volume: Volume) -> None:
    desk.recover(SITUATION, "--yes", "--pause-before", "start-postgres", "--confirm", "marketplace", expect=4)
    desk.recover("--rollback", "--confirm", "marketplace")
    said = desk.recover("--close", expect=5)
    assert "removes what was set aside of postgres: no way back from there, and nobody is here to agree" in said
    said = desk.recover("--close", "--keep", expect=5)
    assert "ends the hold; what was set aside of postgres stays, and nobody is here to agree" in said
    for _ in range(2):
        said = desk.recover("--close", "--yes", "--keep")
        assert "what was set aside of postgres stays until it is closed without --keep: recoup recover --close" in said
        assert volume.aside == ["recovered data"]
    assert "is rolled back" in desk.recover("--rollback", "--confirm", "marketplace")
    assert "removed recovered data" in desk.recover("--close", "--yes")
    said = desk.recover("--rollback", "--confirm", "marketplace", expect=5)
    assert "is closed: what it replaced is not kept any more" in said
    desk.recover("--close", "--yes")
    [run] = local_runs(System.from_file(desk.plan).state_folder)
    closed = [(one.data["removed"], one.data["kept"]) for one in run.lines if one.event == "run-closed"]
    assert closed == [([], True), (["recovered data"], False)]


def test_what_was_unpacked_and_never_put_in_place_is_told_when_a_run_is_given_up_and_goes_when_it_is_closed(
    desk: Desk, volume: Volume
) -> None:
    volume.aside = ["what was unpacked"]
    desk.recover(SITUATION, "--yes", "--pause-before", "swap-postgres", expect=4)
    said = desk.recover("--abandon", "--because", "the old server is back")
    assert "it replaced nothing" in said
    assert "what it unpacked of postgres lies beside the old data until it is closed" in said
    what = "what was unpacked of postgres and not put in place"
    assert f"ends the hold, and removes {what}, and nobody" in desk.recover("--close", expect=5)
    assert f"ends the hold; {what} stays, and nobody" in desk.recover("--close", "--keep", expect=5)
    assert f"{what} stays until it is closed without --keep" in desk.recover("--close", "--keep", "--yes")
    assert volume.forgotten == 0
    assert "removed what was unpacked" in desk.recover("--close", "--yes")
    assert volume.aside == []
    [run] = local_runs(System.from_file(desk.plan).state_folder)
    closed = [(one.data["removed"], one.data["kept"]) for one in run.lines if one.event == "run-closed"]
    assert closed == [([], True), (["what was unpacked"], False)]


@pytest.mark.parametrize("missing", ["the engine", "the container"])
def test_a_run_that_replaced_nothing_is_closed_also_where_what_it_unpacked_cannot_be_reached(
    desk: Desk, volume: Volume, missing: str
) -> None:
    desk.recover(SITUATION, "--yes", "--pause-before", "swap-postgres", expect=4)
    desk.recover("--abandon", "--because", "the server is gone")
    volume.fails, volume.runs = missing == "the engine", {"postgres"} if missing == "the engine" else set()
    said = desk.recover("--close", "--yes", expect=4)
    assert "is closed" in said
    assert "what was unpacked and not put in place is removed" in said
    assert "recoup recover --close" in said
    assert ("docker does not answer" if missing == "the engine" else "postgres has no container here") in said
    [run] = local_runs(System.from_file(desk.plan).state_folder)
    assert run.lines[-1].event == "run-closed"
    assert volume.forgotten == 0, "nothing is made to remove something from it"


def test_a_run_that_unpacked_nothing_needs_no_container_engine_to_be_closed(desk: Desk, volume: Volume) -> None:
    desk.recover(SITUATION, "--yes", "--pause-before", "restore-postgres", expect=4)
    said = desk.recover("--abandon", "--because", "it was a false alarm")
    assert "what it unpacked" not in said
    volume.fails = True
    assert "what was unpacked" not in desk.recover("--close", "--yes")


def test_a_database_that_was_left_out_as_advised_is_no_hindrance_to_a_rollback_and_to_closing(
    desk: Desk, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = Database(service="redis", engine="redis", what="as of now", replaces="its data", at_once=True)
    both = replace(FACTS, databases=(*FACTS.databases, redis), hurt=("postgres", "redis"))
    monkeypatch.setattr(recover_world, "FACTS", both)
    text = desk.plan.read_text()
    cache = "  redis: {engine: redis, url: redis://127.0.0.1:1, tier: all}\n"
    desk.plan.write_text(text.replace("repositories:\n", f"{cache}repositories:\n"))
    for step in ("choose-redis", "swap-redis"):
        desk.order(f"fail-{step}")
    leave_out = ("--because", "it is a cache", *AGREED)
    desk.recover(SITUATION, *AGREED, expect=1)
    assert "--resume --skip choose-redis --because" in desk.out
    desk.recover("--resume", "--skip", "choose-redis", *leave_out, expect=1)
    desk.recover("--resume", "--skip", "swap-redis", *leave_out, expect=4)
    said = desk.recover("--rollback", "--confirm", "marketplace")
    assert "postgres: the old data are back" in said
    assert "redis" not in said
    assert "removed recovered data" in desk.recover("--close", "--yes")


def test_what_works_with_the_data_stands_still_while_they_are_put_back_also_when_the_run_had_stopped_nothing(
    desk: Desk, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recover_world, "FACTS", replace(FACTS, stopped=()))  # as after the loss of the server
    desk.recover(SITUATION, *AGREED)
    volume.ends.append(killed)
    desk.recover("--rollback", "--confirm", "marketplace", expect=130)
    assert set(volume.stops[:-1]) == {"api", "worker"}
    assert volume.stops[-1] == "postgres", "the applications stop before what they write to"
    assert volume.runs == set()
    desk.recover("--rollback", "--confirm", "marketplace")  # by now nothing runs of which one could see what needs it
    assert volume.started == list(reversed(volume.stops[:3]))


def test_a_run_can_be_taken_back_and_closed_while_no_repository_answers(desk: Desk, volume: Volume) -> None:
    desk.recover(SITUATION, *AGREED)
    repository = desk.plan.parent / "repository"
    away = repository.rename(repository.with_name("away"))
    said = desk.recover("--rollback", "--confirm", "marketplace")
    assert "is rolled back" in said
    assert said.index("stopping api, ") < said.index("putting the old data of postgres back")
    assert "local: nothing keeps others away there" in said
    said = desk.recover("--close", "--yes", expect=4)
    assert "removed recovered data" in said
    assert "recoup hold --release recovery-" in said, "the hold in it stays until somebody can end it"
    away.rename(repository)
    assert "is closed: what it replaced is not kept any more" in desk.recover(
        "--rollback", "--confirm", "marketplace", expect=5
    )


def test_without_a_repository_a_machine_that_knows_of_no_run_says_what_is_wrong_with_it(desk: Desk) -> None:
    repository = desk.plan.parent / "repository"
    repository.rename(repository.with_name("away"))
    assert "there is no repository at" in desk.recover("--rollback", "--confirm", "marketplace", expect=10)
