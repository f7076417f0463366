"""The dashboard and the documentation of the metrics are about those that there are."""

import json
import re
from itertools import combinations

import promql_parser
import pytest

from realwork.distributed.metrics import METRICS, TAGS
from tests.cluster.files import CLUSTER, text

SUFFIX = re.compile(r"_(bucket|sum|count)$")
UNITS = {"_seconds": "s", "_bytes_total": "Bps"}


def dashboard():
    return json.loads((CLUSTER / "grafana-dashboard.json").read_text(encoding="utf-8"))


def metric_table():
    """The table of metrics: what cluster/README.md must hold."""
    lines = ["| metric | kind | tags | meaning |", "| --- | --- | --- | --- |"]
    for each in METRICS:
        tags = ", ".join(f"`{tag}`" for tag in ("run", *each.tags))
        lines.append(f"| `{each.name}` | {each.kind} | {tags} | {each.meaning} |")
    return "\n".join(lines)


def tag_table():
    lines = ["| tag | value |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{tag}` | {value} |" for tag, value in TAGS.items())])


def asked():
    """Every metric that a panel asks for, with the panel and the expression."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            for name in re.findall(r"\bray_(realwork_\w+)", target["expr"]):
                yield name, panel, target["expr"]


def test_the_documentation_has_every_metric_and_tag():
    assert metric_table() in text("README.md")
    assert tag_table() in text("README.md")


def test_the_dashboard_shows_every_metric_and_no_other():
    names = {each.name: each for each in METRICS}
    shown = {SUFFIX.sub("", name) for name, _, _ in asked()}
    assert shown == set(names)
    for name, _, expression in asked():
        base = SUFFIX.sub("", name)
        assert (base != name) == (names[base].kind == "histogram"), expression
        # The first of a kind is in no rate: a single failure would be seen nowhere.
        counted = names[base].kind != "gauge" and "sum by (cause)" not in expression
        assert ("rate(" in expression) == counted, expression


def test_prometheus_understands_what_the_dashboard_asks():
    for expression in {expression for _, _, expression in asked()}:
        assert promql_parser.parse(expression.replace("$__rate_interval", "1m")).prettify()


def test_the_dashboard_asks_for_tags_that_the_metric_has():
    known = {each.name: {"run", "le", "NodeAddress", *each.tags} for each in METRICS}
    for name, _, expression in asked():
        used = set(re.findall(r"[{,] ?(\w+)(?:=|!)", expression))
        grouped = {tag.strip() for group in re.findall(r"by \(([^)]+)\)", expression) for tag in group.split(",")}
        assert used | grouped <= known[SUFFIX.sub("", name)], expression


@pytest.mark.parametrize("panel", dashboard()["panels"], ids=lambda panel: panel["title"])
def test_a_panel_takes_the_chosen_source_and_shows_its_unit(panel):
    assert {panel["datasource"]["uid"], *(each["datasource"]["uid"] for each in panel["targets"])} == {"${datasource}"}
    assert panel["description"]
    for name, of, _ in asked():
        if of["id"] == panel["id"]:
            unit = next((unit for end, unit in UNITS.items() if SUFFIX.sub("", name).endswith(end)), None)
            assert unit in (None, panel["fieldConfig"]["defaults"]["unit"])


def test_the_dashboard_can_be_imported_and_no_panel_covers_another():
    found = dashboard()
    assert found["schemaVersion"] >= 39
    assert found["id"] is None
    assert [each["type"] for each in found["templating"]["list"]] == ["datasource", "query"]
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    places = [panel["gridPos"] for panel in found["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
