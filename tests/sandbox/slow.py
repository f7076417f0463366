"""A client of a real engine that hands over late what the engine says, as a busy machine does."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from realwork.errors import SandboxError
from realwork.sandbox.engine import Engine, EngineClient, connect


class SlowClient(EngineClient):
    """An `EngineClient` that lags while its attributes say so.

    Attributes:
        silent_until: on the monotonic clock; until then no output of an exec, or of a container, arrives.
        start_s: how long the answer to the start of an exec takes.
        looks: how long each of the next looks at an exec takes.
        refuses_to_attach: whether nobody may speak with a container itself; `attached` is how often that was asked.
    """

    refuses_to_attach = False
    attached = 0
    silent_until = 0.0
    start_s = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.looks: list[float] = []
        self.pumps: list[threading.Thread] = []

    def open_exec(self, exec_id: str) -> tuple[socket.socket, bytes]:
        return self._late(*super().open_exec(exec_id))

    def open_container(self, container_id: str) -> tuple[socket.socket, bytes]:
        self.attached += 1
        if self.refuses_to_attach:
            raise SandboxError("authorization denied by plugin")
        return self._late(*super().open_container(container_id))

    def _late(self, connection: socket.socket, early: bytes) -> tuple[socket.socket, bytes]:
        time.sleep(self.start_s)
        connection.settimeout(None)
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        reading = threading.Thread(target=self._read, args=(connection, early, theirs))
        writing = threading.Thread(target=self._write, args=(connection, theirs, reading))
        self.pumps += [reading, writing]
        reading.start()
        writing.start()
        return ours, b""

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        time.sleep(self.looks.pop() if self.looks else 0.0)
        found: dict[str, Any] = super().exec_inspect(exec_id)
        return found

    def _read(self, connection: socket.socket, piece: bytes, theirs: socket.socket) -> None:
        try:
            while piece or (piece := connection.recv(65536)):
                time.sleep(max(0.0, self.silent_until - time.monotonic()))
                theirs.sendall(piece)
                piece = b""
            theirs.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _write(self, connection: socket.socket, theirs: socket.socket, reading: threading.Thread) -> None:
        try:
            while piece := theirs.recv(65536):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        reading.join()
        connection.close()
        theirs.close()


@asynccontextmanager
async def slow_engine() -> AsyncIterator[tuple[Engine, SlowClient]]:
    """A connection to the engine of this machine, and its client, which is not slow yet."""
    known = connect()
    client = SlowClient(base_url=known.address, timeout=60, max_pool_size=32)
    client.address = known.address
    known.close()
    executor = ThreadPoolExecutor(32)
    engine = Engine(client, executor)
    try:
        yield engine, client
    finally:
        await engine.stop_background()
        executor.shutdown(wait=True)
        for each in client.pumps:
            await asyncio.to_thread(each.join, 10)
        client.close()
