"""A model that has a process of its own, so that what it takes is told from what realwork takes.

It runs commands, each after a pause, and marks the task as done at the end.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from realwork.bench.endpoint import serving


class Served(NamedTuple):
    """Where it is, its process, and how it is told to let every rollout end with its next reply."""

    base_url: str
    pid: int
    end: Any


@contextmanager
def served_model(commands: int | None, *, reply_s: float = 0.0) -> Iterator[Served]:
    """A model that runs so many commands, without a number until it is told to end; each reply takes `reply_s`.

    Raises:
        InputError: it does not start.
    """
    end = multiprocessing.get_context("spawn").Event()
    with serving(partial(_answer, end, commands, reply_s)) as (base_url, pid):
        yield Served(base_url, pid, end)


def _answer(end: Any, commands: int | None, reply_s: float, body: bytes) -> bytes:
    time.sleep(reply_s)
    turn = sum(message["role"] == "assistant" for message in json.loads(body)["messages"])
    is_last = end.is_set() if commands is None else turn >= commands
    return json.dumps(completion(None if is_last else turn)).encode()


def completion(turn: int | None) -> dict[str, Any]:
    """The reply of a turn, which runs a command; null marks the task as done."""
    name, arguments = "mark_done", "{}"
    if turn is not None:
        name, arguments = "execute_command", json.dumps({"command": f"echo {turn} > file-{turn}; ls"})
    call = {"id": f"call_{turn}", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"model": "bench", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
