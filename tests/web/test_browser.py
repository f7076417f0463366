"""The page in a browser: a run that real containers played, followed while it went on, and a run of 10,000 rollouts."""

import json
import re
import time
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from realwork.web.report import report
from realwork.web.runs import Runs
from tests.e2e.command import environment, run_file, running, wait_until

from .browser import chromium
from .runs import write_big
from .serving import viewer

OWNED = "window.owned=1;document.title='owned';alert('owned')"
HOSTILE = (
    f"<script>{OWNED}</script>",
    f'<img src=x onerror="{OWNED}"><svg onload="{OWNED}">',
    f'</pre></details></script><iframe srcdoc="<script>{OWNED}</script>"></iframe>',
    "\x1b]0;owned\x07\x1b[2J\x1b[8mhidden\x1b[0m",
    "abc\u202egnp.exe \u2066\u200b",
    "{{7*7}} ${7*7} javascript:alert(1) http://evil.example/x.png",
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(autouse=True)
def only_here(browser):
    """After each test: the browser has asked nobody but the viewer, and no dialog stands."""
    browser.asked_for()
    yield
    hosts = {urlsplit(address).hostname for address in browser.asked_for() if address.startswith(("http", "ws"))}
    assert hosts <= {"127.0.0.1"}


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "big"
    write_big(folder)
    with viewer(folder) as site:
        yield f"{site.base}/runs/big"


@pytest.fixture(scope="module")
def played(docker_image, browser, tmp_path_factory):
    """A run in real containers, the page that was open while it went on, and what that showed from time to time."""
    folder = tmp_path_factory.mktemp("played")
    said = "\n".join(HOSTILE)
    (folder / "said.txt").write_text(said, encoding="utf-8")
    calls = [
        {"name": "write_file", "arguments": {"filepath": "x.html", "content": said}},
        {
            "name": "execute_command",
            "arguments": {"command": "sleep 3; cat x.html; head -c 5000000 /dev/zero | tr '\\0' x"},
        },
    ]
    replies = {
        "hostile": [{"content": said, "tool_calls": calls}],
        "good": [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "sleep 3; touch done"}}]}],
    }
    (folder / "replies.json").write_text(json.dumps(replies))
    file = run_file(
        folder,
        environments=[
            environment("hostile", unit_tests=["cat x.html; false", "test -f x.html"]),
            environment("good"),
        ],
        llm_config={"model": "scripted:replies.json"},
        episode_control_config={"max_episodes": 3},
    )
    directory, seen = folder / "out" / "live", []
    with running("run", file, "--run-id", "live", "--no-ray", cwd=folder) as process:
        wait_until((directory / "run.json").exists, seconds=60, what="the run has a directory")
        with viewer(folder / "out") as site:
            browser.open(f"{site.base}/runs/live")
            browser.js("window.neverLoadedAgain = true")
            while process.poll() is None:
                seen.append(browser.js("return document.querySelector('.stat dd')?.firstChild.textContent.trim()"))
                time.sleep(0.2)
            browser.until("return document.querySelector('.stat dd').firstChild.textContent.trim() === '6'")
            browser.until("return !document.querySelector('.live')")
            stays = browser.js("return window.neverLoadedAgain")
            yield f"{site.base}/runs/live", seen, stays


def test_an_open_page_follows_the_run_without_being_loaded_again(played):
    _, seen, stays = played
    counts = [int(count) for count in seen if count]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 3
    assert stays is True


def test_nothing_that_an_agent_wrote_runs(browser, played):
    run, _, _ = played
    browser.open(f"{run}/rollouts?filter=env:hostile")
    browser.all("a.row")[0].click()
    browser.until("return document.querySelector('.step')")
    browser.press("e")
    text = browser.js("return document.body.innerText")
    for part in ("<script>window.owned=1", "onerror=", "␛[2J", "⟨U+202E⟩gnp.exe ⟨U+2066⟩⟨U+200B⟩", "{{7*7}}"):
        assert part in text
    for view in ("", "/environments", "/rollouts"):
        browser.open(run + view)
        assert browser.js("return [window.owned ?? null, document.title.includes('owned')]") == [None, False]
    assert browser.js("return document.querySelectorAll('iframe, object, embed, main img').length") == 0


