"""Which attempts of an index are wanted, and in which order, as people write it: `reward<0.5 cause:sandbox -env:calc`.

Guarantees: what cannot be understood is an `InputError` that says what can be; nothing of it is evaluated as code.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from realwork.errors import InputError

FIELDS = {
    "id": "trajectory_id",
    "env": "environment_id",
    "group": "group_id",
    "sample": "sample_index",
    "attempt": "attempt",
    "outcome": "outcome",
    "status": "status",
    "reason": "terminated_reason",
    "cause": "failure_cause",
    "error": "error_message",
    "error_type": "error_type",
    "reward": "reward",
    "passed": "tests_passed",
    "tests": "tests_total",
    "steps": "n_steps",
    "calls": "n_tool_calls",
    "prompt_tokens": "total_prompt_tokens",
    "completion_tokens": "total_completion_tokens",
    "tokens": "total_tokens",
    "cost": "total_cost_usd",
    "seconds": "duration_s",
    "queue": "queue_s",
    "image": "image_s",
    "boot": "boot_s",
    "agent": "agent_s",
    "llm": "llm_s",
    "env_time": "env_s",
    "grade": "grade_s",
    "slot": "slot_s",
    "store": "store_s",
    "started": "started_at",
    "ended": "ended_at",
    "model": "model",
    "policy": "policy_version",
    "host": "base_url_host",
    "node": "node_id",
    "docker_image": "docker_image",
    "network": "network",
    "grading": "grading_mode",
    "parent": "parent_trajectory_id",
    "counts": "counts",
    "trainable": "reward_valid",
}
"""Column by the name that is written for it."""
_TERM = re.compile(r'(?P<not>-)?(?:(?P<field>[a-z_]+)(?P<op>!=|<=|>=|[:=<>]))?(?P<value>"[^"]*"?|\S+)')
_COMPARE: dict[str, Callable[..., Any]] = {
    ":": pc.equal,
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_WORDS = ("trajectory_id", "error_message")
_NOTHING = "none"


def filtered(rows: pa.Table, wanted: str) -> pa.Table:
    """The rows for which all terms of `wanted` hold.

    A term is `FIELD:VALUE`, with `=`, `!=`, `<`, `<=`, `>` or `>=` for the colon, or a word that stands in the id or
    the error; `-` before it turns it round, and `none` is the value that is not there. A colon finds parts of texts.

    Raises:
        InputError: a field is not known, or a value is none of its kind.
    """
    for term in _TERM.finditer(wanted):
        mask = _mask(rows, term["field"], term["op"], term["value"].strip('"'))
        mask = pc.fill_null(mask, fill_value=False)
        rows = rows.filter(pc.invert(mask) if term["not"] else mask)
    return rows


def ordered(rows: pa.Table, order: str) -> pa.Table:
    """The rows by a field, downwards after `-`; those that have none of it come last. Empty: as they are.

    Raises:
        InputError: the field is not known.
    """
    if not order:
        return rows
    column = _column(order.removeprefix("-"))
    direction = "descending" if order.startswith("-") else "ascending"
    return rows.take(pc.sort_indices(rows, sort_keys=[(column, direction, "at_end")]))


def _column(field: str) -> str:
    if field not in FIELDS:
        near = get_close_matches(field, FIELDS, 1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"there is no field '{field}'{meant} Fields: {', '.join(FIELDS)}")
    return FIELDS[field]


def _mask(rows: pa.Table, field: str | None, op: str, value: str) -> Any:
    if field is None:
        found = [pc.match_substring(rows.column(name), value, ignore_case=True) for name in _WORDS]
        return pc.or_(*(pc.fill_null(each, fill_value=False) for each in found))
    column = rows.column(_column(field))
    if value == _NOTHING and op in (":", "=", "!="):
        return pc.is_valid(column) if op == "!=" else pc.is_null(column)
    if pa.types.is_string(column.type) and op == ":":
        return pc.match_substring(column, value, ignore_case=True)
    return _COMPARE[op](column, _scalar(column.type, field, value))


def _scalar(kind: pa.DataType, field: str, text: str) -> pa.Scalar:
    try:
        return pa.scalar(_value(kind, text), kind)
    except (KeyError, ValueError, OverflowError) as error:
        example = {"bool": "true", "double": "0.5", "int32": "3", "int64": "3"}.get(str(kind), "2026-01-31T12:00")
        raise InputError(f"'{text}' is no value for {field}, which is one like {example}") from error


def _value(kind: pa.DataType, text: str) -> Any:
    if pa.types.is_boolean(kind):
        return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_floating(kind):
        return float(text)
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return text
