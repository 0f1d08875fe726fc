"""Damage of real servers, and what a recovery goes back to: the newest clean point, losing no more than it must."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from google_crc32c import extend as crc32c_of_more
from google_crc32c import value as crc32c

from recoup.assembly.access import Found
from recoup.assembly.recover.choose import choose
from recoup.assembly.recover.member import member_of
from recoup.assembly.restore.job import Wish
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.demo.servers import RedisServer
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.damage_look import look_for_damage
from recoup.engines.redis.snapshot import take_rdb
from recoup.kernel import clock, ids
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from recoup.recovery.in_place import Consent
from recoup.recovery.step import Done
from recoup.repository.copy_writer import ArtefactWriter, Header
from tests.integration.planted_cluster import without_checksums
from tests.integration.planted_damage import change, flip_in_header, rows
from tests.integration.recovery_place import RecoveryPlace, recovering, recovery_place
from tests.integration.redis_copies import ignore
from tests.integration.redis_streams import make_plan, numbers_at, write
from tests.integration.test_postgres_live_image import no_postgres_here
from tests.integration.wal_story import Story, own, rows_in, story
from tests.testhost.fixtures import Stack
from tests.testhost.machine import eventually

__all__ = ["no_postgres_here"]

SERVICES = "{postgres: {engine: postgres, url: 'postgresql://nobody@127.0.0.1:1/none', wal: continuous}}"


class Shop:
    """A server without page checksums, its repository, and a table ``orders`` whose first page will be hurt."""

    def __init__(self, told: Story, place: RecoveryPlace) -> None:
        self.story, self.place, self.runs = told, place, list[Path]()
        without_checksums(told.server)
        for statement in rows("orders").split(";")[:-1]:
            told.server.execute(statement)
        told.server.execute("CHECKPOINT")

    def hurt_on_the_disk(self) -> None:
        """A bit flips in a page of ``orders``, which nobody reads."""
        server = self.story.server
        path = server.data_folder / str(server.execute("SELECT pg_relation_filepath('orders')")[0][0])
        server.stop()
        flip_in_header(path)
        server.start()

    def write_it_out(self) -> None:
        """Another row of the same page is changed for the first time after a checkpoint: the page goes to the WAL."""
        self.story.server.execute("UPDATE orders SET note = 'changed' WHERE id = 7")


@pytest.fixture
def shop(server_folder: Path) -> Iterator[Shop]:
    place = recovery_place(server_folder / "plan", SERVICES)
    with story(17, [place.repository]) as told:
        yield Shop(told, place)


def chosen(shop: Shop, instant: str | None = None, state: Path | None = None) -> tuple[Done, list[str]]:
    """What is chosen, by a new run or by the one in ``state``, and what was said on the way."""
    said: list[str] = []
    with recovering(
        shop.place, "database-corruption", "postgres", said=said, instant=instant, state=state
    ) as (recovery, step):  # fmt: skip
        shop.runs.append(recovery.state)
        done = choose(recovery, step)
        seen = [line.event for line in recovery.journal.lines].count("point-seen")
        assert instant is not None or seen == len(done.data["looks"])
    return done, said


def restored_rows(shop: Shop, done: Done, work: Path) -> list[int]:
    """The rows that are there after going back to exactly what was chosen, in another process's place."""
    folder = own(shop.story, work / "restored")
    with recovering(shop.place, "database-corruption", "postgres") as (recovery, _), _programs(shop.story):
        member = member_of(recovery.opened, done.data)
        assert isinstance(member, TimedMember)
        report = member.act(Wish(destination=str(folder)), Consent(), lambda _: None, lambda _: None)
    assert overall(report.findings) is Verdict.OK, report
    return rows_in(shop.story, folder)


@contextlib.contextmanager
def _programs(told: Story) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{told.server.bin}{os.pathsep}{os.environ['PATH']}")
        yield


