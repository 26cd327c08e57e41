"""The Grafana dashboard and the alert rules ask for metrics, labels and values that the sidecar has."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from sidecar.errors import SidecarError
from sidecar.telemetry.metrics import OtelMetrics
from tests import parts

DASHBOARD = parts.ROOT / "deploy/grafana/mcp-sidecar.json"
ALERTS = parts.ROOT / "deploy/prometheus/alerts.yaml"

_SERIES = re.compile(r"\b(mcp_[a-z_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'([a-z_]+)(=|!=)"([^"]*)"')
_GROUPED = re.compile(r"\bby \(([a-z_, ]+)\)")
_OF_PROMETHEUS = {"le", "instance"}


def every_metric() -> OtelMetrics:
    """Each metric once."""
    metrics = OtelMetrics(methods=["tools/call"], tools=["find"], servers=["demo-ro"])
    metrics.operation("tools/call", "find", "policy_denied", 0.1)
    metrics.decided(allow=True, reason="", owner="hr", tool="find")
    metrics.decided(allow=False, reason="not_granted", owner="hr", tool="find")
    metrics.shadowed("same", tool="find")
    for label in labels_of_errors(SidecarError):
        metrics.refused("derive", label)
    metrics.limited("daily", "calls")
    metrics.exceeded("max_affected")
    metrics.asked(0.1)
    metrics.faulted("timeout")
    metrics.audited(0.1)
    metrics.audit_records(1)
    metrics.audit_waits(1, size=1, age_s=1.0)
    metrics.forwarded("demo-ro", 0.1)
    metrics.circuit("demo-ro", is_open=True)
    metrics.sessions(1)
    metrics.connections(1)
    metrics.connection_ended("idle")
    metrics.suspensions(1)
    metrics.in_flight(1)
    metrics.approval("requested")
    metrics.policy_load("refused")
    metrics.policy_serves("sha256:1")
    metrics.candidate_load("refused")
    metrics.unreviewed_tools("demo-ro", ["changed"])
    metrics.health("opa", up=True)
    return metrics


def labels_of_errors(kind: type[SidecarError]) -> Iterator[str]:
    yield kind.label
    for below in kind.__subclasses__():
        yield from labels_of_errors(below)


@cache
def known() -> dict[str, dict[str, set[str]]]:
    """By sample: its labels with the values that they had."""
    body, _ = every_metric().render()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def unknown(expression: str) -> list[str]:
    """What a PromQL expression asks for that no sidecar has."""
    faults, grouped = [], set()
    for by in _GROUPED.findall(expression):
        grouped |= {name.strip() for name in by.split(",")}
    labels: set[str] = set()
    series = _SERIES.findall(expression)
    for name, matchers in series:
        if name not in known():
            faults.append(name)
            continue
        here = known()[name]
        labels |= here.keys()
        for label, _, value in _MATCHER.findall(matchers):
            if value not in here.get(label, set()):
                faults.append(f"{name}{{{label}={value}}}")
    if not series:
        faults.append("no metric of the sidecar")
    return faults + sorted(grouped - labels - _OF_PROMETHEUS)


def of_dashboard() -> list[str]:
    board: Any = json.loads(DASHBOARD.read_text())  # noqa: TID251 - a file of the repository
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    found: Any = YAML(typ="safe").load(ALERTS.read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def test_every_panel_asks_for_what_there_is():
    assert {expression: unknown(expression) for expression in of_dashboard() if unknown(expression)} == {}


def test_every_alert_asks_for_what_there_is_and_names_a_page():
    assert {rule["alert"]: unknown(rule["expr"]) for rule in rules() if unknown(rule["expr"])} == {}
    pages = {rule["annotations"]["documentation"] for rule in rules()}
    assert [page for page in sorted(pages) if not (parts.ROOT / page).is_file()] == []


def test_a_name_label_or_value_that_there_is_not_would_be_noticed():
    assert unknown("sum(mcp_sidecar_session)") == ["mcp_sidecar_session"]
    assert unknown('mcp_sidecar_policy_load{result="refusd"}') == ["mcp_sidecar_policy_load{result=refusd}"]
    assert unknown("sum by (team) (mcp_sidecar_decisions_total)") == ["team"]
    assert unknown("up == 0") == ["no metric of the sidecar"]


def test_every_metric_that_the_page_watches_has_an_alert():
    page = (parts.ROOT / "docs/deploy.md").read_text()
    watched = set(re.findall(r"^\| `(mcp_[a-z_]+)", page, re.MULTILINE))
    asked = {name for rule in rules() for name, _ in _SERIES.findall(rule["expr"])}
    assert watched
    assert watched - asked == set()


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    board: Any = json.loads(DASHBOARD.read_text())  # noqa: TID251 - a file of the repository
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules():
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout
