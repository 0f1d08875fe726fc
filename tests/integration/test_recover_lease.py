"""The lease of a stack's recoveries in a repository: one operator at a time, from any machine, and never for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.recover import keeper
from recoup.assembly.recover.keeper import BOUNDARY_SECONDS, Claim, keeping
from recoup.demo.host import wait_until
from recoup.demo.s3_server import S3Server
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, StorageError
from recoup.kernel.presence import Presence, is_dead, myself
from recoup.kernel.secret import Secret
from recoup.recovery.journal import Journal
from recoup.repository import layout, run_lease
from recoup.repository.repository import Repository, create_repository
from recoup.repository.run_journals import read_journal, runs_in
from recoup.repository.run_lease import Rhythm
from recoup.repository.seal import Key
from recoup.storage.decorator import StoreDecorator
from recoup.storage.local import LocalStore
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import ObjectInfo, ObjectStore
from recoup.storage.s3 import S3Store

KEY = Key.from_text("4" * 64)
RUN = "20261123-020000-abcdef"
QUICK = Rhythm(every_seconds=0.1, lasts_seconds=0.4, look_again_seconds=0.05)
SLOW = Rhythm(every_seconds=60, lasts_seconds=600, look_again_seconds=60)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repository(store: MemoryStore) -> Repository:
    return create_repository("local", store, KEY)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", who="alice", host="h", boot="b")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits at a boundary for as long as a busy machine needs."""
    monkeypatch.setattr(keeper, "BOUNDARY_SECONDS", 120.0)


def claim(who: str, rhythm: Rhythm = QUICK, **more: object) -> Claim:
    elsewhere = Presence(host=f"host-of-{who}", machine=who, boot=who, namespace="n", pid=1, started="1")
    return Claim(
        **{"system": "shop", "purpose": "recovery", "who": who, "presence": elsewhere, "rhythm": rhythm, **more}  # type: ignore[arg-type]
    )


def leave_behind(repository: Repository, of: Claim) -> None:
    """As if its holder had been killed: the lease is there, and nobody writes it any more."""
    run_lease.take(repository, of.lease(), run_lease.look(repository, "shop"))


def silent(_text: str) -> None:
    pass


def test_a_second_operator_on_another_machine_is_told_who_is_at_it(repository: Repository) -> None:
    with keeping([repository], claim("alice", SLOW), silent) as keepers:
        assert keepers.held_in() == ("local",)
        with (
            pytest.raises(BusyError, match="alice on host-of-alice") as busy,
            keeping([repository], claim("bob"), silent),
        ):
            pass
        assert "--take-over" in str(busy.value.hint)
    with keeping([repository], claim("bob"), silent) as keepers:
        assert keepers.held_in() == ("local",)


def test_two_systems_in_one_repository_do_not_keep_each_other_away(repository: Repository) -> None:
    with (
        keeping([repository], claim("alice", SLOW), silent),
        keeping([repository], claim("bob", system="another"), silent) as keepers,
    ):
        assert keepers.held_in() == ("local",)


@pytest.fixture(params=["memory", "folder", pytest.param("s3", marks=pytest.mark.s3)])
def any_repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    kept: ObjectStore = MemoryStore()
    if request.param == "folder":
        kept = LocalStore(tmp_path / "repository", create=True)
    if request.param == "s3":
        kept = bucket_of(request.getfixturevalue("s3"))
    return create_repository("local", kept, KEY)


def bucket_of(server: S3Server) -> S3Store:
    return S3Store(
        server.new_bucket(), endpoint_url=server.endpoint, region=server.region, access_key=server.access_key,
        secret_key=Secret(server.secret_key),
    )  # fmt: skip


def test_of_many_who_begin_at_once_exactly_one_gets_it(any_repository: Repository) -> None:
    repository = any_repository
    got: list[str] = []
    begin, done = threading.Barrier(6), threading.Event()

    def contend(who: str) -> None:
        begin.wait(60)
        try:
            with keeping([repository], claim(who, SLOW), silent):
                got.append(who)
                done.wait(500)
        except BusyError:
            pass

    threads = [threading.Thread(target=contend, args=(f"who{number}",)) for number in range(6)]
    for one in threads:
        one.start()
    try:
        assert wait_until(lambda: sum(one.is_alive() for one in threads) == 1, limit_seconds=120)
    finally:
        done.set()
        for one in threads:
            one.join(120)
    assert len(got) == 1


def test_a_lease_that_is_over_is_watched_and_then_taken(repository: Repository) -> None:
    leave_behind(repository, claim("alice", replace(QUICK, lasts_seconds=0.0)))
    said: list[str] = []
    with keeping([repository], claim("bob"), said.append) as keepers:
        assert keepers.held_in() == ("local",)
    assert "alice on host-of-alice" in said[0]