def test_damage_that_was_archived_is_stopped_in_front_of_and_nothing_before_it_is_lost(
    shop: Shop, server_folder: Path
) -> None:
    told = shop.story
    told.commit(2)
    told.base()
    told.commit(3, filling=20_000)
    shop.hurt_on_the_disk()
    last_good = told.commit(2, filling=20_000)
    shop.write_it_out()
    told.commit(3, filling=20_000)
    told.archive()

    hurt = [
        one
        for one in look_for_damage(DirectAccess(Secret(told.server.url())), seconds=240)
        if one.verdict is Verdict.FAILED
    ]
    assert {one.subject for one in hurt} == {"postgres: public.orders"}, "the object is named"
    assert any("page 0" in one.detail for one in hurt)

    done, said = chosen(shop)
    assert overall(done.findings) is Verdict.OK, done
    assert "public.orders" in done.detail
    assert len(done.data["looks"]) <= 7, said
    assert restored_rows(shop, done, server_folder) == told.rows_up_to(last_good)

    # Cut off before it could write down its choice: the same step makes none of its looks again.
    again, said = chosen(shop, state=shop.runs[-1])
    assert (again.data["target"], again.data["base"]) == (done.data["target"], done.data["base"])
    assert said == []

    asked, _ = chosen(shop, instant=clock.to_text(told.commits[-1].time))
    assert [one.verdict for one in asked.findings] == [Verdict.FAILED], "an instant that was named is looked at as well"
    assert "public.orders" in asked.findings[0].detail


def test_what_rotted_on_the_disk_is_left_behind_with_an_older_copy_and_nothing_is_lost(
    shop: Shop, server_folder: Path
) -> None:
    told = shop.story
    told.commit(2)
    oldest = told.base()
    told.commit(2)
    shop.hurt_on_the_disk()
    told.base()
    told.commit(2)
    newest = told.base()
    told.archive()
    last = told.commit()
    told.archive()
    spoil(shop.place, newest.manifest.id)

    done, said = chosen(shop)
    assert overall(done.findings) is Verdict.OK, done
    assert (done.data["base"], done.data["target"]) == (oldest.manifest.id, {"latest": True})
    assert f"passed over: {newest.manifest.id}" in done.detail, "the next one is chosen, and that is said"
    assert len(done.data["looks"]) == 3, said
    assert restored_rows(shop, done, server_folder) == told.rows_up_to(last)


