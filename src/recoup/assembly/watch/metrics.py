"""How everything stands as metrics for Prometheus: a text, a file for node_exporter, or served over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from recoup.assembly.watch.survey import Survey
from recoup.kernel.errors import RecoupError
from recoup.kernel.files import write_atomically
from recoup.kernel.finding import Verdict
from recoup.objectives.alarms import Alarm

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_NUMBER = {Verdict.OK: 1, Verdict.FAILED: 0, Verdict.UNKNOWN: -1}


def families(found: Survey, present: Sequence[Alarm]) -> list[Metric]:
    """Every metric, with its values. What is not known has no value, so that nothing unknown looks well."""
    return [
        *_of_services(found),
        *_of_proofs(found),
        *_of_drills(found),
        *_of_runs(found),
        *_of_repositories(found),
        *_of_the_whole(found, present),
    ]


def to_text(metrics: Sequence[Metric]) -> bytes:
    """In Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Collected:
        def collect(self) -> Iterator[Metric]:
            return iter(metrics)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return generate_latest(registry)


def write_textfile(path: Path, metrics: Sequence[Metric]) -> None:
    """Replace a file for node_exporter's textfile collector, whole. Raise ``RecoupError`` when it cannot be written."""
    try:
        write_atomically(path, to_text(metrics), mode=0o644)
    except OSError as failure:
        raise RecoupError(
            f"cannot write the metrics to {path}: {failure.strerror or failure}",
            hint="Name a file in a folder that this user may write to, and node_exporter may read.",
        ) from failure


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"recoup_{name}", text, labels=list(labels))


def _of_services(found: Survey) -> Iterator[Metric]:
    service = ("system", "service")
    verdict = _gauge("objective_met", "1 the RPO is kept now, 0 it is not, -1 unknown.", service)
    now = _gauge("rpo_seconds", "What would be lost if the service were lost now.", service)
    limit = _gauge("rpo_objective_seconds", "What may be lost.", service)
    worst = _gauge("rpo_worst_seconds", "The most that would have been lost in the last 30 days.", service)
    good = _gauge("last_good_copy_timestamp_seconds", "When the newest good copy was begun.", service)
    proven = _gauge("last_proven_copy_timestamp_seconds", "When the newest copy that was proven was begun.", service)
    copies = _gauge("copies", "Copies in the repositories that answered.", service)
    stream = (*service, "stream")
    lag = _gauge("stream_lag_seconds", "How far a stream is behind.", stream)
    running = _gauge("stream_running", "1 the stream runs, 0 it does not.", stream)
    gap = _gauge("stream_gap", "1 a part is missing since the newest copy.", stream)
    held = _gauge("slot_held_bytes", "WAL that the replication slot holds on the server.", service)
    for one in found.facts.services:
        labels = (found.system, one.name)
        verdict.add_metric(labels, _NUMBER[one.standing.verdict])
        copies.add_metric(labels, len(one.points))
        if one.standing.rpo_now is not None:
            now.add_metric(labels, one.standing.rpo_now.total_seconds())
        if one.objective.rpo is not None:
            limit.add_metric(labels, one.objective.rpo.total_seconds())
        if one.standing.worst is not None:
            worst.add_metric(labels, one.standing.worst.total_seconds())
        if one.standing.last_good is not None:
            good.add_metric(labels, one.standing.last_good.at.timestamp())
        if one.standing.last_proven is not None:
            proven.add_metric(labels, one.standing.last_proven.at.timestamp())
        for each in one.streams:
            if each.as_of is not None:
                lag.add_metric((*labels, each.kind), max(0.0, (found.facts.now - each.as_of).total_seconds()))
            running.add_metric((*labels, each.kind), float(each.state == "running"))
            gap.add_metric((*labels, each.kind), float(each.gap is not None))
            if each.slot_bytes is not None:
                held.add_metric(labels, each.slot_bytes)
    yield from (verdict, now, limit, worst, good, proven, copies, lag, running, gap, held)


def _of_proofs(found: Survey) -> Iterator[Metric]:
    kind = ("system", "service", "kind")
    proven = _gauge("proof_timestamp_seconds", "When a copy of this kind was last proven to this grade.",
                    (*kind, "grade"))  # fmt: skip
    due = _gauge("proof_due_timestamp_seconds", "When the newest such proof is too old for the plan.", (*kind, "grade"))
    failed = _gauge("proof_failed", "1 the newest copy of this kind failed its verification, 0 it did not.", kind)
    for one in found.facts.services:
        for latest in one.latest:
            proven.add_metric((found.system, one.name, latest.kind, latest.grade), latest.when.timestamp())
        for renewal in one.renewals:
            due.add_metric((found.system, one.name, renewal.kind, renewal.grade), renewal.due.timestamp())
        newest = {point.kind: point for point in sorted(one.points, key=lambda point: point.at)}
        for name, point in newest.items():
            proof = one.proofs.get(point.id)
            if proof is not None and proof.verdict is not Verdict.UNKNOWN:
                failed.add_metric((found.system, one.name, name), float(proof.verdict is Verdict.FAILED))
    oldest = _gauge("oldest_byte_read_timestamp_seconds", "When the stored byte was read that was read longest ago.",
                    ("system",))  # fmt: skip
    late = _gauge("unread_bytes", "Stored bytes that were not read for as long as the plan wants.", ("system",))
    coverage = found.facts.coverage
    if coverage is not None and coverage.oldest is not None:
        oldest.add_metric((found.system,), coverage.oldest.timestamp())
    if coverage is not None and coverage.within is not None:
        late.add_metric((found.system,), coverage.late_bytes)
    yield from (proven, due, failed, oldest, late)