def test_a_lease_that_only_looks_over_because_clocks_differ_is_not_taken(repository: Repository) -> None:
    class Behind(Claim):
        """The clock of this machine is behind by an hour: whatever it writes looks long over."""

        def lease(self) -> run_lease.RunLease:
            found = Claim.lease(self)
            return replace(found, until=found.until - timedelta(hours=1))

    lease = Behind.lease(claim("alice"))  # type: ignore[arg-type]
    generation = run_lease.take(repository, lease, run_lease.look(repository, "shop"))
    key, looked = layout.run_lease_key("shop", generation), 0

    class Renewed(StoreDecorator):
        """Between any two looks its holder writes it anew."""

        def get(self, wanted: str, *, limit_bytes: int = 64 << 20) -> bytes:
            nonlocal looked
            if wanted == key:
                looked += 1
                late = replace(lease, until=lease.until + timedelta(milliseconds=looked))
                self.inner.put(key, run_lease._text(repository, key, late))
            return super().get(wanted, limit_bytes=limit_bytes)

    theirs = replace(repository, store=Renewed(repository.store))
    with pytest.raises(BusyError, match="alice"), keeping([theirs], claim("bob"), silent):
        pass
    assert looked > 1, "it was watched"


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),
        ({"started": "1"}, True),
        ({"namespace": "another", "pid": 2**22 + 1}, False),
        ({"boot": "an earlier one"}, True),
        ({"boot": "of another machine", "machine": "another"}, False),
        ({"boot": "of another machine", "host": "another"}, False),
        ({"boot": "not known", "machine": ""}, False),
    ],
)
def test_only_who_is_proven_dead_counts_as_dead(change: dict[str, object], dead: bool) -> None:
    me = replace(myself(), machine="this one")
    assert is_dead(replace(me, **change), me) is dead  # type: ignore[arg-type]


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(repository: Repository) -> None:
    leave_behind(repository, claim("alice", SLOW, presence=replace(myself(), pid=2**22 + 1)))
    with keeping([repository], claim("bob", presence=myself()), silent) as keepers:
        assert keepers.held_in() == ("local",)


def test_who_is_taken_over_from_hears_of_it_and_does_not_take_it_back(repository: Repository) -> None:
    bob = claim("bob", take_over=True)
    with keeping([repository], claim("alice"), silent) as first, keeping([repository], bob, silent) as second:
        assert wait_until(lambda: first.lost() is not None, limit_seconds=120)
        assert "bob on host-of-bob" in str(first.lost())
        assert second.lost() is None
    seen = run_lease.look(repository, "shop").lease
    assert seen is not None
    assert (seen.who, seen.released) == ("bob", True)


@pytest.mark.usefixtures("patient")
def test_before_data_are_replaced_it_is_looked_up_whose_the_run_is_now(
    repository: Repository, journal: Journal
) -> None:
    with keeping([repository], claim("alice", SLOW), silent) as first:
        first.copy_from_now(layout.run_journal("shop", RUN), journal.raw)
        first.make_sure()
        assert first.lost() is None
        run_lease.take(repository, claim("bob").lease(), run_lease.look(repository, "shop"))
        assert first.lost() is None, "it would be a minute until it looks again"
        first.make_sure()
        assert "bob on host-of-bob" in str(first.lost())


