"""Filters, orders and searches over the attempts of a run, and the numbers that come of it."""

import pytest

from realwork.analysis.index import RunIndex
from realwork.analysis.listing import Asked, Listing
from realwork.analysis.overview import environments, overview
from realwork.analysis.search import TextSearch
from realwork.errors import InputError
from realwork.types import Message, Timing
from tests.dataset.records import failed, graded, rich
from tests.dataset.store import committed


def index_of(directory, records):
    committed(directory, records)
    index = RunIndex(directory)
    index.refresh()
    return index


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Six attempts: two that passed, one half, one lost and then made good, one without a grade."""
    timing = Timing(queue_s=2, boot_s=1, agent_s=8, llm_s=4, env_s=3, grade_s=1)
    records = [
        graded(0, environment_id="a", passed=2, seconds=30, timing=timing),
        graded(1, environment_id="a", passed=1, seconds=10, timing=timing),
        failed(2, environment_id="a", cause="model", seconds=50),
        failed(0, environment_id="b c", cause="sandbox", seconds=5),
        graded(0, environment_id="b c", attempt=1, passed=2, seconds=20),
        rich(3, environment_id="d", output="the needle: 50% of (it)\n"),
    ]
    return index_of(tmp_path_factory.mktemp("run"), records)


def ids(index, wanted="", sort=""):
    listing = Listing(index, Asked(filter=wanted, sort=sort))
    return [line.trajectory_id.removeprefix("r1:") for line in listing.lines(0, 100)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("outcome:failed", ["a:1:0", "d:3:0"]),
        ("outcome:ungraded", ["a:2:0", "b c:0:0"]),
        ("cause:sandbox", ["b c:0:0"]),
        ("reward<0.6", ["a:1:0", "d:3:0"]),
        ("reward>=0.5 env=a", ["a:0:0", "a:1:0"]),
        ("reward:none", ["a:2:0", "b c:0:0"]),
        ("reward!=none env:a seconds>10", ["a:0:0"]),
        ('env:"b c" attempt:1', ["b c:0:1"]),
        ("-env=a counts:true", ["b c:0:1", "d:3:0"]),
        ("trainable:false", ["a:2:0", "b c:0:0"]),
        ("started>2027-01-01", []),
        ("calc", []),
        ("D:3", ["d:3:0"]),
    ],
)
def test_a_filter_finds(index, wanted, expected):
    assert ids(index, wanted) == expected


def test_the_order_is_by_any_field_with_what_has_none_at_the_end(index):
    assert ids(index, "env=a", "seconds") == ["a:1:0", "a:0:0", "a:2:0"]
    assert ids(index, "env=a", "-reward") == ["a:0:0", "a:1:0", "a:2:0"]
    assert ids(index, "env=a", "reward") == ["a:1:0", "a:0:0", "a:2:0"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("rewrd<1", "did you mean 'reward'"),
        ("reward<much", "no value for reward"),
        ("counts:x", "true"),
        (f"steps>{10**30}", "like 3"),
    ],
)
def test_what_cannot_be_understood_is_said(index, wanted, said):
    with pytest.raises(InputError, match=said):
        ids(index, wanted)
    with pytest.raises(InputError, match="there is no field"):
        ids(index, "", "nothing")


def test_a_list_gives_the_rows_that_are_asked_for_and_no_more(index):
    listing = Listing(index, Asked(sort="-seconds"))
    assert len(listing) == 6
    assert [line.duration_s for line in listing.lines(1, 2)] == [30.0, 20.0]
    assert listing.neighbours("r1:a:0:0") == (1, "r1:a:2:0", "r1:b c:0:1")
    assert listing.neighbours("nobody") == (None, None, None)


@pytest.mark.parametrize("text", ["the NEEDLE", "50% of (it)", "print(1)", "AssertionError", "hm"])
def test_a_text_is_found_in_messages_calls_outputs_and_tests(index, text):
    assert "r1:d:3:0" in TextSearch(index).ids(text)


def test_a_search_sees_what_was_written_since(tmp_path):
    index = index_of(tmp_path, [graded(0, messages=(Message(role="user", content="first needle"),))])
    search = TextSearch(index)
    assert search.ids("needle") == ["r1:calc:0:0"]
    committed(tmp_path, [graded(1, messages=(Message(role="user", content="needle again"),)), graded(2)])
    index.refresh()
    assert search.ids("needle") == ["r1:calc:0:0", "r1:calc:1:0"]


def test_a_run_in_numbers_counts_rollouts_once_and_spending_always(index):
    numbers = overview(index, environments(index))
    assert (numbers.rollouts, numbers.attempts, numbers.graded, numbers.passed) == (5, 6, 4, 2)
    assert (numbers.success_rate, numbers.mean_reward) == (0.5, (1 + 0.5 + 1 + 0.5) / 4)
    assert (numbers.prompt_tokens, numbers.cost_usd) == (0, None)
    assert numbers.reasons == {"completed": 4, "llm_error": 1}
    assert [(each.cause, each.rollouts, each.attempts) for each in numbers.failures] == [
        ("model", 1, 1),
        ("sandbox", 0, 1),
    ]
    assert numbers.time_s["llm_s"] == 4 + 4 + 5
    whole_s = sum(index.table.column("duration_s").to_pylist())
    assert sum(numbers.time_s.values()) - numbers.time_s["queue_s"] == pytest.approx(whole_s)
    assert (numbers.curves.passed[-1], numbers.curves.failed[-1], numbers.curves.ungraded[-1]) == (2, 2, 1)
    assert (numbers.curves.success_rate[0], numbers.curves.success_rate[-1]) == (None, 0.5)
    assert (numbers.curves.time_s[0], numbers.curves.time_s[-1]) == (0.0, 50.0)
    assert numbers.curves.passed[0] == 0


def test_groups_that_teach_nothing_are_told_from_the_others(tmp_path):
    records = [
        *(graded(sample, environment_id="e", passed=2, group_size=2) for sample in range(2)),
        *(graded(sample, environment_id="e", passed=sample % 2, group_size=2) for sample in range(2, 4)),
        *(graded(sample, environment_id="e", passed=0, group_size=2) for sample in range(4, 6)),
        graded(6, environment_id="e", group_size=2),
        failed(7, environment_id="e", group_size=2),
    ]
    (environment,) = environments(index_of(tmp_path, records))
    verdicts = [(group.verdict, group.has_one_reward) for group in environment.groups]
    assert verdicts == [("all passed", True), ("mixed", False), ("all failed", True), ("open", False)]
    assert environment.pass_at_k == pytest.approx({1: 3 / 7, 2: 1 - 6 / 21, 4: 1 - 1 / 35})
    assert [sample.outcome for sample in environment.groups[3].samples] == ["passed", "ungraded"]


def test_a_run_without_rows_has_numbers_that_are_not_there(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    index = RunIndex(tmp_path)
    index.refresh()
    numbers = overview(index, environments(index))
    assert (numbers.rollouts, numbers.success_rate, numbers.mean_reward, numbers.curves.time_s) == (0, None, None, [])
