"""The report on a drill as PDF, by typst (https://typst.app), which the extra ``recoup[pdf]`` installs.

What is said travels as data and is never read as typst's language: ``report.typ`` holds the looks only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from importlib import resources
from typing import Any, Final

from recoup.drill.model import DrillRecord, verdicts
from recoup.drill.page import strictest
from recoup.drill.plot import Point, described, plot
from recoup.drill.report import HEADLINES, Report, against, in_words, lost_of, outlook, tried
from recoup.kernel.errors import RecoupError, UncheckedError
from recoup.kernel.finding import Finding

_FONT: Final = "font-family:'Libertinus Serif','DejaVu Serif',serif"
_STYLE: Final = f"""text{{font-size:12px;fill:#4a5561;{_FONT}}} .name{{font-size:14px;font-weight:bold;fill:#000}}
.promised{{fill:#000}} .grid{{stroke:#b8c1cb}} .promise{{stroke:#000;stroke-width:1.5;stroke-dasharray:6 4}}
.way{{fill:none;stroke:#3b6ea8;stroke-width:1.5}} .good{{fill:#3b6ea8}}
.bad{{fill:#fff;stroke:#a61b1b;stroke-width:2.5}} .cross{{stroke:#a61b1b;stroke-width:2.5;fill:none}}"""


def pdf(report: Report) -> bytes:
    """The report as PDF. Raise ``UncheckedError`` when typst is not installed, ``RecoupError`` when it fails."""
    require_typst()
    import typst

    template = resources.files("recoup.drill").joinpath("report.typ").read_bytes()
    try:
        made = typst.compile(template, format="pdf", sys_inputs={"report": json.dumps(_data(report))})
    except (RuntimeError, ValueError, OSError) as failure:
        # its message shows the template, not what the report says
        raise RecoupError(
            f"typst could not make the PDF: {str(failure).splitlines()[0]}",
            hint="`--html FILE` shows the same, and prints well. Please report this.",
        ) from failure
    return bytes(made)


def require_typst() -> None:
    """Raise ``UncheckedError`` when typst is not installed: better before a long drill than after it."""
    try:
        import typst  # noqa: F401
    except ImportError as missing:
        raise UncheckedError(
            "a PDF needs typst, which is not installed",
            hint="Install it: pip install 'recoup[pdf]'. `--html FILE` needs nothing, and prints well.",
        ) from missing


def _data(report: Report) -> dict[str, Any]:
    record = report.record
    kind = "announced" if record.kind == "announced" else "a surprise"
    declared = f"declared {_moment(record.declared)} by {record.declared_by}, {kind}; ended {_moment(record.ended)}."
    intro = [f"Situation {record.situation}, {declared} This was a rehearsal, not an incident."]
    if record.stopped is not None:
        intro.append(f"It did not come to its end: {record.stopped}")
    said = {
        "title": f"Drill of {record.system}, {record.declared:%Y-%m-%d}: {record.verdict}",
        "footer": f"Drill {record.id}, sha256 {report.sha256[:32]}…",
        "system": record.system,
        "verdict": record.verdict.value,
        "headline": HEADLINES[record.verdict],
        "intro": intro,
        "sections": list(_sections(report)),
    }
    cleaned: dict[str, Any] = _clean(said)
    return cleaned


def _sections(report: Report) -> Iterator[dict[str, Any]]:
    record = report.record
    yield _section(
        "The parts of the drill", notes=("All of them must be ok.",),
        tables=(_table(("part", "result"), [(name, verdict.value) for name, verdict in verdicts(record)], (3, 1)),),
    )  # fmt: skip
    yield _numbers(report)
    yield _plots(report)
    yield _point(record)
    yield _timeline(record)
    yield from _flows(record)
    yield _findings("Checks of the data", record.checks)
    yield _section(
        "Production was not touched",
        tables=(
            _table(
                ("service", "identity", "before", "after", "seen", "result"),
                [
                    (one.service, one.identity, one.before or "not known", one.after or "not known", one.detail,
                     one.verdict.value)
                    for one in record.production
                ],
                (2, 3, 3, 3, 3, 0),
            ),
        ),
    )  # fmt: skip
    yield _findings("Isolation of the sandbox", record.isolation)
    yield _findings("Tear-down", record.teardown)
    yield _section("Not tested", items=record.not_tested or ("nothing is known to be left out",))
    yield _issues(report)
    people = [(one.name, one.role, one.part) for one in record.participants]
    absent = (f"Not allowed to help: {', '.join(record.absent)}.",) if record.absent else ()
    yield _section("Who took part", texts=absent, tables=(_table(("name", "role", "part"), people, (2, 2, 3)),))
    yield _section(
        "What proves the data", items=record.proves_data or ("nothing that passed proves that the data came back",)
    )
    yield _seal(report)


def _numbers(report: Report) -> dict[str, Any]:
    record, rto = report.record, report.record.rto
    rows = [
        ("recovery time (RTO)", against(rto.measured, rto.objective), rto.verdict.value),
        ("of it machines, and waiting for people", f"{in_words(rto.machine)}, and {in_words(rto.waiting)}", ""),
        ("age of the recovery point", in_words(record.point.age), ""),
        ("forecast of the next recovery", outlook(report), ""),
    ]
    if rto.clock_jumped:
        rows.append(("the clock was set during the drill, by", in_words(rto.clock_jumped), ""))
    for one in record.rpo:
        lost = f"{against(one.measured, one.objective)}; known from: {one.how}"
        rows.append((f"lost data (RPO) of {one.service}", lost, one.verdict.value))
    tables = [_table(("number", "measured", "result"), rows, (3, 5, 0))]
    if report.tiers:
        by_tier = [
            (one.tier, against(one.rto, one.rto_objective), one.rto_verdict.value,
             lost_of(one, record), one.rpo_verdict.value)
            for one in report.tiers
        ]  # fmt: skip
        tables.append(_table(("tier", "RTO", "", "RPO", ""), by_tier, (2, 4, 0, 4, 0), "Promises by tier"))
    return _section("Numbers", texts=[f"Worse: {one}." for one in report.regressions], tables=tables)


def _plots(report: Report) -> dict[str, Any]:
    plots = []
    for name, anchor in (("Recovery time", "rto"), ("Lost data", "rpo")):
        points = [_plot_point(one, anchor, current=one is report.record) for one in report.series]
        plots.append({"svg": plot(name, points, anchor=anchor, style=_STYLE), "alt": f"{name}: {described(points)}"})
    note = (
        "Drills of the same situation, the newest on the right; this one is larger. A ring is a drill that did not "
        "pass, a cross a number that was not measured, the dashed line what was promised."
    )
    return _section("Over time", plots=plots, notes=(note,))


def _plot_point(record: DrillRecord, number: str, *, current: bool) -> Point:
    measured: timedelta | None = record.rto.measured if number == "rto" else record.lost
    objective = record.rto.objective if number == "rto" else strictest(record)
    return Point(
        when=record.declared, measured=measured, objective=objective, verdict=record.verdict, current=current
    )  # fmt: skip


def _point(record: DrillRecord) -> dict[str, Any]:
    point, place = record.point, record.place
    at = "not known" if point.at is None else _moment(point.at)
    texts = (
        f"Asked for: {point.target}. Reached: {at}. From the repository {point.repository} ({point.repository_id}).",
        f"Rehearsed in the {place.kind} sandbox {place.project or place.sandbox} on {place.host}.",
    )
    rows = [(one.service, one.kind, one.id, _moment(one.at), one.digest[:16] + "…") for one in point.copies]
    head = ("service", "kind", "id", "data of", "sha256 of its manifest")
    return _section("From which recovery point", texts=texts, tables=(_table(head, rows, (2, 1, 3, 3, 3)),))


def _timeline(record: DrillRecord) -> dict[str, Any]:
    rows = []
    for number, one in enumerate(record.steps, start=1):
        took = "not come to" if one.started is None else in_words(one.took)
        took += f", {in_words(one.waiting)} of it waiting" if one.waiting else ""
        said = " — ".join(text for text in (one.title, one.detail, f"hint: {one.hint}" if one.hint else "") if text)
        start = "" if one.started is None else one.started.strftime("%H:%M:%S")
        rows.append((str(number), said, one.kind, start, took, one.verdict.value))
    head = ("", "step", "who", "start", "took", "result")
    return _section("Timeline", notes=("Times are UTC.",), tables=(_table(head, rows, (0, 6, 0, 0, 3, 0)),))


def _flows(record: DrillRecord) -> Iterator[dict[str, Any]]:
    nothing = () if record.flows else ("The plan has no flows: nothing was tried as a user would.",)
    yield _section("What users do", texts=nothing)
    for flow in record.flows:
        rows = [
            (one.what, " — ".join(text for text in (one.detail, one.hint) if text), in_words(one.took),
             "yes" if one.reads_data else "", one.verdict.value)
            for one in flow.steps
        ]  # fmt: skip
        head = ("act", "answer", "took", "proves data", "result")
        yield _section(flow.name, level=3, tables=(_table(head, rows, (5, 5, 2, 2, 0), tried(flow)),))


def _findings(title: str, findings: Sequence[Finding]) -> dict[str, Any]:
    rows = [
        (one.check, one.subject, " — ".join(text for text in (one.detail, one.hint) if text), one.not_checked,
         one.verdict.value)
        for one in findings
    ]  # fmt: skip
    if not rows:
        return _section(title, texts=("It was not looked at.",))
    return _section(title, tables=(_table(("check", "of", "seen", "not covered", "result"), rows, (4, 3, 4, 4, 0)),))


def _issues(report: Report) -> dict[str, Any]:
    rows = []
    for one in report.issues:
        state = "overdue" if one.overdue(report.today) else "open"
        if one.closing is not None:
            ended = one.closing
            state = (
                f"closed {_moment(ended.closed)} by {ended.by}: {ended.because}; "
                f"proof: {ended.proof.kind} {ended.proof.name}"
            )
        rows.append((one.issue.id, one.issue.text, one.issue.owner, one.issue.due.isoformat(), state))
    if not rows:
        return _section("Issues", texts=("None is open, and this drill found none.",))
    head = ("id", "issue", "owner", "due", "state")
    note = "Those of this drill, and those of other drills that are open."
    return _section("Issues", notes=(note,), tables=(_table(head, rows, (3, 6, 2, 2, 3)),))


def _seal(report: Report) -> dict[str, Any]:
    record = report.record
    texts = (
        f"Version of the plan: {record.plan.version or 'none'}. Content hash: {record.plan.hash}.",
        f"Record {record.id}, sha256 {report.sha256}.",
        f"Sealed with the key {report.key_id}, stored in {', '.join(report.places)}.",
        f"Signed by {report.fingerprint}.",
    )
    rows = [(name, digest or "not seen") for name, digest in record.plan.parts.items()]
    tools = ", ".join(f"{name} {version}" for name, version in (record.tool or {}).items())
    return _section(
        "Plan and seal", texts=texts, tables=(_table(("part of the plan", "digest"), rows, (2, 5)),),
        notes=(report.seal, f"Made with {tools or 'recoup'}."),
    )  # fmt: skip


def _section(
    title: str,
    *,
    level: int = 2,
    texts: Iterable[str] = (),
    items: Iterable[str] = (),
    plots: Iterable[dict[str, str]] = (),
    tables: Iterable[dict[str, Any]] = (),
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    return {
        "title": title, "level": level, "texts": list(texts), "items": list(items), "plots": list(plots),
        "tables": [one for one in tables if one["rows"]], "notes": list(notes),
    }  # fmt: skip


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], caption: str = ""
) -> dict[str, Any]:
    return {"head": list(head), "rows": [list(row) for row in rows], "widths": list(widths), "caption": caption}


def _clean(value: Any) -> Any:
    """Without control characters: a PDF viewer shows them as boxes at best."""
    if isinstance(value, str):
        return "".join(one if one.isprintable() or one in "\n\u200b" else "�" for one in value)
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value


def _moment(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")
