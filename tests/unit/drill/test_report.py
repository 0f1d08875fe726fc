"""The report on a drill: all of it in JSON, on one page that fetches nothing, and on paper; whatever it has to say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recoup.drill.page import page
from recoup.drill.paper import pdf
from recoup.drill.plot import Point, plot
from recoup.drill.report import Report, document, report_on
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Verdict
from recoup.repository.signature import public_key
from tests.artefacts import keep
from tests.drill_story import HOSTILE, HOSTILE_TYPST, KEY, a_book, a_report, hostile_drill
from tests.drills import DECLARED, MINUTE
from tests.real import require

TODAY = date(2026, 11, 20)


def hostile_report(text: str) -> Report:
    drill = hostile_drill(text)
    return report_on(drill, a_book([drill]), key_id="ea7fd3c8", signer=public_key(KEY), today=TODAY)


class Outline(HTMLParser):
    """What a page consists of, and whether it is well formed."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.texts.append(data)

    def count(self, *names: str) -> int:
        return sum(tag in names for tag, _ in self.tags)


def test_the_page_has_all_that_a_report_must_say() -> None:
    outline = Outline(page(a_report()))
    said = " ".join(outline.texts)
    for text in (
        "The drill failed", "server-loss", "recovery time (RTO)", "44 min", "1 h promised", "waiting for people",
        "Lost data by service", "From which recovery point", "20261102-020000-bbbbbb", "Timeline", "restore postgres",
        "a customer pays", "pg_amcheck is not installed", "Install postgresql-contrib", "Production was not touched",
        "LSN 0/3000060", "Isolation of the sandbox", "Tear-down", "e-mail is not sent in a sandbox", "overdue",
        "operations", "2026-11-16", "Ada Lovelace", "Not allowed to help: lead.",
        "It is signed as well (Ed25519)", str(public_key(KEY)),
        "forecast of the next", "likely", "RTO is 44 min; it was 27 min (median of 6 earlier drills)", "ab" * 32,
        "ea7fd3c809eee230",
    ):  # fmt: skip
        assert text in said, text


def test_a_tier_without_databases_is_not_said_to_have_been_promised_nothing() -> None:
    report = a_report()
    rto = replace(report.record.rto, tiers={**report.record.rto.tiers, "standard": 24 * 60 * MINUTE})
    drill = replace(report.record, rto=rto)
    said = Outline(
        page(report_on(drill, a_book([drill]), key_id="ea7fd3c8", signer=public_key(KEY), today=TODAY))
    ).texts
    row = said[said.index("standard") :]
    assert row[1:5] == ["44 min, 1 d promised", "ok", "not measured: no database is of this tier", "unknown"]


def test_the_page_fetches_nothing_and_a_screen_reader_finds_its_way() -> None:
    text = page(a_report())
    outline = Outline(text)
    assert outline.count("script", "img", "link", "iframe", "object", "embed", "form", "base") == 0
    assert not re.search(
        r"""(?:src|href|url|@import)\s*[=(]\s*["']?(?:https?:)?//""", text.replace("http://www.w3.org", "")
    )
    assert "default-src 'none'" in text
    assert ("html", {"lang": "en"}) in outline.tags
    assert outline.count("h1") == 1
    assert outline.count("table") == outline.count("thead") == outline.count("tbody")
    assert all(attrs.get("scope") == "col" for tag, attrs in outline.tags if tag == "th")
    pictures = [attrs for tag, attrs in outline.tags if tag == "svg"]
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for one in pictures:
        named = (one.get("aria-labelledby") or "").split()
        assert one.get("aria-hidden") == "true" or (one.get("role") == "img" and set(named) <= set(ids))


def test_no_text_breaks_out_of_the_page() -> None:
    calm, wild = Outline(page(hostile_report("calm"))), Outline(page(hostile_report(HOSTILE)))
    assert [tag for tag, _ in wild.tags] == [tag for tag, _ in calm.tags]
    assert not any(name.startswith("on") for _, attrs in wild.tags for name in attrs)
    assert "\x1b" not in page(hostile_report(HOSTILE))
    assert "<script>alert(1)</script>" in " ".join(wild.texts)


