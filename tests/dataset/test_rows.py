"""Records become rows and come back."""

from datetime import timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from realwork.dataset.encoding import table
from realwork.dataset.rows import row, trajectory
from realwork.dataset.schema import DICTIONARY_COLUMNS, SAMPLE_SCHEMA, SCHEMA
from realwork.types import Message, Record

from .records import BEGAN, failed, graded, rich


def through_arrow(record):
    return trajectory(table([record]).to_pylist()[0])


@pytest.mark.parametrize(
    "record",
    [
        rich(),
        graded(),
        failed(),
        failed(metadata='{"python": "3.12"}'),
        rich(success=None, reward=None, rewards=(), grading_mode=None),
        rich(output="\x1b[31mred\x1b[0m\0\u2028\U0001f600"),
    ],
    ids=["rich", "graded", "retryable failure", "its metadata", "tests without a grade", "odd text"],
)
def test_a_record_comes_back_as_it_was(record):
    assert through_arrow(record) == record


def records_in(value):
    if isinstance(value, Record):
        yield value
        for name in type(value).model_fields:
            yield from records_in(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from records_in(item)


def test_the_records_that_come_back_use_every_field_there_is():
    seen = [*records_in(rich()), *records_in(failed(attempt=1))]
    unused = {
        f"{kind.__name__}.{name}"
        for kind in {type(record) for record in seen}
        for name, field in kind.model_fields.items()
        if all(getattr(record, name) == field.default for record in seen if type(record) is kind)
    }
    assert unused == {"ToolCall.type", "NamedReward.weight", "RolloutSpec.resumed"}


def names_of(kind, value):
    """The names in `value` that are not those of the Arrow type, at any depth."""
    if pa.types.is_list(kind):
        return [name for item in value or () for name in names_of(kind.value_type, item)]
    if not pa.types.is_struct(kind) or value is None:
        return []
    fields = {field.name: field.type for field in kind}
    wrong = sorted(fields.keys() ^ value.keys())
    return wrong + [name for field, item in value.items() if field in fields for name in names_of(fields[field], item)]


def test_a_row_has_exactly_the_columns_of_the_schema_at_every_depth():
    assert names_of(pa.struct(list(SCHEMA)), row(rich())) == []


def nested_names(kind):
    if pa.types.is_list(kind):
        return nested_names(kind.value_type)
    if pa.types.is_struct(kind):
        return {field.name for field in kind} | {name for field in kind for name in nested_names(field.type)}
    return set()


def test_no_nested_name_repeats_a_top_level_one():
    nested = {name for field in SCHEMA for name in nested_names(field.type)}
    assert nested.isdisjoint(SCHEMA.names)


def test_every_dictionary_column_is_a_column(tmp_path):
    pq.write_table(table([rich()]), tmp_path / "a.parquet")
    leaves = {column.path for column in pq.ParquetFile(tmp_path / "a.parquet").schema} | set(SAMPLE_SCHEMA.names)
    assert set(DICTIONARY_COLUMNS) <= leaves


def test_what_was_not_graded_has_no_reward_and_no_count_of_tests():
    ungraded = row(failed())
    assert [ungraded[name] for name in ("reward", "success", "tests_passed", "tests_total")] == [None] * 4
    assert ungraded["reward_valid"] is False


def test_a_reward_of_zero_is_a_valid_reward():
    nothing_passed = row(graded(passed=0))
    assert (nothing_passed["reward"], nothing_passed["reward_valid"], nothing_passed["success"]) == (0.0, True, False)


def test_a_cost_that_nobody_said_is_null():
    assert row(graded())["total_cost_usd"] is None
    assert row(rich(fork_step=None))["total_cost_usd"] == 0.25


def test_what_another_attempt_has_paid_is_in_no_sum():
    assert row(rich(fork_step=1))["total_cost_usd"] is None
    assert row(rich(fork_step=1))["n_steps"] == 2


def test_a_lone_surrogate_becomes_the_replacement_character_and_the_rest_stays():
    record = graded(messages=(Message(role="user", content="a\ud800b"), Message(role="user", content="ok")))
    assert [message.content for message in through_arrow(record).messages] == ["a\ufffdb", "ok"]


def test_a_time_in_another_zone_is_the_same_instant():
    there = BEGAN.astimezone(timezone(timedelta(hours=5)))
    assert table([graded(started_at=there)]).column("started_at")[0].as_py() == BEGAN


def test_a_number_that_does_not_fit_into_its_column_is_an_error_and_not_another_number():
    with pytest.raises(pa.ArrowInvalid):
        table([graded(sample=1 << 40)])
