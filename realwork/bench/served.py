"""A model that has a process of its own, so that what it takes is told from what realwork takes.

It runs commands, each after a pause, and marks the task as done at the end.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from realwork.bench.endpoint import endpoint
from realwork.errors import InputError

START_S = 30.0


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
    spawning = multiprocessing.get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    end = spawning.Event()
    process = spawning.Process(target=_serve, args=(sender, end, commands, reply_s), daemon=True)
    process.start()
    try:
        if not receiver.poll(START_S):
            raise InputError("the endpoint of the measurement does not start; is the machine overloaded?")
        yield Served(f"http://127.0.0.1:{receiver.recv()}/v1", process.pid or 0, end)
    finally:
        process.terminate()
        process.join()


def _serve(port: Connection, end: Any, commands: int | None, reply_s: float) -> None:
    def answer(body: bytes) -> bytes:
        time.sleep(reply_s)
        turn = sum(message["role"] == "assistant" for message in json.loads(body)["messages"])
        is_last = end.is_set() if commands is None else turn >= commands
        return json.dumps(completion(None if is_last else turn)).encode()

    server = endpoint(answer)
    port.send(server.server_port)
    server.serve_forever()


def completion(turn: int | None) -> dict[str, Any]:
    """The reply of a turn, which runs a command; null marks the task as done."""
    name, arguments = "mark_done", "{}"
    if turn is not None:
        name, arguments = "execute_command", json.dumps({"command": f"echo {turn} > file-{turn}; ls"})
    call = {"id": f"call_{turn}", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"model": "bench", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