def test_the_document_has_the_numbers_and_says_what_the_seal_is_worth() -> None:
    said = json.loads(json.dumps(document(a_report())))
    assert (said["verdict"], said["parts"]["flows"], said["parts"]["checks"]) == ("failed", "failed", "unknown")
    assert (said["rto"]["measured"], said["rto"]["objective"], said["lost"]) == (2640.0, 3600.0, 75.0)
    assert [one["id"] for one in said["trend"]][-1] == said["id"]
    assert said["trend"][3]["rto"] is None
    assert [one["number"] for one in said["regressions"]] == ["RTO", "machine time"]
    assert {one["state"] for one in said["issues"]} == {"open"}
    assert all(one["overdue"] for one in said["issues"])
    assert said["forecast"]["steps"]["person:dns"]["times"] == 12
    assert said["forecast"]["whole"]["p50"] < said["forecast"]["whole"]["p95"]
    assert said["seal"]["algorithm"] == "HMAC-SHA256"
    assert "no record was removed is not shown" in said["seal"]["what_it_shows"]
    unsigned = replace(a_report(), signed=None)
    seal = json.loads(json.dumps(document(unsigned)))["seal"]
    assert (seal["public_key"], "cannot check it" in seal["what_it_shows"]) == (None, True)
    assert "not signed" in page(unsigned)


def test_a_plot_shows_what_was_not_measured_and_bears_any_number() -> None:
    point = Point(when=DECLARED, measured=None, objective=None, verdict=Verdict.UNKNOWN)
    assert "not measured" in plot("x", [point], anchor="a")
    for seconds in (0, 0.001, 1, 59, 3600, 86_400 * 400, 10**12):
        drawn = plot("x", [Point(when=DECLARED, measured=MINUTE / 60 * seconds if seconds < 10**9 else MINUTE * 10**7,
                                 objective=MINUTE, verdict=Verdict.OK)] * 30, anchor="a")  # fmt: skip
        Outline(drawn)
        assert drawn.count('class="grid"') <= 8, seconds
    assert plot("x", [], anchor="a").endswith("</svg>")


def test_without_typst_the_paper_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(UncheckedError) as missing:
        pdf(a_report())
    assert "pip install 'recoup[pdf]'" in (missing.value.hint or "")


def rendered(path: Path) -> list[bytes]:
    """The pages of a PDF as grey pixels, one byte each, without headers."""
    subprocess.run([require("pdftoppm"), "-r", "40", "-gray", path, path.with_suffix("")], check=True, timeout=120)
    pages = []
    for one in sorted(path.parent.glob(f"{path.stem}-*.pgm")):
        magic, size, deepest, pixels = one.read_bytes().split(b"\n", 3)
        assert (magic, deepest) == (b"P5", b"255"), size
        pages.append(pixels)
    return pages


@pytest.mark.parametrize("text", ["", HOSTILE, HOSTILE_TYPST], ids=["a year", "html", "typst"])
def test_the_paper_has_all_of_it_whatever_a_text_holds(text: str, tmp_path: Path) -> None:
    report = hostile_report(text) if text else a_report()
    path = tmp_path / f"drill-report-{'hostile' if text else 'year'}.pdf"
    path.write_bytes(pdf(report))
    said = subprocess.run(
        [require("pdftotext"), "-raw", path, "-"], check=True, timeout=120, capture_output=True
    ).stdout
    flat = re.sub(r"[\s\u200b\u00ad]+", "", said.decode())
    wanted = ["Thedrillfailed", "Timeline", "Nottested", "Planandseal", report.sha256]
    # quotes are typeset as they are, since texts are data; a control character shows as a mark
    wanted += (
        [re.sub(r"\s+", "", "".join(c if c.isprintable() else "�" for c in text))] if text else ["Worse:RTOis44min"]
    )
    for one in wanted:
        assert one in flat, one
    pages = rendered(path)
    assert len(pages) >= 3
    assert all(0.005 < sum(pixel < 200 for pixel in page_) / len(page_) < 0.5 for page_ in pages[:-1])
    if not text:
        keep(path)
        pictures = ["-r", "70", "-png", path, path.with_suffix("")]
        subprocess.run([require("pdftoppm"), *pictures], check=True, timeout=120)
        for one in sorted(tmp_path.glob("*.png")):
            keep(one)  # to be looked at: one for each page


def test_a_real_browser_shows_the_page_and_asks_nobody(tmp_path: Path) -> None:
    chromium = require("chromium")
    report = a_report()
    last = replace(report.record.steps[-1], title=HOSTILE)
    report = replace(report, record=replace(report.record, steps=(*report.record.steps[:-1], last)))
    source, shot = tmp_path / "drill-report.html", tmp_path / "drill-report.png"
    source.write_text(page(report), encoding="utf-8")
    ended = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,5200", f"--screenshot={shot}",
            source.as_uri(),
        ],
        check=True, timeout=120, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    told = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    assert told == [], "a browser that is refused something, or fails at something, says so"
    assert len(shot.read_bytes()) > 50_000
    keep(shot)
    keep(source)
