"""The report is one file that needs nothing else, and tells no conversation."""

import base64
import hashlib
import re

import plotly.graph_objects
import pytest

from realwork.analysis.index import RunIndex
from realwork.analysis.overview import overview
from realwork.web.charts import comparison, run_charts
from tests.dataset.records import failed, graded
from tests.dataset.store import committed
from tests.e2e.command import realwork

HOSTILE = "</script><script>alert(1)</script>\u202e"


@pytest.fixture
def run(tmp_path):
    committed(tmp_path / "nightly", [graded(0), graded(1, passed=1), graded(0, environment_id=HOSTILE), failed(2)])
    return tmp_path / "nightly"


def test_the_file_stands_alone(run, tmp_path):
    done = realwork("report", run, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "nightly.html\n")
    page = (tmp_path / "nightly.html").read_text(encoding="utf-8")
    body = page.split("</style>")[0] + page.split("<body>")[1].split("<script>")[0]
    assert not re.findall(r'(?:src|href|action)="', body)
    assert "Mean reward" in body
    assert "sandbox" in body
    assert "the container is gone" in body
    assert "\u202e" not in body
    assert "<script>alert" not in page


def test_its_policy_allows_the_scripts_that_it_carries_and_no_other(run, tmp_path):
    realwork("report", run, "--output", "one.html", cwd=tmp_path)
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts}
    assert len(scripts) == 3
    assert allowed == set(re.search(r"script-src ([^;]+)", policy)[1].split())
    assert "default-src 'none'" in policy


def test_mistakes_are_said_in_a_sentence(run, tmp_path):
    assert "holds no run" in realwork("report", tmp_path / "nightly" / "trajectories", cwd=tmp_path).stderr
    done = realwork("report", run, "--output", tmp_path, cwd=tmp_path)
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)


def test_plotly_knows_all_that_it_is_given(run):
    index = RunIndex(run)
    index.refresh()
    curves = overview(index).curves
    charts = [*run_charts(curves), *comparison([("a", curves), ("b", curves)])]
    assert len(charts) == 4
    for chart in charts:
        assert chart.says
        for trace in chart.traces:
            plotly.graph_objects.Figure([{name: value for name, value in trace.items() if name != "role"}])
