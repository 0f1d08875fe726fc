"""The report on a drill as one page of HTML: no script, nothing fetched, readable on paper and by a screen reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Final

from recoup.drill.issues import TrackedIssue
from recoup.drill.model import DrillRecord, Step, verdicts
from recoup.drill.plot import Point, plot
from recoup.drill.report import HEADLINES, Report, against, in_words, lost_of, outlook, tried
from recoup.kernel.finding import Finding, Verdict

_STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#16202c;--dim:#535f6d;--line:#d5dbe2;--bar:#3b6ea8;
--wait:#b9c4d0;--ok:#12703f;--okbg:#e2f4e9;--failed:#a61b1b;--failedbg:#fde7e5;--unknown:#7a5300;--unknownbg:#fdf0cf}
@media(prefers-color-scheme:dark){:root{--bg:#11161c;--card:#1a2129;--ink:#e8edf2;--dim:#9aa7b4;--line:#2e3843;
--bar:#7fb2ea;--wait:#566474;--ok:#6fd79b;--okbg:#12331f;--failed:#ff9d94;--failedbg:#46191a;--unknown:#f2c964;
--unknownbg:#3d2f0a}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:64rem;margin:0 auto;padding:1rem}h1{font-size:1.5rem;margin:.2rem 0}
h2{font-size:1.1rem;margin:1.8rem 0 .5rem}h3{font-size:1rem;margin:.9rem 0 .3rem}
p{margin:.3rem 0}.dim{color:var(--dim);font-size:.9rem}
.card,.banner{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem;margin:.6rem 0}
.banner.ok,.badge.ok{background:var(--okbg);color:var(--ok)}
.banner.failed,.badge.failed{background:var(--failedbg);color:var(--failed)}
.banner.unknown,.badge.unknown{background:var(--unknownbg);color:var(--unknown)}
.badge{border-radius:1rem;padding:.05rem .6rem;font-size:.85rem;font-weight:600;white-space:nowrap}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.6rem 1rem;margin:.3rem 0}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.big{font-size:1.35rem;font-weight:650}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}caption{text-align:left;color:var(--dim);font-size:.85rem;
padding-bottom:.3rem}th,td{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;
border-top:1px solid var(--line);overflow-wrap:break-word}thead td,thead th{border-top:0;
color:var(--dim);font-weight:600;font-size:.85rem;overflow-wrap:normal}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
ul{margin:.3rem 0;padding-left:1.2rem}code{font-size:.85em;overflow-wrap:anywhere}
.step{min-width:15rem;width:40%}.when{min-width:7rem}.when svg{display:block;width:100%;
height:1rem}.t-work{fill:var(--bar)}.t-wait{fill:var(--wait)}
.t-all{fill:var(--line);opacity:.45}
.plot{display:block;width:100%;height:auto;margin:.4rem 0}.plot text{font-size:12px;fill:var(--dim)}
.plot .name{font-size:14px;font-weight:600;fill:var(--ink)}.plot .promised{fill:var(--ink)}
.grid{stroke:var(--line)}.promise{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:6 4}
.way{fill:none;stroke:var(--bar);stroke-width:1.5;opacity:.6}.good{fill:var(--bar)}
.bad{fill:var(--card);stroke:var(--failed);stroke-width:2.5}.cross{stroke:var(--failed);stroke-width:2.5;fill:none}
@media print{:root{--bg:#fff;--card:#fff;--ink:#000;--dim:#333;--line:#999;--bar:#3b6ea8;--wait:#b9c4d0;--ok:#0b5a31;
--okbg:#fff;--failed:#8c1212;--failedbg:#fff;--unknown:#5c3e00;--unknownbg:#fff}body{font-size:10.5pt}
main{max-width:none;padding:0 1px}.scroll{overflow:visible}.step{min-width:9.5rem}
.when{min-width:4rem}.card,.banner,tr,svg{break-inside:avoid}h2,h3,caption{break-after:avoid}
.badge{border:1px solid currentColor}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
@page{margin:16mm}
"""
_SECURITY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole page."""
    record = report.record
    title = f"Drill of {record.system}, {_day(record.declared)}: {record.verdict}"
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_SECURITY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    record = report.record
    yield from _banner(report)
    yield from _numbers(report)
    yield from _plots(report)
    yield from _point(record)
    yield from _timeline(report)
    yield from _flows(record)
    yield _section("Checks of the data", _findings(record.checks, "no check was made"))
    yield from _safety(record)
    yield "<h2>Not tested</h2>"
    yield _list(record.not_tested, "nothing is known to be left out; see what each check does not cover")
    yield from _issues(report)
    yield from _people(record)
    yield from _identity(report)


def _banner(report: Report) -> Iterator[str]:
    record = report.record
    how = "announced" if record.kind == "announced" else "a surprise"
    yield f'<header class="banner {record.verdict}"><p>{_text(record.system)}</p><h1>{HEADLINES[record.verdict]}</h1>'
    yield (
        f"<p>Situation <b>{_text(record.situation)}</b>, declared {_moment(record.declared)} by "
        f"{_text(record.declared_by)}, {how}; ended {_moment(record.ended)}. This was a rehearsal, not an incident.</p>"
    )
    if record.stopped is not None:
        yield f"<p>It did not come to its end: {_text(record.stopped)}</p>"
    yield "</header>"
    rows = [(_text(name), _badge(verdict)) for name, verdict in verdicts(record)]
    yield _table("The parts of the drill; all of them must be ok", ("part", "result"), rows)


def _numbers(report: Report) -> Iterator[str]:
    record, rto = report.record, report.record.rto
    age = record.point.age
    yield "<h2>Numbers</h2><dl class=card>"
    yield _fact("recovery time (RTO)", in_words(rto.measured, nothing="not measured"), rto.verdict, big=True)
    yield _fact("promised", in_words(rto.objective, nothing="nothing"))
    yield _fact("of it machines", in_words(rto.machine))
    yield _fact("of it waiting for people", in_words(rto.waiting))
    yield _fact("lost data (RPO), worst service", in_words(record.lost), None, big=True)
    yield _fact("age of the recovery point", in_words(age))
    yield _fact("forecast of the next", outlook(report))
    if rto.clock_jumped:
        yield _fact("the clock was set during the drill, by", in_words(rto.clock_jumped))
    yield "</dl>"
    for worse in report.regressions:
        yield f'<p><span class="badge failed">worse</span> {_text(str(worse))}</p>'
    rows = [
        (
            _text(one.service),
            _text(one.tier or ""),
            _text(against(one.measured, one.objective)),
            _text(one.how),
            _badge(one.verdict),
        )
        for one in record.rpo
    ]
    yield _table("Lost data by service", ("service", "tier", "lost", "known from", "result"), rows)
    rows = [
        (
            _text(one.tier),
            _text(against(one.rto, one.rto_objective)),
            _badge(one.rto_verdict),
            _text(lost_of(one, record)),
            _badge(one.rpo_verdict),
        )
        for one in report.tiers
    ]
    if rows:
        yield _table("Promises by tier", ("tier", "RTO", "", "RPO", ""), rows)


def _plots(report: Report) -> Iterator[str]:
    series = report.series
    rto = [
        Point(when=one.declared, measured=one.rto.measured, objective=one.rto.objective, verdict=one.verdict,
              current=one is report.record)
        for one in series
    ]  # fmt: skip
    rpo = [
        Point(when=one.declared, measured=one.lost, objective=strictest(one), verdict=one.verdict,
              current=one is report.record)
        for one in series
    ]  # fmt: skip
    yield f"<h2>Over time</h2><div class=card>{plot('Recovery time', rto, anchor='rto')}"
    yield plot("Lost data", rpo, anchor="rpo")
    yield (
        '<p class="dim">Drills of the same situation, the newest on the right; this one is larger. A ring is a drill '
        "that did not pass, a cross a number that was not measured, the dashed line what was promised.</p></div>"
    )
    rows = [
        (_day(one.declared), _text(in_words(one.rto.measured, nothing="not measured")), _text(in_words(one.lost)),
         _badge(one.verdict), f"<code>{_text(one.id)}</code>")
        for one in reversed(series)
    ]  # fmt: skip
    yield _table("The same as a table", ("declared", "RTO", "RPO", "result", "drill"), rows)


def strictest(record: DrillRecord) -> timedelta | None:
    """The strictest RPO that was promised for a service of the drill."""
    return min((one.objective for one in record.rpo if one.objective is not None), default=None)


def _point(record: DrillRecord) -> Iterator[str]:
    point = record.point
    at = "not known" if point.at is None else _moment(point.at)
    yield "<h2>From which recovery point</h2><dl class=card>"
    yield _fact("asked for", point.target) + _fact("reached", at) + _fact("age", in_words(point.age))
    yield _fact("from the repository", point.repository) + _fact("its identity", point.repository_id)
    yield _fact("rehearsed in", f"{record.place.kind} sandbox {record.place.project or record.place.sandbox}")
    yield _fact("on the host", record.place.host) + "</dl>"
    rows = [
        (_text(one.service), _text(one.kind), f"<code>{_text(one.id)}</code>", _moment(one.at),
         f"<code>{_text(one.digest[:16])}…</code>")
        for one in point.copies
    ]  # fmt: skip
    yield _table("Copies that were restored", ("service", "kind", "id", "data of", "sha256 of its manifest"), rows)


def _timeline(report: Report) -> Iterator[str]:
    record = report.record
    begun = min((one.started for one in record.steps if one.started is not None), default=record.declared)
    begun = min(begun, record.declared)
    ended = max([record.ended, *(one.ended for one in record.steps if one.ended is not None)])
    whole = max((ended - begun).total_seconds(), 0.001)
    rows = []
    for number, one in enumerate(record.steps, start=1):
        took = "not come to" if one.started is None else in_words(one.took)
        waited = f"<br><span class=dim>{_text(in_words(one.waiting))} waiting</span>" if one.waiting else ""
        said = _text(one.title)
        if one.detail:
            said += f"<br><span class=dim>{_text(one.detail)}</span>"
        if one.hint:
            said += f"<br><span class=dim>hint: {_text(one.hint)}</span>"
        start = "" if one.started is None else one.started.strftime("%H:%M:%S")
        rows.append(
            (str(number), said, _text("person" if one.kind == "person" else "machine"), start,
             _text(took) + waited, _usual(report, one), _bar(one, begun, whole), _badge(one.verdict))
        )  # fmt: skip
    yield "<h2>Timeline</h2>"
    yield _table(
        "Times are UTC. The dark part of a bar is work, the light part waiting for people.",
        ("", "step", "who", "start", "took", "usually", "when", "result"),
        rows,
        classes={6: "when", 5: "n", 4: "n", 3: "n", 2: "n", 1: "step"},
    )  # fmt: skip


def _usual(report: Report, step: Step) -> str:
    known = report.forecast.get(step.key)
    return "" if known is None else _text(in_words(known.p50))


def _bar(step: Step, begun: datetime, whole: float) -> str:
    if step.started is None or step.took is None:
        return ""
    left = 1000 * (step.started - begun).total_seconds() / whole
    wide = max(4.0, 1000 * step.took.total_seconds() / whole)
    part = min(1.0, step.waiting / step.took) if step.took else 0.0
    return (
        '<svg viewBox="0 0 1000 16" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="t-all" x="0" y="6" width="1000" height="4"/>'
        f'<rect class="t-wait" x="{left:.1f}" y="0" width="{wide:.1f}" height="16"/>'
        f'<rect class="t-work" x="{left + wide * part:.1f}" y="0" width="{wide * (1 - part):.1f}" height="16"/></svg>'
    )


def _flows(record: DrillRecord) -> Iterator[str]:
    yield "<h2>What users do</h2>"
    if not record.flows:
        yield '<p class="dim">The plan has no flows: nothing was tried as a user would.</p>'
    for flow in record.flows:
        yield f"<h3>{_text(flow.name)} {_badge(flow.verdict)}</h3>"
        rows = [
            (f"<code>{_text(one.what)}</code>", _text(one.detail) + (f"<br><span class=dim>{_text(one.hint)}</span>"
             if one.hint else ""), _text(in_words(one.took)), "yes" if one.reads_data else "", _badge(one.verdict))
            for one in flow.steps
        ]  # fmt: skip
        yield _table(
            tried(flow).capitalize(), ("act", "answer", "took", "proves data", "result"), rows, classes={2: "n"}
        )


def _safety(record: DrillRecord) -> Iterator[str]:
    rows = [
        (_text(one.service), f"<code>{_text(one.identity)}</code>", _text(one.before or "not known"),
         _text(one.after or "not known"), _text(one.detail), _badge(one.verdict))
        for one in record.production
    ]  # fmt: skip
    yield "<h2>Production was not touched</h2>"
    if rows:
        columns = ("service", "identity", "before", "after", "", "result")
        yield _table("Looked at before and after the drill", columns, rows)
    else:
        yield '<p class="dim">It was not looked at.</p>'
    yield _section("Isolation of the sandbox", _findings(record.isolation, "it was not looked at"))
    yield _section("Tear-down", _findings(record.teardown, "it was not looked at"))


def _issues(report: Report) -> Iterator[str]:
    mine = [one for one in report.issues if one.drill == report.record.id]
    others = [one for one in report.issues if one.drill != report.record.id]
    yield "<h2>Issues</h2>"
    if mine:
        yield _issue_table("Found by this drill", mine, report)
    else:
        yield '<p class="dim">This drill found none that was not known already.</p>'
    if others:
        yield _issue_table("Open from other drills", others, report)


def _issue_table(caption: str, issues: Sequence[TrackedIssue], report: Report) -> str:
    rows = []
    for one in issues:
        if one.closing is not None:
            closing = one.closing
            state = (
                f"<span class='badge ok'>closed</span> {_moment(closing.closed)} by {_text(closing.by)}: "
                f"{_text(closing.because)}<br><span class=dim>proof: {_text(closing.proof.kind)} "
                f"{_text(closing.proof.name)}</span>"
            )
        else:
            late = one.overdue(report.today)
            state = f"<span class='badge {'failed' if late else 'unknown'}'>{'overdue' if late else 'open'}</span>"
        rows.append(
            (f"<code>{_text(one.issue.id)}</code>", _text(one.issue.text), _text(one.issue.owner),
             one.issue.due.isoformat(), state)
        )  # fmt: skip
    return _table(caption, ("id", "issue", "owner", "due", "state"), rows, classes={3: "n"})


def _people(record: DrillRecord) -> Iterator[str]:
    yield "<h2>Who took part</h2>"
    rows = [(_text(one.name), _text(one.role), _text(one.part)) for one in record.participants]
    if rows:
        yield _table("People of the team", ("name", "role", "part"), rows)
    else:
        yield '<p class="dim">Nobody but the one who declared it.</p>'
    if record.absent:
        yield f"<p>Not allowed to help: {_text(', '.join(record.absent))}.</p>"


def _identity(report: Report) -> Iterator[str]:
    record = report.record
    yield "<h2>What proves the data</h2>"
    yield _list(record.proves_data, "nothing that passed proves that the data came back")
    yield "<h2>Plan and seal</h2><dl class=card>"
    yield _fact("version of the plan", record.plan.version or "none")
    yield _fact("content hash", record.plan.hash)
    yield _fact("drill", record.id) + _fact("record, sha256", report.sha256)
    yield _fact("sealed with the key", report.key_id) + _fact("signed by", report.fingerprint)
    yield _fact("stored in", ", ".join(report.places)) + "</dl>"
    rows = [(_text(name), f"<code>{_text(digest or 'not seen')}</code>") for name, digest in record.plan.parts.items()]
    yield _table("What the plan consisted of", ("part", "digest"), rows)
    tools = ", ".join(f"{name} {version}" for name, version in (record.tool or {}).items())
    yield f'<p class="dim">{_text(report.seal)}</p><p class="dim">Made with {_text(tools or "recoup")}.</p>'


def _findings(findings: Sequence[Finding], nothing: str) -> str:
    if not findings:
        return f'<p class="dim">{_text(nothing)}</p>'
    rows = []
    for one in findings:
        said = _text(one.detail) + (f"<br><span class=dim>hint: {_text(one.hint)}</span>" if one.hint else "")
        rows.append((_text(one.check), _text(one.subject), said, _text(one.not_checked), _badge(one.verdict)))
    return _table("", ("check", "of", "seen", "not covered", "result"), rows)


def _section(title: str, content: str) -> str:
    return f"<h2>{_text(title)}</h2>{content}"


def _list(items: Iterable[str], nothing: str) -> str:
    entries = "".join(f"<li>{_text(one)}</li>" for one in items)
    return f"<ul>{entries}</ul>" if entries else f'<p class="dim">{_text(nothing)}</p>'


def _table(
    caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], classes: dict[int, str] | None = None
) -> str:
    """``headings`` and ``caption`` are texts, the cells of ``rows`` are HTML already."""
    named = classes or {}
    head = "".join(f'<th scope="col">{_text(one)}</th>' if one else "<td></td>" for one in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{named[at]}">{one}</td>' if at in named else f"<td>{one}</td>" for at, one in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f'<div class="card scroll"><table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _fact(name: str, value: str, verdict: Verdict | None = None, *, big: bool = False) -> str:
    badge = "" if verdict is None else " " + _badge(verdict)
    return f"<div><dt>{_text(name)}{badge}</dt><dd{' class=big' if big else ''}>{_text(value)}</dd></div>"


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict}">{verdict}</span>'


def _text(value: str) -> str:
    """Escaped, and without the control characters that HTML forbids."""
    return escape("".join(one if one.isprintable() or one in "\n\t" else "�" for one in value))


def _day(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d")


def _moment(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")
