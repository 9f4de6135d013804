"""What operators watch: rules and dashboard, by the judgement of Prometheus' own promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "ops/prometheus"
RULES = PROMETHEUS / "rules.yml"
DASHBOARD = ROOT / "ops/grafana/dashboards/stratbox.json"
DATASOURCES = ROOT / "ops/grafana/provisioning/datasources/prometheus.yml"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    command = shutil.which("promtool")
    if command is None:
        pytest.fail("no promtool: run `make setup`, or install Debian's package prometheus")
    return subprocess.run([command, *arguments], text=True, capture_output=True, timeout=30, check=False)


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Return the rules of a kind, `alert` or `record`, by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def expressions() -> list[str]:
    """Return every expression of the dashboard, with a span in place of Grafana's variable for one."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [
        *dashboard["annotations"]["list"],
        *(one for panel in dashboard["panels"] for one in panel.get("targets", [])),
    ]
    return [one["expr"].replace("$__rate_interval", "5m") for one in asked]


def check(queries: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let promtool parse queries, as recording rules."""
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = folder / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": recorded}]}))
    return promtool("check", "rules", file)


def test_configuration_and_rules_are_valid() -> None:
    """Promtool accepts the configuration, and the rules it names."""
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(rules('alert')) + len(rules('record'))} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_not_before() -> None:
    """The unit tests of the rules hold."""
    done = promtool("test", "rules", PROMETHEUS / "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_in_both_states() -> None:
    """Each alert is seen to fire, and seen not to."""
    cases = [
        case
        for test in yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    seen = {(case["alertname"], bool(case["exp_alerts"])) for case in cases}
    assert seen == {(name, fires) for name in rules("alert") for fires in (True, False)}


@pytest.mark.parametrize("name", sorted(rules("alert")))
def test_alert_says_what_to_do(name: str) -> None:
    """Each alert has a severity, a text for people, and its chapter in the runbook."""
    alert = rules("alert")[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description"} <= alert["annotations"].keys()
    file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert anchor == name.lower()
    assert re.search(rf"^#+ {name}$", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no chapter {name}"


def test_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    """Every expression is one that promtool can parse."""
    queries = expressions()
    assert len(queries) > 40
    done = check(queries, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_expression_would_be_noticed(tmp_path: Path) -> None:
    """The test above can fail."""
    assert check([*expressions(), "sum by (le (rate(x[5m]))"], tmp_path).returncode != 0


def test_recorded_names_are_recorded() -> None:
    """What dashboard and alerts take from recording rules is there, and nothing is recorded in vain."""
    text = RULES.read_text() + DASHBOARD.read_text()
    named = re.findall(r"\bstratbox:\w+:\w+", text)
    assert set(named) == set(rules("record"))
    assert {name for name in named if named.count(name) == 1} == set(), "recorded, and never looked at"


def test_dashboard_asks_the_source_that_is_provisioned() -> None:
    """Grafana finds a data source by its uid."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = {target["datasource"]["uid"] for panel in dashboard["panels"] for target in panel.get("targets", [])}
    assert asked == {source["uid"] for source in yaml.safe_load(DATASOURCES.read_text())["datasources"]}


def test_panels_neither_overlap_nor_lack_a_word() -> None:
    """Every panel has its place, and says what it shows."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert [panel["title"] for panel in panels if panel["type"] != "row" and not panel["description"]] == []