def _of_drills(found: Survey) -> Iterator[Metric]:
    drill = ("system", "situation")
    held = _gauge("drill_timestamp_seconds", "When the last drill of this situation was declared.", drill)
    verdict = _gauge("drill_ok", "1 it passed, 0 it failed, -1 it could not establish everything.", drill)
    took = _gauge("drill_recovery_seconds", "From its declaration until the users were healthy.", drill)
    limit = _gauge("drill_recovery_objective_seconds", "How long that may take.", drill)
    lost = _gauge("drill_lost_seconds", "The age of the newest record that survived, of the worst service.", drill)
    until = _gauge("drill_proof_until_timestamp_seconds", "When the last drill proves the plan no more.", ("system",))
    records = () if found.drills is None else found.drills.records
    newest = {one.situation: one for one in reversed(records)}
    for situation, one in newest.items():
        labels = (found.system, situation)
        held.add_metric(labels, one.declared.timestamp())
        verdict.add_metric(labels, _NUMBER[one.verdict])
        if one.rto.measured is not None:
            took.add_metric(labels, one.rto.measured.total_seconds())
        if one.rto.objective is not None:
            limit.add_metric(labels, one.rto.objective.total_seconds())
        if one.lost is not None:
            lost.add_metric(labels, one.lost.total_seconds())
    rehearsed = found.facts.rehearsed
    if rehearsed is not None and rehearsed.until is not None:
        until.add_metric((found.system,), rehearsed.until.timestamp())
    yield from (held, verdict, took, limit, lost, until)


def _of_runs(found: Survey) -> Iterator[Metric]:
    task = ("system", "service", "kind")
    failed = _gauge("run_failed", "1 the last run failed or could not be checked, 0 it ended well.", task)
    failures = _gauge("run_failures", "Runs that failed in a row.", task)
    started = _gauge("run_started_timestamp_seconds", "When the last run began.", task)
    ahead = _gauge("run_next_timestamp_seconds", "When the next run begins, or should have begun.", task)
    runs = [(one.name, run) for one in found.facts.services for run in one.runs]
    for service, run in [*runs, *(("", run) for run in found.facts.runs)]:
        labels = (found.system, service, run.kind)
        if run.outcome in ("ok", "failed", "unknown"):
            failed.add_metric(labels, float(run.outcome != "ok"))
            failures.add_metric(labels, run.failures)
        if run.started is not None:
            started.add_metric(labels, run.started.timestamp())
        late = run.due is not None and run.due < found.facts.now
        begins = run.due if late else run.next
        if begins is not None and run.outcome != "running":
            ahead.add_metric(labels, begins.timestamp())
    yield from (failed, failures, started, ahead)


def _of_repositories(found: Survey) -> Iterator[Metric]:
    place = ("system", "repository")
    up = _gauge("repository_up", "1 the repository answered and opened, 0 it did not.", place)
    used = _gauge("repository_used_bytes", "What all copies and streams occupy.", place)
    free = _gauge("repository_free_bytes", "Room on the disk of a local repository.", place)
    full = _gauge("repository_full_days", "In how many days that disk is full at the growth of 30 days.", place)
    problems = _gauge("repository_problems", "Manifests that cannot be believed.", place)
    for one in found.facts.repositories:
        labels = (found.system, one.name)
        up.add_metric(labels, float(one.error is None))
        problems.add_metric(labels, len(one.problems))
        if one.used_bytes is not None:
            used.add_metric(labels, one.used_bytes)
        if one.free_bytes is not None:
            free.add_metric(labels, one.free_bytes)
        if one.days_until_full is not None:
            full.add_metric(labels, one.days_until_full)
    yield from (up, used, free, full, problems)


def _of_the_whole(found: Survey, present: Sequence[Alarm]) -> Iterator[Metric]:
    daemon = _gauge("daemon_running", "1 the daemon said so within two minutes.", ("system",))
    daemon.add_metric((found.system,), float(found.facts.daemon == "running"))
    key = _gauge("key_usable", "1 the key is there.", ("system",))
    key.add_metric((found.system,), float(found.facts.key_error is None))
    alarms = _gauge("alarms", "Conditions that somebody must look at.", ("system", "severity"))
    for severity in ("critical", "warning"):
        alarms.add_metric((found.system, severity), sum(one.severity == severity for one in present))
    skew = _gauge("clock_skew_seconds", "How far another clock is ahead of this machine's.", ("system", "of"))
    for name, one in found.facts.skews.items():
        skew.add_metric((found.system, name), one.total_seconds())
    looked = _gauge("status_timestamp_seconds", "When all this was found out.", ("system",))
    looked.add_metric((found.system,), found.facts.now.timestamp())
    yield from (daemon, key, alarms, skew, looked)


class MetricsServer:
    """Serves ``/metrics`` at an address as ``127.0.0.1:9187``, from the last that it was shown."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._shown = b""
        shown = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                shown.answer(self)

            def log_message(self, *_: object) -> None:
                return

        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        except OSError as failure:
            raise RecoupError(
                f"cannot serve metrics at {address}: {failure.strerror or failure}",
                hint="Choose another address under `metrics:` in the plan, or end what listens there.",
            ) from failure
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def show(self, metrics: Sequence[Metric]) -> None:
        """What is served from now on."""
        self._shown = to_text(metrics)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        found = request.path.split("?")[0] == "/metrics"
        body = self._shown if found else b"the metrics are at /metrics\n"
        status = 404 if not found else 200 if body else 503
        request.send_response(status)
        request.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
