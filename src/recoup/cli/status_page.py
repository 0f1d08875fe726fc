"""``recoup status --html``: one self-contained page, without scripts, for a wall, a telephone, or a web server."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from recoup.cli.status_words import ago, ahead, best, coverage, duration, proven, rehearsal, size
from recoup.kernel.errors import RecoupError
from recoup.kernel.files import write_atomically

_WORDS: Final = {"ok": "ok", "failed": "failed", "unknown": "unknown"}
_HEADLINES: Final = {
    "ok": "Everything is as promised",
    "failed": "Something is not as promised",
    "unknown": "It is not known whether everything is as promised",
}
_STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#16202c;--dim:#596675;--line:#dde2e8;
--ok:#12703f;--okbg:#e2f4e9;--failed:#a61b1b;--failedbg:#fde7e5;--unknown:#7a5300;--unknownbg:#fdf0cf}
@media(prefers-color-scheme:dark){:root{--bg:#11161c;--card:#1a2129;--ink:#e8edf2;--dim:#9aa7b4;--line:#2e3843;
--ok:#6fd79b;--okbg:#12331f;--failed:#ff9d94;--failedbg:#46191a;--unknown:#f2c964;--unknownbg:#3d2f0a}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1rem}h1{font-size:1.35rem;margin:.2rem 0}
h2{font-size:1rem;margin:1.6rem 0 .5rem;color:var(--dim);font-weight:600}
p{margin:.25rem 0}.dim{color:var(--dim);font-size:.9rem}
.card,.banner{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem;margin:.6rem 0}
.banner.ok,.badge.ok{background:var(--okbg);color:var(--ok)}
.banner.failed,.badge.failed{background:var(--failedbg);color:var(--failed)}
.banner.unknown,.badge.unknown{background:var(--unknownbg);color:var(--unknown)}
.alarm{border-left:.35rem solid var(--failed)}.alarm.unknown,.alarm.warning{border-left-color:var(--unknown)}
.head{display:flex;gap:.6rem;align-items:baseline;flex-wrap:wrap}.head b{font-size:1.1rem}
.badge{border-radius:1rem;padding:.05rem .6rem;font-size:.85rem;font-weight:600}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.5rem 1rem;margin:.7rem 0 .3rem}
dt{color:var(--dim);font-size:.8rem}dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.big{font-size:1.25rem;font-weight:650}svg{display:block;width:100%;height:2.6rem;margin-top:.5rem}
.bar-ok{fill:var(--ok);opacity:.75}.bar-failed{fill:var(--failed)}.bar-none{fill:var(--line)}
.meter{height:.55rem;background:var(--line);border-radius:.3rem;overflow:hidden;margin-top:.5rem}
.meter i{display:block;height:100%;background:var(--dim)}
"""


def write_page(path: Path, said: dict[str, Any]) -> None:
    """Replace ``path`` by the page, whole. Raise ``RecoupError`` when it cannot be written."""
    try:
        write_atomically(path, page(said).encode(), mode=0o644)
    except OSError as failure:
        raise RecoupError(
            f"cannot write the page {path}: {failure.strerror or failure}",
            hint="Name a file in a folder that this user may write to.",
        ) from failure


