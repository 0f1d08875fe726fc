"""Years of copies, failures, holds, locks, chains and jumping clocks, pruned again and again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from recoup.repository.retention import CLOCK_TOLERANCE, Copy, Hold, Proof, Rules, Snapshot, decide, removal_order

DAY = timedelta(days=1)
SERVICES = {"postgres": ("base", "dump"), "logs": ("files",), "old": ("dump",)}
ZONES = ["UTC", "Europe/Berlin", "America/Toronto", "Australia/Lord_Howe", "Asia/Kathmandu"]
COUNTS = ["last", "hourly", "daily", "weekly", "monthly", "yearly"]


class Years(RuleBasedStateMachine):
    """One repository. ``true`` is the time that is; the machine's clock is off by ``skew``."""

    @initialize(
        zone=st.sampled_from(ZONES),
        counts=st.dictionaries(st.sampled_from(COUNTS), st.integers(1, 9), min_size=1),
        minimum=st.integers(1, 3),
    )
    def begin(self, zone: str, counts: dict[str, int], minimum: int) -> None:
        self.true, self.skew, self.number = datetime(2019, 12, 20, tzinfo=UTC), timedelta(), 0
        rules = Rules(counts=counts, minimum=minimum, zone=ZoneInfo(zone))
        self.rules = {"postgres": rules, "logs": replace(rules, counts={}, keep=40 * DAY)}  # "old" is not in the plan
        self.copies: dict[str, Copy] = {}
        self.holds: dict[str, Hold] = {}
        self.locks: dict[str, datetime] = {}
        self.failed: set[tuple[str, str]] = set()
        self.reach: datetime | None = None

    @property
    def now(self) -> datetime:
        return self.true + self.skew

    def _take(self, service: str, kind: str, proof: Proof, *, chained: bool = False, lock: int = 0) -> None:
        self.number += 1
        depends_on: tuple[str, ...] = ()
        if chained:
            links = [copy for copy in self.copies.values() if (copy.service, copy.kind) == (service, kind)]
            depends_on = (max(links, key=lambda copy: copy.id).id,) if links else ()
        identifier = f"{self.number:06}"
        self.copies[identifier] = Copy(
            id=identifier, service=service, kind=kind, begun=self.now, ended=self.now + timedelta(minutes=20),
            proof=proof, depends_on=depends_on,
        )  # fmt: skip
        if lock:
            self.locks[identifier] = self.now + lock * DAY

    @rule(days=st.integers(1, 120), dumps=st.booleans(), full_each=st.sampled_from([1, 2, 7]))
    def live(self, days: int, dumps: bool, full_each: int) -> None:
        """A good copy each night, and a prune after it."""
        for day in range(days):
            self.true += DAY
            self._take("postgres", "base", Proof.GOOD, chained=day % full_each != 0)
            self._take("logs", "files", Proof.GOOD)
            if dumps:
                self._take("postgres", "dump", Proof.GOOD)
            if day % 5 == 4:
                self.prune(None)

    @rule(
        where=st.sampled_from([(service, kind) for service, kinds in SERVICES.items() for kind in kinds]),
        proof=st.sampled_from(list(Proof)), chained=st.booleans(), lock=st.sampled_from([0, 0, 30]),
        hours=st.integers(1, 40),
    )  # fmt: skip
    def take_one(self, where: tuple[str, str], proof: Proof, chained: bool, lock: int, hours: int) -> None:
        self.true += timedelta(hours=hours)
        self._take(*where, proof, chained=chained, lock=lock)

    @rule(hours=st.integers(1, 24 * 400))
    def wait(self, hours: int) -> None:
        self.true += timedelta(hours=hours)

    @rule(skew=st.sampled_from([timedelta(), timedelta(), timedelta(), -3 * DAY, 400 * DAY, -4000 * DAY, 20_000 * DAY]))
    def jump(self, skew: timedelta) -> None:
        self.skew = skew

    @rule(name=st.sampled_from("ab"), days=st.none() | st.integers(0, 500))
    def hold(self, name: str, days: int | None) -> None:
        self.holds[name] = Hold(name=name, begins=None if days is None else self.true - days * DAY, reason="held")

    @rule(name=st.sampled_from("ab"))
    def release(self, name: str) -> None:
        self.holds.pop(name, None)

    @rule(failed=st.sets(st.sampled_from([("postgres", "base"), ("postgres", "dump"), ("logs", "files")]), max_size=2))
    def fail(self, failed: set[tuple[str, str]]) -> None:
        self.failed = failed

    @rule(days=st.none() | st.integers(1, 60))
    def want_to_reach(self, days: int | None) -> None:
        self.reach = None if days is None else self.true - days * DAY

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            copies=list(self.copies.values()), rules=self.rules, now=self.now, holds=list(self.holds.values()),
            blocked=dict.fromkeys(self.failed, "the last backup failed"),
            reach={} if self.reach is None else {("postgres", "base"): self.reach},
            locked={name: until for name, until in self.locks.items() if until > self.now and name in self.copies},
        )  # fmt: skip

    @precondition(lambda self: self.copies)
    @rule(killed_after=st.none() | st.integers(0, 5))
    def prune(self, killed_after: int | None) -> None:
        """Decide and remove, perhaps killed on the way; then look at what must never happen."""
        snapshot, before = self._snapshot(), dict(self.copies)
        decisions = decide(snapshot)
        assert [one.copy.id for one in decisions if not one.reasons] == [], "every decision has its reasons"
        assert {one.copy.id for one in decisions} == set(before), "there is a decision for every copy"
        order = removal_order(decisions)
        assert {copy.id for copy in order} == {one.copy.id for one in decisions if not one.keep}
        for copy in order[:killed_after]:
            del self.copies[copy.id]
            assert all(link not in before or link in self.copies for link in self._links()), "a chain was broken"
        self._never(snapshot, before)
        if killed_after is None:
            assert all(one.keep for one in decide(self._snapshot())), "the same again has nothing left to do"

    def _links(self) -> list[str]:
        return [link for copy in self.copies.values() for link in copy.depends_on]

    def _never(self, snapshot: Snapshot, before: dict[str, Copy]) -> None:
        gone = [copy for name, copy in before.items() if name not in self.copies]
        for copy in gone:
            group = sorted(
                (one for one in before.values() if one.group == copy.group), key=lambda one: (one.begun, one.id)
            )
            newest, sound = group[-1], [one for one in group if one.proof is not Proof.BAD]
            assert copy.service in self.rules, "a service that the plan does not have"
            assert newest.proof is Proof.GOOD, "the newest was failed or unproven"
            assert (copy.service, copy.kind) not in self.failed, "the last backup failed"
            assert newest.begun <= self.now + CLOCK_TOLERANCE, "a copy was dated in the future"
            assert copy.id not in snapshot.locked, "a locked copy"
            for kept in sound[-self.rules[copy.service].minimum :]:
                assert kept.id in self.copies, "below the minimum"
            for hold in self.holds.values():
                assert hold.begins is not None, "everything is held"
                assert copy.ended < hold.begins, "under a hold"
                self._still_reached(sound, hold.begins)
            if self.reach is not None and (copy.service, copy.kind) == ("postgres", "base"):
                self._still_reached(sound, self.reach)

    def _still_reached(self, sound: list[Copy], instant: datetime) -> None:
        could = [copy for copy in sound if copy.ended <= instant]
        assert not could or any(copy.id in self.copies for copy in could), f"{instant} cannot be reached any more"


Years.TestCase.settings = settings(settings.get_profile("seeded"), max_examples=60, stateful_step_count=25)
TestYearsOfPruning = Years.TestCase
