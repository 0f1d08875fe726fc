"""Damage of every kind, planted and then looked for by ``recoup verify --grade``: each at its grade, and by its name.

No planted damage may end with exit code 0, and no sandbox may be left.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.demo.host import temporary_folder
from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer, RedisServer
from recoup.engines.engine import CopyFacts
from tests.acceptance.tampering import backup_tampered, replaced
from tests.acceptance.workplace import Workplace, new_workplace
from tests.integration import planted_cluster
from tests.integration.live_redis import sealed, unsealed
from tests.integration.moment_place import KEY, repository_in
from tests.integration.planted_damage import DAMAGES, DATABASE
from tests.integration.test_cross_chain import Place, segments_between
from tests.integration.wal_story import story
from tests.real import require_found

_FULL = ", dump_format: plain, checks: [{name: orders, sql: 'SELECT count(*) FROM orders', at_least: 50}]"
_EMPTY_TOO = ", dump_format: plain, checks: [{name: relations, sql: 'SELECT count(*) FROM pg_class', at_least: 1}]"


class Seen:
    """What a verification by the command found of one copy."""

    def __init__(self, work: Workplace, *arguments: str, expect: int) -> None:
        (self.artefact,) = work.json("verify", *arguments, expect=expect)["artefacts"]
        left = [path for path in work.state.rglob("sandboxes/*") if path.name != "door.lock"]
        assert left == [], "a sandbox is left"
        grades = [rung["grade"] for rung in self.artefact["rungs"]]
        assert grades == ["stored", "intact", "boots", "sound", "same", "works"][: len(grades)]

    @property
    def reached(self) -> str | None:
        return cast("str | None", self.artefact["reached"])

    def bad(self, grade: str) -> list[dict[str, Any]]:
        """What is not ok in a grade."""
        (rung,) = (one for one in self.artefact["rungs"] if one["grade"] == grade)
        return [one for one in rung["findings"] if one["verdict"] != "ok"]

    def named(self, grade: str, verdict: str) -> str:
        """The subjects and details of what ended so in a grade."""
        return "\n".join(f"{one['subject']}: {one['detail']}" for one in self.bad(grade) if one["verdict"] == verdict)


@pytest.fixture
def shop(work: Workplace, postgres17: PostgresServer) -> str:
    """A database of the plan with data in it."""
    name = postgres17.new_database("shop")
    with postgres17.connect(name) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        connection.execute("CREATE TABLE invoices (LIKE orders)")
        connection.execute("INSERT INTO orders SELECT g, 'order number ' || g FROM generate_series(1, 100) g")
        connection.execute("INSERT INTO invoices SELECT * FROM orders WHERE id < 10")
        connection.execute("UPDATE orders SET note = 'a marked one' WHERE id = 50")
    work.add_postgres(postgres17, name, more=_FULL)
    work.write_plan()
    return name


def test_a_good_dump_works_and_every_damage_of_it_is_caught_at_its_grade(
    work: Workplace, postgres17: PostgresServer, shop: str
) -> None:
    good = work.backup("postgres", "--kind", "dump")
    assert Seen(work, good, "--grade", "works", expect=0).reached == "works"

    changed = backup_tampered(work, "postgres", "dump", replaced(b"a marked one", b"a market one"))
    seen = Seen(work, changed, "--grade", "works", expect=3)
    assert seen.reached == "sound"
    assert '"public"."orders"' in seen.named("same", "failed")

    lacking = backup_tampered(work, "postgres", "dump", say=lambda facts: _with_extension(facts, shop))
    seen = Seen(work, lacking, "--grade", "works", expect=4)
    assert seen.reached == "intact"
    assert "no_such_extension" in seen.named("boots", "unknown")

    postgres17.execute("TRUNCATE invoices", shop)
    truncated = work.backup("postgres", "--kind", "dump")
    seen = Seen(work, truncated, "--grade", "works", expect=4)
    assert seen.reached == "sound"
    assert '"public"."invoices": 9 rows were in' in seen.named("same", "unknown")

    work.add_postgres(postgres17, shop, more=_EMPTY_TOO)
    work.write_plan()
    seen = Seen(work, good, "--grade", "works", expect=4)
    assert seen.reached == "same"
    assert "on an empty database it holds too" in seen.named("works", "unknown")

    path = work.objects(good)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    seen = Seen(work, good, "--grade", "works", expect=3)
    assert seen.reached == "stored"
    assert path.name in seen.named("intact", "failed")
    assert "FAILED intact" in work.recoup("list").out


def _with_extension(facts: CopyFacts, database: str) -> CopyFacts:
    assert facts.fingerprint is not None
    facts.fingerprint["databases"][database]["extensions"]["no_such_extension"] = {"version": "1.0"}
    return replace(facts)


def test_a_copy_whose_extension_was_never_installed_here_is_unknown_and_the_extension_named(
    work: Workplace, server_folder: Path
) -> None:
    programs = require_found(lambda: find_postgres(18))
    package = server_folder / "package"
    _make_package(package, programs)
    settings = {"extension_control_path": f"$system:{package}", "dynamic_library_path": f"$libdir:{package}"}
    with PostgresServer(programs, settings=settings) as server:
        name = server.new_database("people")
        with server.connect(name) as connection:
            connection.execute("CREATE EXTENSION soundslike")
            connection.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")
            connection.execute("INSERT INTO people SELECT g, 'name ' || g FROM generate_series(1, 100) g")
            connection.execute("CREATE INDEX by_sound ON people (soundslike(name))")
        work.add_postgres(server, name)
        work.write_plan()
        base, dump = (work.backup("postgres", "--kind", kind) for kind in ("base", "dump"))
    seen = Seen(work, base, "--grade", "sound", expect=4)
    assert seen.reached == "boots"
    assert "soundslike" in seen.named("sound", "unknown")
    seen = Seen(work, dump, "--grade", "sound", expect=4)
    assert seen.reached == "intact"
    assert "soundslike" in seen.named("boots", "unknown")


def _make_package(folder: Path, programs: Programs) -> None:
    """An extension with a library, where only the server that was told of the folder finds it."""
    library = programs.path.parent / "lib" / "fuzzystrmatch.so"
    (folder / "extension").mkdir(parents=True)
    shutil.copy(library, folder / "soundslike.so")
    (folder / "extension" / "soundslike.control").write_text(
        "default_version = '1.0'\nmodule_pathname = 'soundslike'\n"
    )
    (folder / "extension" / "soundslike--1.0.sql").write_text(
        "CREATE FUNCTION soundslike(text) RETURNS text AS 'MODULE_PATHNAME', 'soundex' LANGUAGE C IMMUTABLE STRICT;\n"
    )


def test_damage_inside_a_cluster_is_found_at_sound_and_each_object_named(
    work: Workplace, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {
        "a page of a table zeroed": "public.zeroed_new",
        "the files of two tables swapped": "public.swapped_a",
        "an index entry missing": "public.unlisted_pkey",
        "a foreign key that leads nowhere": "public.line, constraint line_order_id_fkey",
    }
    monkeypatch.setattr(planted_cluster, "DAMAGES", [one for one in DAMAGES if one.name in wanted])
    programs = require_found(lambda: find_postgres(17))
    planted_cluster.prepare(programs, server_folder / "cluster", lambda _: None)
    planted_cluster.plant(programs, server_folder / "cluster")
    with PostgresServer(programs, data_folder=server_folder / "cluster") as server:
        work.add_postgres(server, DATABASE, more=", fingerprint: false")
        work.write_plan()
        copy = work.backup("postgres", "--kind", "base")
    seen = Seen(work, copy, "--grade", "sound", expect=3)
    assert seen.reached == "boots"
    named = seen.named("sound", "failed") + seen.named("sound", "unknown")
    assert [subject for subject in wanted.values() if subject not in named] == []


@pytest.fixture
def archived() -> Iterator[tuple[Workplace, Any, str, str, Path]]:
    """A workplace without a plan, and a repository with two base backups and the WAL between."""
    with new_workplace() as work, temporary_folder("grades") as root:
        repository = repository_in(root / "repository")
        with story(17, [repository]) as told:
            told.commit(2)
            told.archive()
            first = told.base().manifest.id
            told.commit(5, filling=300_000)
            told.archive()
            second = told.base().manifest.id
            told.commit(1)
            told.archive()
            work.environment["PATH"] = f"{told.server.bin}{os.pathsep}{os.environ['PATH']}"
            work.key_file.write_text(KEY.text.reveal() + "\n")
            work.secrets.add(KEY.text.reveal())
            yield work, told, first, second, root / "repository"


def test_a_deleted_wal_segment_is_unknown_and_named(archived: tuple[Workplace, Any, str, str, Path]) -> None:
    work, told, first, second, folder = archived
    options = ("--grade", "same", "--from", str(folder), "--key-file", str(work.key_file))
    before = Seen(work, second, *options, expect=4)  # it has no fingerprint: that alone is unknown
    assert first not in before.named("same", "unknown")
    lost = segments_between(cast(Place, SimpleNamespace(story=told)), told.repositories[0], first, second)[1]
    (folder / lost.key).unlink()
    seen = Seen(work, second, *options, expect=4)
    assert f"from {first} on, WAL segment {lost.name} is missing" in seen.named("same", "unknown")


def test_every_damage_of_a_redis_copy_is_caught_at_its_grade(work: Workplace, redis7: RedisServer) -> None:
    client = redis7.client()
    client.flushall()
    client.mset({f"cart:{number}": f"value {number}" for number in range(40)})
    client.set("marked", "an odd value")
    client.set("goes", 1, exat=4_102_444_800)
    work.add_redis(redis7)
    work.services["redis"] = work.services["redis"].removesuffix("}") + ", checks: [{redis: DBSIZE, at_least: 30}]}"
    work.write_plan()
    try:
        good = work.backup("redis")
        assert Seen(work, good, "--grade", "works", expect=0).reached == "works"
        odd = replaced(b"an odd value", b"an old value")
        changed = backup_tampered(work, "redis", "rdb", lambda data: sealed(odd(data)))
        late, gone = struct.pack("<q", 4_102_444_800_000), struct.pack("<q", 1_700_000_000_000)
        expired = backup_tampered(work, "redis", "rdb", lambda data: sealed(replaced(late, gone)(data)))
        bare = backup_tampered(work, "redis", "rdb", lambda data: unsealed(odd(data)))
    finally:
        client.flushall()
        client.close()
    seen = Seen(work, changed, "--grade", "works", expect=3)
    assert (seen.reached, "string: other content" in seen.named("same", "failed")) == ("sound", True)
    seen = Seen(work, expired, "--grade", "works", expect=3)
    assert "1 that expire before, 0 now" in seen.named("same", "failed")
    seen = Seen(work, bare, "--grade", "works", expect=3)
    assert seen.reached in ("stored", "intact", "boots")
    assert "other content" in seen.named("same", "failed")


def test_too_little_room_and_too_little_time_are_unknown_with_what_was_not_reached(
    work: Workplace, redis7: RedisServer
) -> None:
    work.add_redis(redis7)
    work.write_plan()
    copy = work.backup("redis")
    seen = Seen(work, copy, "--grade", "sound", "--disk", "1MB", expect=4)
    assert seen.reached == "intact"
    assert "it needs about" in seen.named("boots", "unknown")
    assert "976.6 KiB are allowed" in seen.named("boots", "unknown")
    late = Seen(work, copy, "--grade", "sound", "--time", "1ms", expect=4)
    assert late.reached is None
    assert {rung["verdict"] for rung in late.artefact["rungs"]} == {"unknown"}
    assert "the time that was allowed, 1 ms, is over" in late.named("sound", "unknown")
    work.extra = "verify: {after_backup: boots, weekly: sound, budget: {disk: 1MB}}\n"
    work.write_plan()
    assert "there is not enough room" in work.recoup("backup", expect=4).out
    assert "there is not enough room" in work.recoup("verify", "--rhythm", "weekly", expect=4).out
