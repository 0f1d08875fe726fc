"""Damage of every kind planted into real clusters: each is found and its object named, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recoup.demo.host import ordinary_user, reachable
from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.sandbox_server import SandboxServer, start_sandbox_server
from recoup.engines.postgres.session import Session
from recoup.engines.postgres.soundness import check_soundness
from recoup.engines.postgres.soundness_amcheck import check_by_amcheck
from recoup.engines.postgres.soundness_ask import Budget, Examiner
from recoup.engines.postgres.soundness_checksums import check_checksums
from recoup.engines.postgres.soundness_keys import Excluded, check_exclusions, check_foreign_keys, excluded_pairs
from recoup.engines.sandbox import Sandbox, open_sandbox
from recoup.kernel.finding import Finding, Verdict, overall
from tests.architecture.sources import ROOT
from tests.integration import planted_cluster
from tests.integration.logical import direct, nasty_database
from tests.integration.planted_damage import DAMAGES, fitting
from tests.real import require_found

pytestmark = pytest.mark.postgres
OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN
LONG = 600.0
MAJORS = (15, 16, 17, 18)
WITHOUT_AMCHECK = 16  #: the programs these tests have of it come without the contrib extensions


@dataclass(kw_only=True)
class Lab:
    """One major version: a sandbox with a healthy cluster in it."""

    major: int
    programs: Programs
    sandbox: Sandbox
    findings: list[Finding] = field(default_factory=list)  #: of the damaged cluster, once it was looked at

    @property
    def healthy(self) -> Path:
        return self.sandbox.folder / "healthy"

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.healthy, self.sandbox.folder / name, symlinks=True))

    @contextlib.contextmanager
    def server(self, folder: Path) -> Iterator[SandboxServer]:
        for path in (folder, *folder.rglob("*")):
            if self.sandbox.user is not None:
                os.chown(path, *self.sandbox.user)
        folder.chmod(0o700)
        place = reachable(self.programs.path, self.programs.package, ordinary_user())
        with start_sandbox_server(self.sandbox, folder, major=self.major, programs=[place]) as server:
            yield server

    def damaged(self) -> list[Finding]:
        if not self.findings:
            folder = self.copy("damaged")
            planted_cluster.plant(self.programs, folder)
            with self.server(folder) as server:
                self.findings = check_soundness(server, allowed_seconds=LONG)
                assert "broken" not in server.databases(), "a database that was closed is closed again"
        return self.findings


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Lab]]:
    with contextlib.ExitStack() as until_done:
        made = {}
        for major in MAJORS:
            programs = require_found(lambda major=major: find_postgres(major))  # type: ignore[misc]
            sandbox = until_done.enter_context(open_sandbox(tmp_path_factory.mktemp("soundness"), "test"))
            made[major] = Lab(major=major, programs=programs, sandbox=sandbox)
            planted_cluster.prepare(programs, made[major].healthy, nasty_database)
        yield made


@pytest.fixture(params=MAJORS, ids=lambda major: f"postgres{major}")
def lab(labs: dict[int, Lab], request: pytest.FixtureRequest) -> Lab:
    return labs[request.param]


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is not OK]


def test_an_undamaged_cluster_with_everything_in_it_is_sound_and_stays_as_it_is(lab: Lab) -> None:
    with lab.server(lab.healthy) as server:
        before = _fingerprints(server)
        found = check_soundness(server, allowed_seconds=LONG)
        assert _fingerprints(server) == before
    if lab.major == WITHOUT_AMCHECK:
        assert {finding.verdict for finding in bad(found)} == {UNKNOWN}
        assert all("extension amcheck" in finding.subject and finding.hint for finding in bad(found))
    else:
        assert bad(found) == []
        assert overall(found) is OK
    assert "1 tables with pages of zeros" in {finding.detail for finding in found}
    said = " ".join(finding.not_checked for finding in found)
    assert "whether the values are the right ones" in said
    assert "public.never_filled" in said
    assert "public.sessions" in said


def _fingerprints(server: SandboxServer) -> list[object]:
    found: list[object] = []
    for database in server.databases():
        with server.session(database) as session:
            found.append(fingerprint_database(session))
    return found


def test_every_planted_damage_is_found_and_its_object_named(lab: Lab) -> None:
    found = lab.damaged()
    assert overall(found) is FAILED
    seen = planted_cluster.seen(found, lab.major)
    hidden = {damage.name for damage in DAMAGES if damage.hidden}
    if lab.major == WITHOUT_AMCHECK:  # then the extension is named, and nothing is green
        assert any("extension amcheck" in finding.subject for finding in bad(found))
        hidden |= {"an index of a function that changed"}
    assert {name for name, checks in seen.items() if not checks} == hidden


#: What a damage brings with it: the indexes of a damaged table, the other of two, and all that a lost type is part of.
BROUGHT_ALONG = (
    "public.no_overlap",
    "public.swapped_b",
    "public.part_2",
    "public.extended",
    "public.sorted_pkey",
    "broken",
)
INNOCENT = ("public.orders", "public.whole", "public.days", "public.counted_pkey", "public.rooms")


def test_nothing_is_blamed_that_is_not_damaged(lab: Lab) -> None:
    known = [fitting(damage.subject, lab.major) for damage in DAMAGES]
    known += [subject.removesuffix("_pkey") for subject in known]
    known += [*BROUGHT_ALONG, "extension amcheck"]
    blamed = {finding.subject for finding in bad(lab.damaged())}
    assert {subject for subject in blamed if not any(part in subject for part in known)} == set()
    assert {subject for subject in blamed if any(part in subject for part in INNOCENT)} == set()
    # What only this machine lacks is never called damage.
    lacking = {finding.verdict for finding in bad(lab.damaged()) if "public.sorted_pkey" in finding.subject}
    assert lacking <= {UNKNOWN}


def test_the_page_says_which_damage_is_seen_by_what(labs: dict[int, Lab]) -> None:
    seen = {major: planted_cluster.seen(lab.damaged(), major) for major, lab in labs.items()}
    assert seen[15] == seen[17] == seen[18]
    table = planted_cluster.as_table(seen[17], seen[WITHOUT_AMCHECK])
    assert table in (ROOT / "docs/reference/damage.md").read_text(), f"the page needs this table:\n{table}"


def test_a_flipped_bit_is_seen_by_the_checksums_and_its_table_named(lab: Lab) -> None:
    folder = lab.copy("flipped")
    table = planted_cluster.flip_one(lab.programs, folder)
    with lab.server(folder) as server:
        (found,) = check_checksums(server, Budget(LONG))
    assert found.verdict is FAILED
    assert found.subject == f"shop: {table}"
    assert "the first is page 0" in found.detail


def test_what_is_not_reached_in_time_is_named_and_unknown(labs: dict[int, Lab]) -> None:
    with labs[17].server(labs[17].healthy) as server:
        found = check_soundness(server, allowed_seconds=0)
    assert {finding.verdict for finding in bad(found)} == {UNKNOWN}
    assert {finding.check for finding in found} - {finding.check for finding in bad(found)} <= {
        "every page has its checksum"
    }
    assert "the time allowed" in bad(found)[0].detail


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the checks of one database need of a server, over one that is shared by all tests."""

    shared: PostgresServer

    @property
    def major(self) -> int:
        return self.shared.major

    def session(self, database: str = "postgres") -> Session:
        return direct(self.shared).session(database)