def page(said: dict[str, Any]) -> str:
    """Given the document of ``recoup status``, return the page."""
    at = said["at"]
    body = [
        f'<div class="banner {said["verdict"]}"><p>{_text(said["system"])}</p>',
        f"<h1>{_HEADLINES[said['verdict']]}</h1>",
        f"<p>As of {_text(at[:16].replace('T', ' '))} UTC. An old page says nothing about now.</p></div>",
    ]
    if said["alarms"]:
        body.append("<h2>What is wrong</h2>")
        body += [_alarm(one) for one in said["alarms"]]
    body.append("<h2>Services</h2>")
    for one in said["services"]:
        body += _service(one, at)
    body.append("<h2>Repositories</h2>")
    for one in said["repositories"]:
        body += _repository(one)
    if (read := coverage(said["coverage"], at)) is not None:
        body.append(f'<p class="dim">{_text(read[0].upper() + read[1:])}.</p>')
    if (stands := rehearsal(said["plan"], at)) is not None:
        body.append(f'<p class="dim">{_text(stands[:1].upper() + stands[1:])}.</p>')
    daemon = said["daemon"]["state"]
    upkeep = "; ".join(f"{one['kind']} {ahead([one['next']], at)}" for one in said["upkeep"])
    body.append(f'<p class="dim">Daemon: {_text(daemon)}. Upkeep: {_text(upkeep or "none planned")}.</p>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="refresh" content="60">'
        f"<title>{said['verdict']}: {_text(said['system'])}</title><style>{_STYLE}</style></head>"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _text(value: object) -> str:
    return escape(str(value))


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{_WORDS[verdict]}</span>'


def _alarm(one: dict[str, Any]) -> str:
    kind = "unknown" if one["verdict"] == "unknown" else one["severity"]
    since = f' <span class="dim">since {_text(one["since"][:16].replace("T", " "))} UTC</span>' if one["since"] else ""
    return (
        f'<div class="card alarm {kind}"><p><b>{_text(kind)}</b>: {_text(one["what"])}{since}</p>'
        f'<p class="dim">{_text(one["hint"])}</p></div>'
    )


def _service(one: dict[str, Any], at: str) -> Iterator[str]:
    promised = f"RTO {duration(one['rto_seconds'])}, RPO {duration(one['rpo_seconds'])}"
    if one["rpo_seconds"] is None and one["rto_seconds"] is None:
        promised = "nothing was promised"
    yield f'<div class="card"><div class="head"><b>{_text(one["name"])}</b>{_badge(one["verdict"])}'
    yield f'<span class="dim">{_text(one["tier"] or one["engine"])}: {_text(promised)}</span></div>'
    if one["detail"]:
        yield f"<p>{_text(one['detail'])}</p>"
    yield "<dl>"
    yield _fact("would be lost now", duration(one["rpo_now_seconds"]), big=True)
    yield _fact("worst in 30 days", duration(one["rpo_worst_seconds"]))
    yield _fact("last good copy", ago(one["last_good"], at, one["verdict"]))
    yield _fact("last proven copy", proven(one["last_proven"], at, one["verdict"]))
    yield _fact("best proof", best(one["best_proof"], at))
    for overdue in [each for each in one["renewals"] if each["overdue"]]:
        yield _fact("proof overdue", f"{overdue['kind']} {overdue['grade']}")
    yield _fact("next run", ahead([run["next"] for run in one["runs"]], at))
    for stream in one["streams"]:
        behind = duration(stream["lag_seconds"])
        yield _fact(
            "WAL stream" if stream["kind"] == "wal" else "command stream", f"{stream['state']}, behind by {behind}"
        )
        if stream["gap"]:
            yield _fact("missing", stream["gap"])
    yield "</dl>"
    yield _days(one)
    yield "</div>"


def _fact(name: str, value: str, *, big: bool = False) -> str:
    return f"<div><dt>{_text(name)}</dt><dd{' class=big' if big else ''}>{_text(value)}</dd></div>"


def _days(one: dict[str, Any]) -> str:
    """A bar for each of the last 30 days: the most that would have been lost, against the RPO."""
    days, limit = one["rpo_worst_by_day_seconds"], one["rpo_seconds"]
    known = [day for day in days if day is not None]
    if not known:
        return ""
    top = max([*known, limit or 0]) or 1
    bars = []
    for number, day in enumerate(days):
        height = 2.0 if day is None else max(2.0, day / top * 36)
        kind = "none" if day is None else "failed" if limit is not None and day > limit else "ok"
        text = "not known" if day is None else f"{duration(day)} at most"
        bars.append(
            f'<rect class="bar-{kind}" x="{number * 10}" y="{40 - height:.1f}" width="7" height="{height:.1f}">'
            f"<title>{len(days) - number} days ago: {text}</title></rect>"
        )
    width = len(days) * 10 - 3
    label = "the most that would have been lost on each of the last 30 days"
    box = f'viewBox="0 0 {width} 40" preserveAspectRatio="none"'
    return (
        f'<svg {box} role="img" aria-label="{label}">{"".join(bars)}</svg>'
        f'<p class="dim">{label}, today on the right</p>'
    )


def _repository(one: dict[str, Any]) -> Iterator[str]:
    verdict = "ok" if one["error"] is None and not one["problems"] else "unknown" if one["error"] else "failed"
    yield f'<div class="card"><div class="head"><b>{_text(one["name"])}</b>{_badge(verdict)}'
    yield f'<span class="dim">{_text(one["address"])}</span></div>'
    if one["error"]:
        yield f"<p>{_text(one['error'])}</p></div>"
        return
    yield "<dl>" + _fact("used", size(one["used_bytes"]))
    if one["bytes_per_day"] is not None:
        yield _fact("grows by", f"{size(one['bytes_per_day'])} a day")
    if one["free_bytes"] is not None:
        yield _fact("free on its disk", size(one["free_bytes"]))
        full = "not in sight" if one["full_in_days"] is None else f"in {one['full_in_days']:.0f} days"
        yield _fact("disk full", full)
    yield "</dl>"
    if one["free_bytes"] is not None and one["disk_bytes"]:
        part = 100 * (1 - one["free_bytes"] / one["disk_bytes"])
        yield f'<div class="meter" title="{part:.0f} % of the disk is in use"><i style="width:{part:.0f}%"></i></div>'
    yield "</div>"
