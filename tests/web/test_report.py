"""The report is one file that needs nothing else, and tells no conversation."""

import base64
import hashlib
import re

import plotly.graph_objects
import pytest

from realwork.analysis.index import RunIndex
from realwork.analysis.overview import environments, overview
from realwork.web.charts import comparison, run_charts
from tests.dataset.records import failed, graded
from tests.dataset.store import committed
from tests.e2e.command import realwork

HOSTILE = "</script><script>alert(1)</script>\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "nightly"
    committed(directory, [graded(0), graded(1, passed=1), graded(0, environment_id=HOSTILE), failed(2)])
    return directory


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    done = realwork("report", run, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "nightly.html\n")
    return (folder / "nightly.html").read_text(encoding="utf-8")


def test_the_file_stands_alone(page):
    body = page.split("</style>")[0] + page.split("<body>")[1].split("<script>")[0]
    assert not re.findall(r'(?:src|href|action)="', body)
    assert "Mean reward" in body
    assert "the container is gone" in body
    assert "\u202e" not in body
    assert "<script>alert" not in page


def test_its_policy_allows_the_scripts_that_it_carries_and_no_other(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts}
    assert len(scripts) == 3
    assert allowed == set(re.search(r"script-src ([^;]+)", policy)[1].split())
    assert "default-src 'none'" in policy


def test_a_file_that_cannot_be_written_is_said_in_a_sentence(run, tmp_path):
    done = realwork("report", run, "--output", tmp_path, cwd=tmp_path)
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)


def test_plotly_knows_all_that_it_is_given(run):
    index = RunIndex(run)
    index.refresh()
    curves = overview(index, environments(index)).curves
    charts = [*run_charts(curves), *comparison([("a", curves), ("b", curves)])]
    assert len(charts) == 4
    for chart in charts:
        assert chart.says
        for trace in chart.traces:
            plotly.graph_objects.Figure([{name: value for name, value in trace.items() if name != "role"}])