def test_periods_and_what_is_not_enforced_are_understood(postgres18: PostgresServer) -> None:
    name = postgres18.new_database()
    with postgres18.connect(name) as connection:
        connection.execute(
            "CREATE TABLE rooms (id int4range, open daterange, UNIQUE (id, open WITHOUT OVERLAPS));"
            "CREATE TABLE stays (id int4range, at daterange, FOREIGN KEY (id, PERIOD at) "
            "REFERENCES rooms (id, PERIOD open));"
            "CREATE TABLE lax (id int4range, at daterange, CHECK (isempty(at)) NOT ENFORCED);"
            "INSERT INTO rooms VALUES ('[1,1]', '[2026-01-01,2026-02-01)'), ('[1,1]', '[2026-02-01,2026-03-01)');"
            "INSERT INTO stays VALUES ('[1,1]', '[2026-01-20,2026-02-10)');"
            "INSERT INTO lax VALUES (NULL, '[2026-01-01,)')"
        )
        examiner = Examiner(Asked(shared=postgres18), name, Budget(LONG))  # type: ignore[arg-type]
        assert overall([*check_foreign_keys(examiner), *check_exclusions(examiner)]) is OK
        connection.execute("SET session_replication_role = replica")
        connection.execute("INSERT INTO stays VALUES ('[1,1]', '[2026-02-20,2026-03-10)')")
        (found,) = bad(check_foreign_keys(examiner))
        assert found.subject == f"{name}: public.stays, constraint stays_id_at_fkey"
        assert found.detail.startswith("1 row ")
        examiner.close()


def test_an_amcheck_of_the_copy_is_used_when_it_can_and_named_when_it_is_too_old(postgres15: PostgresServer) -> None:
    name = postgres15.new_database()
    postgres15.execute('CREATE SCHEMA "odd one"', name)
    for version, verdict in (("1.3", OK), ("1.2", UNKNOWN)):
        postgres15.execute(f"CREATE EXTENSION amcheck SCHEMA \"odd one\" VERSION '{version}'", name)
        examiner = Examiner(Asked(shared=postgres15), name, Budget(LONG))  # type: ignore[arg-type]
        found, used = check_by_amcheck(examiner, shared=False)
        examiner.close()
        assert overall(found) is verdict
        assert used is (verdict is OK)
        left = postgres15.execute("SELECT extversion FROM pg_extension WHERE extname = 'amcheck'", name)
        assert left == [(version,)]
        postgres15.execute("DROP EXTENSION amcheck", name)
    assert "version 1.2" in found[0].detail
    assert "UPDATE" in str(found[0].hint)


def test_overlaps_are_found_among_neighbours_just_when_comparing_all_finds_them(postgres15: PostgresServer) -> None:
    parts = [
        Excluded(expression="who", operator="OPERATOR(pg_catalog.=)", equals=True),
        Excluded(expression="during", operator="OPERATOR(pg_catalog.&&)", overlaps=True),
    ]
    by_neighbours = excluded_pairs("pg_temp.booked", parts, None)
    by_all = excluded_pairs("pg_temp.booked", [parts[0], Excluded(expression="during", operator="&&")], None)
    answers = set()
    with postgres15.connect() as connection:
        connection.execute("CREATE TEMP TABLE booked (who int, during int4range)")
        for seed in range(40):
            connection.execute("TRUNCATE booked")
            connection.execute("SELECT setseed(%s)", [seed / 100])
            connection.execute(
                "INSERT INTO booked SELECT nullif((random() * 4)::int, 0), CASE WHEN random() < 0.1 THEN 'empty' "
                "ELSE int4range(a, a + (random() * 6)::int, '[]') END "
                "FROM (SELECT (random() * 300)::int AS a FROM generate_series(1, 12)) r"
            )
            one, other = (connection.execute(sql.encode()).fetchone() for sql in (by_neighbours, by_all))
            assert one is not None
            assert other is not None
            assert (one[0] > 0) == (other[0] > 0)
            answers.add(one[0] > 0)
    assert answers == {True, False}
