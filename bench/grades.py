"""What it costs to prove a base backup, grade by grade, beside the same steps by hand; and what a fingerprint costs.

Each grade includes the ones before it, on both sides, so the times of a column grow downwards. By hand, the copy is
an encrypted tar of ``pg_basebackup``, and the steps are those that a careful administrator would put into a script:
they print no findings, close no sandbox, and record nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import OPENSSL, Scene, recoup_backup
from bench.data import fill
from bench.measure import Contender, Say, Series, interleave
from bench.report import Part, speed_data, speed_table
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

_MIB = 1 << 20
_GB = 1e9
_MAJOR = 15
_PORT = 5999
_GRADES = ("stored", "intact", "boots", "sound", "same", "works")
#: What a careful administrator would do by hand to prove as much as a grade does.
_STEPS = {
    "intact": "unpack, pg_verifybackup",
    "boots": "the same, start, select 1",
    "sound": "the same, pg_amcheck --heapallindexed, pg_dump, pg_checksums",
    "works": "the same, a hash sum of each table, a query",
}
_CHECK = "SELECT count(*) FROM orders"

#: For every table: its rows, and a sum over a hash of each row's text, as pgcopydb compares.
_SUMS = (
    "select format('select %L, count(*), sum(hashtextextended(t::text, 0)) from only %s t', c.oid::regclass, "
    "c.oid::regclass) from pg_class c where relkind = 'r' and relnamespace = 'public'::regnamespace \\gexec"
)
#: For every table: an md5 over the md5 of each row, in the order of those.
_MD5 = (
    "select format('select %L, count(*), md5(string_agg(m, '''' order by m)) from (select md5(t::text) as m from only "
    "%s t) x', c.oid::regclass, c.oid::regclass) from pg_class c where relkind = 'r' and relnamespace = "
    "'public'::regnamespace \\gexec"
)
_FINGERPRINT = (
    "import sys; from recoup.engines.postgres.access import DirectAccess; "
    "from recoup.engines.postgres.fingerprint import fingerprint_database; from recoup.kernel.secret import Secret; "
    "session = DirectAccess(Secret(sys.argv[1])).session(); print(len(str(fingerprint_database(session))))"
)


def measure_grades(size_mib: int, rounds: int, work: Path, say: Say) -> list[Part]:
    """Fill a cluster, back it up both ways, and measure each grade; then the fingerprint on the cluster itself."""
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "shared_buffers": "512MB", "archive_mode": "off"}
    with PostgresServer(find_postgres(_MAJOR), settings=settings) as server:
        database = server.new_database("bench")
        say(f"generating {size_mib} MiB")
        size = fill(server.url(database), size_mib)
        scene = Scene.prepare(server, database, work)
        _write_plan(scene)
        scene.run(recoup_backup(scene, plan="grades"))
        scene.fresh("pipe")()
        scene.run(Contender(name="base", argv=_base(scene)))
        grades = interleave([*_recoup(scene), *_by_hand(scene)], rounds, work, say)
        fingerprints = interleave(_fingerprints(scene), rounds, work, say, server.pid)
    about = f"PostgreSQL {_MAJOR}; {size / _MIB:.0f} MiB in the cluster's databases; {rounds} rounds, interleaved."
    return [
        Part(name="grades", about=about, table=_grade_table(grades, size), bars=(), data=speed_data(grades)),
        Part(
            name="fingerprint", about=about, table=speed_table(fingerprints), bars=(), data=speed_data(fingerprints),
            notes=(f"seconds for each GB of the cluster: {_per_gb(fingerprints, size)}",),
        ),
    ]  # fmt: skip


def _per_gb(series: Sequence[Series], size: int) -> str:
    return "; ".join(f"{one.name} {one.median_seconds / (size / _GB):.1f}" for one in series)


def _grade_table(series: Sequence[Series], size: int) -> list[str]:
    """A row for each grade, with the steps by hand that prove as much, where there are such."""
    found = {one.name: one for one in series}
    lines = [
        "| grade, with those before it | s | s for each GB | CPU s | peak MiB | by hand | s | time by Recoup's |",
        "| --- | --: | --: | --: | --: | --- | --: | --- |",
    ]
    for grade in _GRADES:
        ours = found[_verify(grade)]
        cpu = max(sample.cpu_seconds for sample in ours.samples)
        peak = max(sample.peak_mib for sample in ours.samples)
        row = (
            f"| {grade} | {ours.median_seconds:.2f} | {ours.median_seconds / (size / _GB):.1f} | {cpu:.2f} | {peak:.0f}"
        )
        if grade in _STEPS:
            by_hand = found[f"by hand: {_STEPS[grade]}"]
            low, middle, high = ours.ratio_to(by_hand)
            row += f" | {_STEPS[grade]} | {by_hand.median_seconds:.2f} | {low:.2f} / **{middle:.2f}** / {high:.2f} |"
        else:
            row += " | – | – | – |"
        lines.append(row)
    return lines


def _verify(grade: str) -> str:
    return f"recoup verify --grade {grade}"


def _write_plan(scene: Scene) -> None:
    work = scene.work
    (work / "grades.yaml").write_text(
        f"recoup: 1\nsystem: grades\nkey: {{file: {work}/key}}\nrepositories:\n  local: {{path: {work}/grades}}\n"
        f"services:\n  postgres:\n    engine: postgres\n    url: '{scene.server.url(scene.database)}'\n"
        f"    databases: [{scene.database}]\n    checks: [{{sql: '{_CHECK}', at_least: 1}}]\n"
        "verify: {after_backup: stored}\n"
    )


def _recoup(scene: Scene) -> list[Contender]:
    return [
        Contender(
            name=_verify(grade),
            argv=scene.recoup("verify", "--grade", grade, plan="grades"),
            environment=scene.environment(),
        )
        for grade in _GRADES
    ]


def _base(scene: Scene) -> str:
    server, target = scene.server, scene.work / "pipe" / "base.tar.zst.enc"
    return (
        f"{server.bin}/pg_basebackup -d '{server.url(scene.database)}' -Ft -X fetch -c fast -D - | zstd -q -3 -T2 "
        f"| {OPENSSL} -salt -pass file:{scene.work}/key -out {target} && chmod 644 {target} {scene.work}/key"
    )


def _by_hand(scene: Scene) -> list[Contender]:
    """Each one does what the one before it does, and the next step."""
    programs, target, place = scene.server.bin, scene.work / "restored", scene.work / "pipe"
    at = f"-h {target} -p {_PORT} -U {scene.server.user}"
    unpack = (
        f"chmod 700 {target} && {OPENSSL} -d -pass file:{scene.work}/key -in {place}/base.tar.zst.enc | zstd -q -d "
        f"| tar -x -C {target} && {programs}/pg_verifybackup -q -n {target}"
    )
    start = (
        f"echo 'local all all trust' > {target}/hba && {programs}/pg_ctl -s -w -D {target} -l {target}/log -o \"-p "
        f"{_PORT} -c listen_addresses='' -c unix_socket_directories={target} -c hba_file={target}/hba -c fsync=off "
        f'-c archive_mode=off" start && {programs}/psql -X -q {at} -d {scene.database} -c "select 1"'
    )
    stop = f"{programs}/pg_ctl -s -w -D {target} -m fast stop"
    sound = f"{programs}/pg_amcheck {at} -d {scene.database} --install-missing --heapallindexed"
    rows = f"{programs}/pg_dump {at} -d {scene.database} > /dev/null"
    pages = f"{programs}/pg_checksums --check -D {target}"
    sums = f'echo "{_escaped(_SUMS)}" | {programs}/psql -X -q -A -t {at} -d {scene.database}'
    question = f'{programs}/psql -X -q -A -t {at} -d {scene.database} -c "{_CHECK}"'
    scripts = {
        "intact": unpack,
        "boots": f"{unpack} && {start} && {stop}",
        "sound": f"{unpack} && {start} && {sound} && {rows} && {stop} && {pages}",
        "works": f"{unpack} && {start} && {sound} && {rows} && {sums} && {question} && {stop} && {pages}",
    }
    return [
        Contender(name=f"by hand: {_STEPS[grade]}", argv=argv, prepare=scene.fresh("restored"), user=scene.owner)
        for grade, argv in scripts.items()
    ]


def _fingerprints(scene: Scene) -> list[Contender]:
    server = scene.server
    url = server.url(scene.database)
    psql = f"{server.bin}/psql -X -q -A -t -d '{url}'"
    return [
        Contender(name="recoup's fingerprint", argv=[sys.executable, "-c", _FINGERPRINT, url]),
        Contender(name="a hash sum of each table, by text", argv=f'echo "{_escaped(_SUMS)}" | {psql}'),
        Contender(name="md5 of each row, and of all of them, sorted", argv=f'echo "{_escaped(_MD5)}" | {psql}'),
        Contender(name="pg_dump, sha256sum", argv=f"{server.bin}/pg_dump -d '{url}' | sha256sum"),
        Contender(name="pg_dump > /dev/null", argv=f"{server.bin}/pg_dump -d '{url}' > /dev/null"),
    ]


def _escaped(text: str) -> str:
    """For double quotes of a shell."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