def test_a_failing_rollout_leads_to_its_failing_test(browser, played):
    run, _, _ = played
    browser.open(run)
    browser.one(".tabs a:last-child").click()
    browser.write("#filter", "outcome:failed")
    browser.until("return location.search.includes('outcome%3Afailed')")
    rows = browser.all("a.row")
    assert len(rows) == 3
    rows[0].click()
    browser.until("return document.querySelector('.outcome.failed')")
    browser.one("a.failing").click()
    assert browser.hash == "test-0"
    shown = browser.js("const test = document.activeElement; return [test.id, test.open, test.innerText]")
    assert shown[:2] == ["test-0", True]
    assert "exit 1" in shown[2]
    assert "<script>window.owned=1" in shown[2]
    browser.js("document.activeElement.blur()")
    browser.press("f")
    assert browser.hash == "test-0"


def test_ten_thousand_rollouts_are_scrolled_through_with_few_rows_in_the_page(browser, big):
    browser.open(f"{big}/rollouts")
    assert browser.js("return document.querySelector('table.list').ariaRowCount") == "10001"
    assert len(browser.all("a.row")) <= 400
    browser.js("scrollTo(0, document.body.scrollHeight)")
    browser.until("return document.querySelector('tr[aria-rowindex=\"10001\"]')")
    assert len(browser.all("a.row")) <= 600
    asked = [address for address in browser.asked_for() if "/lines" in address]
    assert 1 <= len(asked) <= 10
    browser.js("scrollTo(0, document.body.scrollHeight / 2)")
    browser.until(
        "return [...document.querySelectorAll('a.row')].some(row => {"
        "const box = row.getBoundingClientRect(); return box.top > 100 && box.bottom < innerHeight })"
    )


def test_filters_and_orders_stand_in_the_address(browser, big):
    browser.open(f"{big}/rollouts")
    browser.write("#filter", "outcome:failed reward>0.4 steps>45")
    browser.until("return location.search.includes('steps%3E45')")
    shown = browser.one(".title .quiet").text
    browser.one("thead .c-steps a").click()
    browser.until("return document.querySelector('[aria-sort=descending]')")
    assert browser.one(".title .quiet").text == shown
    steps = [int(cell.text) for cell in browser.all("td.n-steps")]
    assert steps == sorted(steps, reverse=True)
    assert min(steps) > 45
    address = browser.driver.current_url
    first = browser.one("a.row").get_attribute("href")
    browser.open("about:blank")
    browser.open(address)
    assert browser.one("a.row").get_attribute("href") == first
    browser.write("#filter", "stepz>45")
    assert "did you mean 'steps'" in browser.one("[role=alert]").text


def test_a_text_is_searched_for_in_what_was_said(browser, big):
    browser.open(f"{big}/rollouts?filter=cause:model")
    few = browser.one(".title .quiet").text
    browser.write("[name=text]", "KEEP THEM TOGETHER")
    browser.until("return location.search.includes('text=KEEP')")
    assert browser.one(".title .quiet").text == few
    browser.write("[name=text]", "nobody wrote this")
    browser.until("return document.querySelector('.empty')")
    assert browser.one(".title .quiet").text == "0 of 10,000 attempts"


def test_a_rollout_is_gone_through_with_the_keyboard(browser, big):
    browser.open(f"{big}/rollouts?filter=outcome:failed")
    browser.press("j", "j", Keys.ENTER)
    browser.until("return document.querySelector('.step')")
    assert browser.one(".steps-nav .quiet").text.startswith("2 of ")
    browser.press("j", "j", "j", "j", "k")
    assert browser.hash == "step-0"
    assert browser.js("return document.activeElement.id") == "step-0"
    browser.press("o")
    assert browser.js("return document.activeElement.querySelector('details').open") is False
    browser.press("f")
    assert browser.hash == "test-3"
    browser.press("?")
    assert browser.js("return document.querySelector('dialog').open") is True
    browser.press(Keys.ESCAPE)
    assert browser.js("return document.querySelector('dialog').open") is False
    browser.press("]")
    browser.until("return document.querySelector('.steps-nav .quiet')?.textContent.startsWith('3 of')")
    browser.press("u")
    browser.until("return document.querySelector('table.list')")
    assert browser.one("#filter").get_attribute("value") == "outcome:failed"


def test_a_step_has_an_address_of_its_own(browser, big):
    browser.open(f"{big}/rollouts?filter=outcome:failed")
    address = browser.one("a.row").get_attribute("href")
    browser.open(f"{address}#step-37")
    assert browser.js("return document.activeElement.id") == "step-37"
    top = browser.js("return document.activeElement.getBoundingClientRect().top")
    assert 0 <= top < 400
    assert browser.one(".outline [aria-current]").get_attribute("href").endswith("#step-37")