def test_wal_that_only_an_extension_can_replay_is_not_taken_for_damage_and_nothing_is_given_up(shop: Shop) -> None:
    told = shop.story
    told.commit(2)
    base = told.base()
    told.commit(2)
    by_an_extension(told)
    told.commit(2)
    told.archive()
    done, said = chosen(shop)
    assert (done.data["base"], done.data["target"]) == (base.manifest.id, {"latest": True})
    (finding,) = done.findings
    assert finding.verdict is Verdict.UNKNOWN, done
    assert "resource manager with ID 128 not registered" in finding.detail
    assert len(done.data["looks"]) == 1, said


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
@pytest.mark.usefixtures("no_postgres_here")
def test_where_there_is_no_postgresql_the_image_of_the_service_replays_and_looks(
    standing_stack: Stack, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in standing_stack.machine.docker_environment.items():
        monkeypatch.setenv(name, value)
    compose = f"compose: {{file: '{standing_stack.file}', env_files: ['{standing_stack.env_file}']}}\n"
    services = "{postgres: {engine: postgres, compose: postgres, user: market, wal: continuous}}"
    place = recovery_place(server_folder / "plan", services, more=compose)
    docker = partial(standing_stack.machine.docker, "ps", "--all", "--quiet")
    before = docker()
    with story(15, [place.repository]) as told:
        told.base()
        told.commit(2)
        told.archive()
        with recovering(place, "database-corruption", "postgres") as (recovery, step):
            done = choose(recovery, step)
    assert overall(done.findings) is Verdict.OK, done
    assert done.data["target"] == {"latest": True}
    assert [one["said"].partition(" (")[0] for one in done.data["looks"]] == ["clean"]
    eventually(lambda: docker() == before)


def test_after_the_loss_of_a_server_the_newest_point_is_taken_without_a_look(shop: Shop) -> None:
    told = shop.story
    base = told.base()
    told.commit(2)
    lacking = told.base().manifest.id
    told.archive()
    for part in [path for path in (shop.place.folder / "backups").rglob("base*") if lacking in str(path)]:
        part.unlink()
    said: list[str] = []
    with recovering(shop.place, "server-loss", "postgres", said=said) as (recovery, step):
        done = choose(recovery, step)
    assert [one for one in said if one.startswith(f"passed over: {lacking}")], said
    assert (done.data["base"], done.data["target"], done.data["looks"]) == (base.manifest.id, {"latest": True}, [])
    (finding,) = done.findings
    assert finding.verdict is Verdict.OK
    assert "whether it is sound" in finding.not_checked


def test_an_emptied_redis_goes_back_to_the_newest_copy_that_holds_something(
    redis7: RedisServer, server_folder: Path
) -> None:
    place = recovery_place(server_folder / "plan", "{redis: {engine: redis, url: 'redis://127.0.0.1:1'}}")
    with contextlib.closing(redis7.client()) as client:
        client.mset({"a": "1", "b": "2"})
        full = copy_of(redis7, place)
        client.flushall()
        copy_of(redis7, place)
    with recovering(place, "redis-loss", "redis") as (recovery, step):
        done = choose(recovery, step)
        member = member_of(recovery.opened, done.data)
    assert isinstance(member, Found)
    assert member.manifest.id == full
    assert overall(done.findings) is Verdict.OK, done
    assert "it holds no key" in done.detail
    assert len(done.data["looks"]) == 1


def test_a_redis_that_was_emptied_by_a_command_goes_back_to_just_before_it(
    redis7: RedisServer, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(server_folder, redis7, monkeypatch)
    write(redis7, range(3))
    with streamed.streaming():
        write(redis7, range(3, 10))
        streamed.mark()
        with contextlib.closing(redis7.client()) as client:
            client.flushall()
        streamed.settle()
    place = RecoveryPlace(folder=streamed.folder)
    with recovering(place, "redis-loss", "redis") as (recovery, step):
        done = choose(recovery, step)
        member = member_of(recovery.opened, done.data)
    assert overall(done.findings) is Verdict.OK, done
    assert isinstance(member, TimedMember)
    assert numbers_at(streamed, clock.from_text(done.data["target"]["time"])) == list(range(10))
    assert len(done.data["looks"]) <= 16, done.data["looks"]


def copy_of(server: RedisServer, place: RecoveryPlace) -> str:
    """Take an RDB copy into the repository; its id."""
    now = clock.now()
    header = Header(
        id=ids.new_id(now), system="Shop", service="redis", engine="redis", label=None, kind="rdb", begun=now
    )
    with contextlib.closing(server.client()) as client:
        client.config_set("repl-diskless-sync-delay", 0)  # 5 s otherwise
    with ArtefactWriter(header, [place.repository]) as writer:
        return writer.finish(take_rdb(server.url(), writer, on_progress=ignore)).manifest.id


def by_an_extension(told: Story) -> None:
    """Write a record to the WAL of a kind that only an extension could replay, as ``test_custom_rmgrs`` does."""
    told.server.execute("SELECT pg_switch_wal()")
    name = told.server.execute(
        "SELECT pg_walfile_name(pg_logical_emit_message(false, 'recoup-foreign', 'it matters') + 1)"
    )[0][0]
    told.server.execute("SELECT pg_switch_wal()")  # so that the server does not write this page again
    path = told.server.data_folder / "pg_wal" / name
    data = path.read_bytes()
    at = data.index(b"recoup-foreign") - 50  # behind two headers: XLogRecord, and of a short message
    length, *_, kind = struct.unpack_from("<IIQBB", data, at)
    assert kind == 21, "RM_LOGICALMSG_ID"
    head = data[at : at + 17] + bytes([128]) + data[at + 18 : at + 20]
    change(path, at, head + struct.pack("<I", crc32c_of_more(crc32c(data[at + 24 : at + length]), head)))


def spoil(place: RecoveryPlace, artefact_id: str) -> None:
    """Change bytes in the middle of an artefact's largest object, as a failing disk does."""
    objects = [path for path in (place.folder / "backups").rglob("*") if artefact_id in str(path) and path.is_file()]
    largest = max(objects, key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    change(largest, largest.stat().st_size // 2, b"spoilt")
