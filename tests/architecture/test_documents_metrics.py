"""What the alert rules and the dashboard ask for is what the program says, and what it says is described."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

from ruamel.yaml import YAML

from recoup.assembly.watch.metrics import families, to_text
from recoup.assembly.watch.survey import Survey
from recoup.kernel.process import Command, run
from recoup.objectives.alarms import Facts
from tests.architecture.sources import ROOT

_RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
_DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"


def _names() -> dict[str, tuple[str, ...]]:
    """Every metric that there is, with its labels."""
    facts = Facts(now=datetime(2026, 11, 23, tzinfo=UTC), services=(), repositories=(), lag_limit=timedelta(minutes=5))
    empty = Survey(facts=facts, days={}, opened=(), system="Shop")
    return {one.name: tuple(one._labelnames) for one in families(empty, ())}  # type: ignore[attr-defined]


def _asked(expression: str) -> set[str]:
    return set(re.findall(r"\brecoup_[a-z_]+", expression))


def _rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(_RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_metric_of_the_alert_rules_exists_with_the_labels_that_are_shown() -> None:
    known = _names()
    assert len({rule["alert"] for rule in _rules()}) == len(_rules()) >= 15
    for rule in _rules():
        asked = _asked(rule["expr"])
        assert asked, rule["alert"]
        assert asked <= set(known), rule["alert"]
        shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        carried = set.intersection(*(set(known[name]) for name in asked))
        assert shown <= carried, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_expression_of_an_alert_rule_can_be_read() -> None:
    promtool = shutil.which("promtool")
    if promtool is not None:
        run(Command(argv=[promtool, "check", "rules", str(_RULES)], timeout_seconds=60))
    for rule in _rules():  # without promtool, what a slip of the pen breaks most often
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert re.fullmatch(r"[a-z0-9_.()*<>=\- ]+", rule["expr"]), rule["expr"]


def test_every_metric_of_the_dashboard_exists() -> None:
    dashboard = json.loads(_DASHBOARD.read_text())
    known = _names()
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert _asked(target["expr"]), panel["title"]
            asked |= _asked(target["expr"])
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= set.union(*(set(known[name]) for name in _asked(target["expr"]))), panel["title"]
    assert asked <= set(known)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_metric_is_described_on_its_page_and_no_other_is() -> None:
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(recoup_[a-z_]+)`", page, re.MULTILINE)) == set(_names())


def test_what_is_not_known_has_no_value() -> None:
    facts = Facts(now=datetime(2026, 11, 23, tzinfo=UTC), services=(), repositories=(), lag_limit=timedelta(minutes=5))
    text = to_text(families(Survey(facts=facts, days={}, opened=(), system="Shop"), ())).decode()
    assert "\nrecoup_rpo_seconds" not in text
    assert '\nrecoup_daemon_running{system="Shop"} 0.0' in text