def test_dark_and_light_are_the_readers_choice_and_stay(browser, big):
    def paper():
        return browser.js("return getComputedStyle(document.body).backgroundColor")

    browser.open(big)
    before = paper()
    browser.one("[data-action=theme]").click()
    after = paper()
    assert after != before
    browser.open(f"{big}/environments")
    assert paper() == after
    browser.press("t")
    assert paper() == before


@pytest.mark.parametrize("view", ["", "/environments", "/rollouts", "rollout"])
def test_a_page_is_whole_for_screen_readers_and_on_a_small_screen(browser, big, view):
    if view == "rollout":
        browser.open(f"{big}/rollouts?filter=outcome:failed")
        browser.open(browser.one("a.row").get_attribute("href"))
    else:
        browser.open(big + view)
    unnamed = browser.js(
        "return [...document.querySelectorAll('a, button, summary, input, select')]"
        ".filter(each => !(each.ariaLabel || each.textContent.trim() || each.labels?.length))"
        ".map(each => each.outerHTML)"
    )
    assert unnamed == []
    assert browser.js("return [...document.querySelectorAll('th')].filter(each => !each.scope).length") == 0
    assert len(browser.all("main")) == len(browser.all("h1")) == len(browser.all("header.top")) == 1
    ids = browser.js("return [...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert browser.js("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


FAINT_TEXTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const over = ([r, g, b, a = 1], below) => [r, g, b].map((each, i) => a * each + (1 - a) * below[i]);
const light = (colour) => colour.map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, i) => sum + each * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (element) => {
    if (!element) return [255, 255, 255];
    return over(channels(getComputedStyle(element).backgroundColor), behind(element.parentElement));
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("svg, script, .unseen")) continue;
    const paper = behind(element), ink = over(channels(getComputedStyle(element).color), paper);
    const [dark, bright] = [light(paper), light(ink)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${element.className} ${texts.currentNode.data.slice(0, 40)}`);
}
return [...new Set(faint)];
"""
"""Texts whose contrast with what is behind them is below that of WCAG's level AA."""


@pytest.mark.parametrize("view", ["", "/environments", "/rollouts", "rollout"])
def test_every_text_can_be_read_in_light_and_dark(browser, big, view):
    browser.open(f"{big}/rollouts?filter=outcome:failed" if view == "rollout" else big + view)
    if view == "rollout":
        browser.open(browser.one("a.row").get_attribute("href"))
    faint = []
    for _ in range(2):
        faint += browser.js(FAINT_TEXTS)
        browser.one("[data-action=theme]").click()
    assert faint == []


def test_groups_without_contrast_are_marked_and_pass_at_k_stands_beside_them(browser, big):
    for verdict in ("all failed", "all passed"):
        browser.open(f"{big}/environments?show={verdict}")
        assert {each.text for each in browser.all(".badge")} == {verdict}
    browser.open(f"{big}/environments")
    heads = [each.text for each in browser.all("thead th")]
    cells = [each.text for each in browser.all("tbody tr:first-child > *")]
    shares = {head: cell for head, cell in zip(heads, cells, strict=True) if head.startswith("pass@")}
    assert list(shares) == ["pass@1", "pass@2", "pass@4", "pass@8"]
    assert shares["pass@1"] == cells[heads.index("Success")]
    values = [float(share.rstrip("%")) for share in shares.values() if share.endswith("%")]  # a group may lack grades
    assert len(values) >= 3
    assert values == sorted(values)


def test_the_browser_refuses_nothing_of_ours(browser, big):
    browser.driver.get_log("browser")
    browser.open(big)
    said = [entry["message"] for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert [line for line in said if not re.search(r"plotly\.min\.js.*inline style", line)] == []
    assert len(browser.all(".plot .main-svg")) >= 3


def test_the_report_stands_alone(browser, big, tmp_path):
    write_big(tmp_path / "sent", rollouts=80, run="sent")
    file = tmp_path / "report.html"
    file.write_text(report(Runs([tmp_path / "sent"]).all()), encoding="utf-8")
    browser.asked_for()
    browser.open(file.as_uri())
    assert len(browser.all(".plot[data-drawn] .main-svg")) >= 3
    assert {urlsplit(address).scheme for address in browser.asked_for()} <= {"file", "data", "blob"}
    assert "Where the time goes" in browser.one("main").text
