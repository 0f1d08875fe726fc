"""The demo: a production is protected, goes on, is lost, and comes back from what was kept elsewhere.

Read it from top to bottom. Every act on copies goes through the functions that the commands call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.protect.copies import Options, Protected, choose_tasks, protect
from recoup.assembly.restore.copy import restore
from recoup.assembly.restore.job import Job, Report, Wish
from recoup.assembly.system import System
from recoup.backup.take import Taken
from recoup.demo import marketplace, proof
from recoup.demo.production import DATABASE, OFFSITE, Production, open_production
from recoup.engines.engine import Progress
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, Exit
from recoup.kernel.files import write_atomically
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.units import show_duration, show_size
from recoup.objectives.objective import Attainment, Measured, Objective, attainment
from recoup.recovery.in_place import Consent
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.manifest import Manifest
from recoup.repository.seal import Key

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What there was when the disaster came."""

    tables: Mapping[str, int]  #: rows by quoted name
    files: Mapping[str, bytes]
    written: marketplace.Written  #: after the last copy
    disaster: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the demo ended. ``exit_code`` is 0 only when everything came back and every promise was kept."""

    findings: tuple[Finding, ...]
    tables: tuple[proof.TableCount, ...]
    lost: marketplace.Written
    recovery_time: timedelta
    lost_data: timedelta
    objective: Objective
    attainment: Attainment

    @property
    def exit_code(self) -> Exit:
        """OK, or BAD when something differs, is missing, came too late or could not be compared."""
        counts_equal = bool(self.tables) and all(table.equal for table in self.tables)
        kept = self.attainment.rto is Verdict.OK and self.attainment.rpo is Verdict.OK
        return Exit.OK if overall(self.findings) is Verdict.OK and counts_equal and kept else Exit.BAD


def tell(say: Say, *, afterwards: Callable[[Production], None] | None = None) -> Outcome:
    """Run the whole demo, saying what happens, and report. ``afterwards`` is called while all is still up.

    Raise ``RecoupError`` when a step fails. Whatever happens, nothing stays behind.
    """
    begun = clock.monotonic()
    with open_production() as production:
        _introduce(production, say, begun)
        copies = protect_all(production, say)
        written = marketplace.write_some_more(production.postgres.url(DATABASE), production.redis.url())
        say("")
        say(f"3. Life goes on: {_written(written)}.")
        before = Before(
            tables=proof.count_tables(production.postgres, DATABASE),
            files=proof.read_files(production.configuration),
            written=written,
            disaster=clock.now(),
        )
        started = clock.monotonic()
        production.lose()
        say("")
        say("4. Disaster: both servers are dead, their data folders deleted,")
        say("   the configuration and the local repository with all its copies as well.")
        recover_all(production, say)
        outcome = prove_all(production, copies, before, timedelta(seconds=clock.monotonic() - started))
        _report(outcome, say)
        say("")
        say(f"The demo took {show_duration(clock.monotonic() - begun)}.")
        if afterwards is not None:
            afterwards(production)
    return outcome


def _introduce(production: Production, say: Say, begun: float) -> None:
    postgres, redis = production.postgres, production.redis
    client = redis.client()
    try:
        redis_version = client.info("server")["redis_version"]
    finally:
        client.close()
    version = postgres.execute("SHOW server_version")[0][0].split(" ")[0]
    say(f"1. A production: PostgreSQL {version}, Redis {redis_version} (append-only), S3 with Object Lock,")
    say(f"   on 127.0.0.1, started in {show_duration(clock.monotonic() - begun)}.")
    began = clock.monotonic()
    loaded = marketplace.load(postgres.url(DATABASE), redis.url())
    say(f"   A marketplace: {loaded.rows:,} rows in {len(loaded.added)} tables, {loaded.redis_keys:,} keys,")
    say(f"   loaded in {show_duration(clock.monotonic() - began)}.")


def protect_all(production: Production, say: Say) -> dict[tuple[str, str], Manifest]:
    """Take every copy that the plan schedules, into every repository. Raise when one is not done and proven."""
    write_atomically(production.key, Key.generate().text.reveal().encode() + b"\n")
    system = System.from_file(production.plan)
    say("")
    say("2. Protected, encrypted, into a folder and an S3 bucket; read back and checked:")
    copies = {}
    for task in choose_tasks(system, [], None):
        result = protect(system, task, Options(label="demo"), _silent)
        taken = _require_done(result)
        copies[task.service, task.kind] = taken.outcome.manifest
        manifest = taken.outcome.manifest
        say(
            f"   {task.service:<14}{task.kind:<6}{show_size(manifest.plain_bytes):>10} -> "
            f"{show_size(manifest.stored_bytes):<10} in {', '.join(taken.outcome.stored_in)}  "
            f"{show_duration(taken.seconds)}"
        )
    return copies


def _require_done(result: Protected) -> Taken:
    if result.error is not None or result.taken is None:
        raise result.error or DamageError(f"there is no {result.task.kind} of {result.task.service}")
    for error in (*result.unopened.values(), *result.taken.outcome.failed.values()):
        raise error
    if result.verification is None or result.verification.verdict is not Verdict.OK:
        raise DamageError(f"the {result.task.kind} of {result.task.service} did not pass its verification")
    return result.taken


def recover_all(production: Production, say: Say) -> None:
    """Bring everything back from the S3 bucket and start it. Raise when a restore is not right."""
    say("")
    say("5. Recovery from the S3 bucket alone:")
    opened = open_for_reading(production.plan, OFFSITE, None)
    _restore(opened, "configuration", "files", str(production.folder), say)
    _restore(opened, "postgres", "base", str(production.postgres.data_folder), say)
    production.postgres.adopt()
    production.postgres.start()
    production.postgres.execute("SELECT count(*) FROM orders", DATABASE)
    _restore(opened, "redis", "rdb", str(production.redis.folder), say)
    production.redis.start()
    say("   Both servers answer.")


def _restore(opened: Readable, service: str, kind: str, destination: str | None, say: Say) -> Report:
    began = clock.monotonic()
    found = opened.find("latest", service=service, kinds=(kind,))
    consent = Consent(yes=True)
    job = Job(
        opened=opened,
        found=found,
        reader=ArtefactReader(found.manifest, found.holders),
        wish=Wish(destination=destination),
        consent=consent,
        say=say,
        on_progress=_silent,
    )
    report = restore(job)
    bad = [finding for finding in report.findings if finding.verdict is not Verdict.OK]
    if bad:
        raise DamageError(f"the restore of {service} is not right: {bad[0].check}: {bad[0].detail}")
    say(f"   {service:<14}{kind:<6}restored in {show_duration(clock.monotonic() - began)}")
    return report


def prove_all(
    production: Production,
    copies: Mapping[tuple[str, str], Manifest],
    before: Before,
    recovery_time: timedelta,
) -> Outcome:
    """Compare everything with what was copied, and the time it took with what was promised."""
    base, rdb = copies["postgres", "base"], copies["redis", "rdb"]
    findings = [
        *proof.prove_postgres(base.fingerprint, production.postgres.url(DATABASE)),
        *proof.prove_redis(rdb.fingerprint, production.redis.url()),
        *proof.prove_still_append_only(production.redis.url()),
        *proof.prove_files(before.files, production.configuration),
        *proof.prove_locked(production.s3.client(), production.bucket),
    ]
    restored = proof.count_tables(production.postgres, DATABASE)
    tables = tuple(
        proof.TableCount(
            name=name.replace('"', "").removeprefix("public."),
            copied=copied,
            lost=before.tables.get(name, 0),
            restored=restored.get(name, 0),
        )
        for name, copied in proof.copied_tables(base.fingerprint, DATABASE).items()
    )
    # From the beginning of the older copy: what was written while it was taken may or may not be in it.
    lost_data = before.disaster - min(base.begun, rdb.begun)
    objective = System.from_file(production.plan).plan.objective("postgres")
    kept = attainment(objective, Measured(recovery_time=recovery_time, lost_data=lost_data))
    return Outcome(
        findings=tuple(findings),
        tables=tables,
        lost=before.written,
        recovery_time=recovery_time,
        lost_data=lost_data,
        objective=objective,
        attainment=kept,
    )


def _report(outcome: Outcome, say: Say) -> None:
    say("")
    say("6. Compared with the fingerprints of the copies:")
    say(f"           {'rows of':<20}{'copied':>9}{'deleted':>9}{'restored':>10}")
    for table in outcome.tables:
        verdict = "ok" if table.equal else "FAILED"
        say(f"   {verdict:<8}{table.name:<20}{table.copied:>9,}{table.lost:>9,}{table.restored:>10,}")
    for finding in outcome.findings:
        verdict = finding.verdict.value if finding.verdict is Verdict.OK else finding.verdict.value.upper()
        say(f"   {verdict:<8}{finding.subject}: {finding.detail}")
    say("")
    say(f"   Lost: what was written after the last copy: {_written(outcome.lost)}.")
    promised, kept = outcome.objective, outcome.attainment
    for name, measured, limit, verdict in (
        ("RTO", outcome.recovery_time, promised.rto, kept.rto),
        ("RPO", outcome.lost_data, promised.rpo, kept.rpo),
    ):
        what = "recovery took" if name == "RTO" else "age of the data"
        limit_text = "nothing" if limit is None else show_duration(limit)
        mark = "ok" if verdict is Verdict.OK else "MISSED"
        say(f"   {mark:<8}{name}: {what} {show_duration(measured)}, promised: {limit_text} at most")
    say("")
    say("RESULT: everything that was copied is back." if outcome.exit_code is Exit.OK else "RESULT: FAILED, see above.")


def _written(written: marketplace.Written) -> str:
    return (
        f"{sum(written.added.values()):,} rows added, {sum(written.changed.values()):,} changed, "
        f"{sum(written.deleted.values()):,} deleted, {written.redis_keys:,} keys of Redis written"
    )


def _silent(_progress: Progress, /) -> None:
    return None
