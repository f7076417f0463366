"""Who is answered, with what, and what cannot be reached; what a page costs."""

import asyncio
import json
import re
import shutil
import time

import pytest

from realwork.dataset.run_directory import held
from realwork.types import Message
from tests.dataset.records import call, failed, graded, rich
from tests.dataset.store import committed, in_flight

from .runs import write_big
from .serving import viewer

VIEWS = (
    "",
    "/environments",
    "/rollouts",
    "/lines",
    "/version",
    "/rollout?id=r1:calc:0:0",
    "/text?id=r1:calc:0:0&at=diff",
)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\x1b[2J\u202etxt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of a few attempts, one of which says hostile things wherever it can."""
    folder = tmp_path_factory.mktemp("runs")
    messages = (
        Message(role="user", content=HOSTILE),
        Message(role="assistant", content=HOSTILE, tool_calls=(call("c", HOSTILE, json.dumps({HOSTILE: HOSTILE})),)),
    )
    hostile = failed(2, environment_id=HOSTILE, messages=messages).model_copy(update={"error_message": HOSTILE})
    committed(folder / "r1", [graded(0), rich(1), hostile])
    (folder / "secret.txt").write_text("the secret")
    return folder


@pytest.fixture(scope="module")
def site(runs):
    with viewer(runs) as found:
        yield found


@pytest.mark.parametrize("view", VIEWS)
def test_every_answer_forbids_scripts_frames_and_other_hosts(site, view):
    headers = site.get(f"/runs/r1{view}").headers
    said = headers["content-security-policy"]
    policy = {name: value for name, _, value in (part.strip().partition(" ") for part in said.split(";"))}
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in said
    assert policy.get("script-src", "'self'") == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_an_error_has_the_same_headers(site):
    for path in ("/nothing", "/runs/nobody", "/runs/r1/rollout?id=nobody", "/static/server.py"):
        answer = site.get(path)
        assert answer.status == 404
        assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]:80", ""])
def test_a_request_under_another_name_is_refused(site, host):
    assert site.get("/runs/r1", Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8080", "LOCALHOST:80"])
def test_a_request_under_a_name_of_loopback_is_answered_also_through_a_tunnel(site, host):
    assert site.get("/runs/r1", Host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_done_but_reading(site, method):
    assert site.get("/runs/r1", method=method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../secret.txt",
        "/runs/%2e%2e/secret.txt",
        "/runs/..%2fsecret.txt/rollouts",
        "/runs/r1%2f..%2f..",
        "/static/..%2f..%2f..%2fpyproject.toml",
        "/static/../server.py",
        "/static/%2fetc%2fpasswd",
        "//etc/passwd",
        "/runs/r1/text?id=../../secret.txt&at=diff",
        "/runs/r1/text?id=r1:calc:0:0&at=../../secret.txt",
        "/runs/r1/text?id=r1:calc:0:0&at=content.-1.__class__",
        "/runs/%00/rollouts",
    ],
)
def test_no_path_leads_out_of_the_runs(site, path):
    answer = site.get(path)
    assert answer.status == 404
    assert "secret" not in answer.text.replace("secret.txt", "")
    assert "root:" not in answer.text


def test_what_agents_wrote_is_text_on_every_page(site):
    found = site.get("/runs/r1/rollouts?filter=outcome:ungraded").text
    name = re.search(r"/runs/r1/rollout\?id=([^&\"]+)", found)[1]
    pages = [found, *(site.get(f"/runs/r1{view}").text for view in ("", "/environments"))]
    pages.append(site.get(f"/runs/r1/rollout?id={name}").text)
    for page in pages:
        assert "owned" in page
        assert "<script>document" not in page
        assert "<img" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert "⟨U+202E⟩" in page


@pytest.mark.parametrize(
    "query",
    [f"begin={10**30}", "begin=-5", "begin=x", "filter=%ff%00", "filter=started:x", "sort=-", "text=%00", "page=0"],
)
def test_an_odd_question_has_an_answer(site, query):
    for view in ("lines", "rollouts", "environments"):
        assert site.get(f"/runs/r1/{view}?{query}").status in (200, 400)


def test_a_filter_in_the_address_is_text_as_well(site):
    page = site.get('/runs/r1/rollouts?filter="><script>x</script>&sort="><b>').text
    assert "<script>x" not in page
    assert "there is no field" in page


def test_a_token_is_asked_for_and_kept_in_a_cookie(runs):
    with viewer(runs, token="the-token") as site:
        assert site.get("/runs/r1").status == 401
        assert site.get("/static/page.css").status == 401
        assert site.get("/runs/r1?token=the-toke").status == 401
        answer = site.get("/runs/r1/rollouts?token=the-token&filter=outcome:passed", Host="build.example")
        assert answer.status == 303
        assert answer.headers["location"] == "/runs/r1/rollouts?filter=outcome:passed"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert site.get("/runs/r1", Cookie=cookie.partition(";")[0], Host="build.example").status == 200
        assert site.get("/runs/r1", Cookie=f"realwork-{site.port}=other").status == 401
        assert site.get("//evil.example/?token=the-token").headers["location"].startswith("/evil.example")


def test_a_whole_text_is_given_as_text_that_no_browser_runs(site):
    name = "r1:calc:1:0"
    shown = site.rollout("r1", name).text
    assert "5 passed" in shown
    answer = site.get(f"/runs/r1/text?id={name}&at=output.0.1&download=1")
    assert answer.text == "5 passed\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_line_of_five_megabytes_is_cut_and_can_be_had_whole(tmp_path):
    committed(tmp_path, [rich(0, output="x" * 5_000_000)])
    with viewer(tmp_path) as site:
        page = site.rollout(tmp_path.name, "r1:calc:0:0")
        assert len(page.text) < 200_000
        (address,) = set(re.findall(r'href="([^"]+at=output[^"]+)">Whole', page.text))
        assert len(site.get(address.replace("&amp;", "&")).text) == 5_000_000


def test_one_run_is_shown_at_once_and_several_side_by_side(site, runs, tmp_path):
    assert site.get("/").headers["location"] == "/runs/r1"
    committed(tmp_path / "r1", [graded(0)])
    with viewer(runs, tmp_path) as both:
        page = both.get("/").text
        assert 'href="/runs/r1"' in page
        assert 'href="/runs/r1~2"' in page
        committed(tmp_path / "later", [graded(0)])
        assert 'href="/runs/later"' in both.get("/").text


def test_a_run_that_cannot_be_read_hides_no_other(tmp_path):
    for name in ("bad", "good"):
        committed(tmp_path / name, [graded(0)])
    (part,) = (tmp_path / "bad").glob("trajectories/*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    with viewer(tmp_path) as site:
        page, alone, other = site.get("/"), site.get("/runs/bad"), site.get("/runs/good")
    assert (page.status, alone.status, other.status) == (200, 500, 200)
    assert "/runs/good" in page.text
    assert f"It cannot be read: {part} cannot be read" in page.text
    assert part.name in alone.text


def test_a_run_whose_directory_goes_leaves_the_page(tmp_path):
    for name in ("gone", "stays", "stays-too"):
        committed(tmp_path / name, [graded(0)])
    with viewer(tmp_path) as site:
        before = site.get("/").text
        shutil.rmtree(tmp_path / "gone")
        after = site.get("/")
    assert "/runs/gone" in before
    assert after.status == 200
    assert "/runs/gone" not in after.text
    assert "/runs/stays" in after.text


def test_a_run_in_its_first_moments_has_a_page(tmp_path):
    for name in ("first", "second"):
        committed(tmp_path / name, [graded(0)])
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "run.json").write_text("{}")
    (begun / "ledger.sqlite").touch()
    with viewer(tmp_path) as site:
        assert (site.get("/").status, site.get("/runs/begun").status) == (200, 200)


def test_a_rollout_in_flight_is_shown_with_the_steps_so_far(tmp_path):
    async def play():
        record = rich(4)
        async with in_flight(tmp_path, record):
            with held(tmp_path), viewer(tmp_path) as site:
                run = f"/runs/{tmp_path.name}"
                return site.get(run).text, site.get(f"{run}/rollout?id={record.spec.trajectory_id}").text

    page, rollout = asyncio.run(play())
    assert "In flight" in page
    assert f"/runs/{tmp_path.name}/rollout?id=r1%3Acalc%3A4%3A0" in page
    assert "It is being played" in rollout
    assert 'id="step-1"' in rollout


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    folder = tmp_path_factory.mktemp("big")
    write_big(folder)
    with viewer(folder) as found:
        found.folder, found.run = folder, f"/runs/{folder.name}"
        yield found


def test_ten_thousand_rollouts_of_fifty_steps_open_in_less_than_two_seconds(big):
    assert big.get(big.run).status == 200  # this viewer has nothing more to prepare
    began = time.process_time()  # of all threads: other work on this machine does not count
    with viewer(big.folder) as site:
        assert "10,000" in site.get(big.run).text
    assert time.process_time() - began < 2


@pytest.mark.parametrize("view", ["", "/environments", "/rollouts", "/rollouts?sort=-reward", "/lines?begin=9900"])
def test_a_page_of_ten_thousand_rollouts_is_small(big, view):
    answer = big.get(f"{big.run}{view}")
    assert answer.status == 200
    assert answer.sent < 20_000
    assert len(re.findall(r'<a class="row"', answer.text)) <= 100


def test_a_list_of_ten_thousand_is_had_in_pieces(big):
    page = big.get(f"{big.run}/rollouts?filter=outcome:failed").text
    count = int(re.search(r'data-count="(\d+)"', page)[1])
    assert 1000 < count < 10_000
    last = big.get(f"{big.run}/lines?filter=outcome:failed&begin={count // 100 * 100}").text
    assert len(re.findall(r"<tr ", last)) == count % 100
    assert f'aria-rowindex="{count + 1}"' in last


def test_a_rollout_of_fifty_steps_is_one_small_page(big):
    name = re.search(r"rollout\?id=([^&\"]+)", big.get(f"{big.run}/rollouts?filter=outcome:failed").text)[1]
    answer = big.get(f"{big.run}/rollout?id={name}&filter=outcome%3Afailed")
    assert len(re.findall(r'<article id="step-', answer.text)) == 50
    assert answer.sent < 40_000
    assert "tests/test_parser.py::test_quotes" in answer.text
    assert 'rel="next"' in answer.text


def test_the_page_of_a_run_follows_it_whether_it_goes_on_already_or_will_again(tmp_path):
    """Its first seconds are those before its ledger is there, and one that has ended may be taken up."""
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "run.json").write_text(json.dumps({"run_id": "young", "run_file": {}}))
    with viewer(tmp_path / "young") as site:
        answer = site.get("/runs/young")
    assert answer.status == 200
    assert re.search(r"<body[^>]* data-live", answer.text)
    assert 'class="live"' not in answer.text
