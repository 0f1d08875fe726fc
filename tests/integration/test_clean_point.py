"""Damage of real servers, and what a recovery goes back to: the newest clean point, losing no more than it must."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.assembly.recover_choose import choose
from recoup.assembly.recover_member import member_of
from recoup.assembly.restore_job import Wish
from recoup.assembly.restore_stack_time import TimedMember
from recoup.kernel.finding import Verdict, overall
from recoup.recovery.in_place import Consent
from recoup.recovery.step import Done
from tests.integration.planted_cluster import without_checksums
from tests.integration.planted_damage import flip_in_header, rows
from tests.integration.recovery_place import RecoveryPlace, recovering, recovery_place
from tests.integration.wal_story import Story, own, rows_in, story

SERVICES = "{postgres: {engine: postgres, url: 'postgresql://nobody@127.0.0.1:1/none', wal: continuous}}"


class Shop:
    """A server without page checksums, its repository, and a table ``orders`` whose first page will be hurt."""

    def __init__(self, told: Story, place: RecoveryPlace) -> None:
        self.story, self.place = told, place
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


def chosen(shop: Shop, instant: str | None = None) -> tuple[Done, list[str]]:
    said: list[str] = []
    with recovering(shop.place, "database-corruption", "postgres", said=said, instant=instant) as (recovery, step):
        done = choose(recovery, step)
        assert [line.event for line in recovery.journal.lines].count("point-seen") == len(done.data.get("looks", ()))
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
    done, said = chosen(shop)
    assert overall(done.findings) is Verdict.OK, done
    assert "orders" in done.detail
    assert restored_rows(shop, done, server_folder) == told.rows_up_to(last_good)
    assert len(done.data["looks"]) <= 7, said