def test_where_a_store_lets_two_make_it_one_of_them_soon_finds_out(store: MemoryStore, repository: Repository) -> None:
    class Careless(MemoryStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
            return store.put(key, data)

        def __getattribute__(self, name: str) -> object:
            return object.__getattribute__(self, name) if name == "put" else getattr(store, name)

    careless = replace(repository, store=Careless())
    first = claim("alice").lease()
    nothing = run_lease.look(careless, "shop")
    run_lease.take(careless, first, nothing)
    run_lease.take(careless, claim("bob").lease(), nothing)
    other = run_lease.renew(careless, first, 1, lasts_seconds=1)
    assert other is not None
    assert other.who == "bob"


def test_a_lease_that_cannot_be_believed_is_not_ignored(repository: Repository, store: MemoryStore) -> None:
    leave_behind(repository, claim("alice"))
    key = layout.run_lease_key("shop", 1)
    store.put(key, store.get(key).replace(b"alice", b"carol"))
    with pytest.raises(BusyError, match="was changed"), keeping([repository], claim("bob"), silent):
        pass
    with keeping([repository], claim("bob", take_over=True), silent) as keepers:
        assert keepers.held_in() == ("local",)


# -- the journal ---------------------------------------------------------------------------------------------------


class Moody(MemoryStore):
    """A store that hangs or fails as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.mood: Callable[[], None] = lambda: None

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        self.mood()
        return super().put(key, data, if_absent=if_absent)


class Forgetful(MemoryStore):
    """A store that does as it is asked, and fails once to say so, or each time that something is to be removed."""

    fails = ""
    keeps_all = False

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        found = super().put(key, data, if_absent=if_absent)
        self._fail("put", key)
        return found

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        found = super().get(key, limit_bytes=limit_bytes)
        self._fail("get", key)
        return found

    def delete(self, key: str) -> None:
        self._fail("delete", key)
        if self.keeps_all:
            raise StorageError(f"you may not remove {key}")
        super().delete(key)

    def _fail(self, what: str, key: str) -> None:
        # Not before the second lease: the first look reads the one that was left behind.
        if self.fails == what and key == layout.run_lease_key("shop", 1 if what == "delete" else 2):
            self.fails = ""
            raise StorageError("the connection was cut")


@pytest.mark.parametrize("fails", ["put", "get", "delete", "every delete"])
def test_nobody_takes_their_own_lease_for_that_of_somebody_else(fails: str) -> None:
    store = Forgetful()
    repository = create_repository("local", store, KEY)
    leave_behind(repository, claim("alice", SLOW, presence=replace(myself(), pid=2**22 + 1)))
    store.fails, store.keeps_all = fails, fails == "every delete"
    with keeping([repository], claim("bob", SLOW, presence=myself()), silent) as keepers:
        assert wait_until(lambda: keepers.held_in() == ("local",) or keepers.lost() is not None, limit_seconds=120)
        assert keepers.lost() is None
        seen = run_lease.look(repository, "shop")
        assert seen.lease is not None
        assert (seen.generation, seen.lease.who) == (2, "bob")
    assert store.fails in ("", "every delete"), "it was not tried"


def stored(repository: Repository) -> bytes:
    return read_journal(repository, runs_in(repository, "shop")[RUN])


@pytest.mark.usefixtures("patient")
def test_every_line_is_in_every_repository_when_the_run_goes_on(tmp_path: Path, journal: Journal) -> None:
    both = [create_repository(name, MemoryStore(), KEY) for name in ("one", "two")]
    with keeping(both, claim("alice"), silent) as keepers:
        keepers.copy_from_now(layout.run_journal("shop", RUN), journal.raw)
        for number in range(20):
            journal.append("event", number=number, text="a secret" * 10)
            keepers.at_boundary()
            for one in both:
                assert stored(one) == (tmp_path / "journal").read_bytes()
    assert keepers.uncopied() == {}
    memory = both[0].store
    assert all(b"a secret" not in memory.get(info.key) for info in memory.list()), "a journal is stored encrypted"


def test_a_repository_that_fails_or_hangs_neither_stops_nor_slows_the_run_and_is_named_once(journal: Journal) -> None:
    moody = Moody()
    good, bad = create_repository("good", MemoryStore(), KEY), create_repository("bad", moody, KEY)
    said: list[str] = []
    hang = threading.Event()

    def failing() -> None:
        raise StorageError("no route to host")

    with keeping([good, bad], claim("alice", SLOW), said.append) as keepers:
        keepers.copy_from_now(layout.run_journal("shop", RUN), journal.raw)
        moody.mood = failing
        begun = clock.monotonic()
        for number in range(_LINES):
            journal.append("event", number=number)
            keepers.at_boundary()
        assert clock.monotonic() - begun < _LINES * BOUNDARY_SECONDS / 2, "each line waited for it"
        (told,) = [one for one in said if one.startswith("bad:")]
        assert "no route to host" in told
        assert set(keepers.uncopied()) == {"bad"}
        moody.mood = lambda: None
        assert wait_until(lambda: keepers.uncopied() == {}, limit_seconds=120)
        moody.mood = lambda: void(hang.wait(500))
        begun = clock.monotonic()
        for number in range(_LINES):
            journal.append("event", number=number)
            keepers.at_boundary()
        assert clock.monotonic() - begun < _LINES * BOUNDARY_SECONDS / 2
        assert [one for one in said if "slowly" in one and one.startswith("bad:")] == [
            "bad: it answers slowly; the copy of the journal follows behind"
        ]
        hang.set()
    assert stored(good) == stored(bad) == journal.path.read_bytes()


#: So many that waiting for each of them could not be taken for a busy machine.
_LINES = 100


def void(_value: object) -> None:
    pass
