"""The Docker engine, asked without blocking the event loop.

Guarantees: every request has a deadline; a request whose caller is gone leaves nothing open; whatever the engine says
comes out as an error of `realwork.errors`.
"""

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

import docker
from docker.errors import DockerException
from docker.utils import kwargs_from_env
from requests import Response
from requests.exceptions import RequestException

from realwork.errors import ImageError, SandboxError, SandboxLost
from realwork.sandbox.refusals import LoadRefused, TooSlow, advice, translated
from realwork.sandbox.stream import FrameStream
from realwork.types import Record

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=FrameStream)

REQUEST_S = 60.0
"""A thread never waits longer for one answer."""
THREADS = 32
UNIX = "unix://"
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
NOT_FOUND = 404
EMPTY_TAR_BYTES = 1024
NOT_UNPACKED = "Error unpacking image"
"""How an engine with containerd's image store tells that layers were missing: it has the image then, but of no use."""


class EngineClient(docker.APIClient):
    """The SDK's client, with an exec stream that loses no bytes, and a commit that may take its time.

    Attributes:
        address: where its engine is, as `DOCKER_HOST` would say it.
    """

    address = ""

    def commit_container(
        self, container_id: str, repository: str, tag: str, config: dict[str, Any], timeout_s: float
    ) -> str:
        """Make an image of a container; its id. What `config` leaves out is taken from the container."""
        parameters = {"container": container_id, "repo": repository, "tag": tag}
        response = self._post_json(  # type: ignore[attr-defined]
            self._url("/commit"),  # type: ignore[attr-defined]
            data=config,
            params=parameters,
            timeout=timeout_s,
        )
        return str(self._result(response, json=True)["Id"])  # type: ignore[attr-defined]

    def written_bytes(self, container_id: str) -> int:
        """What a container has written beyond its image, volumes not counted."""
        url = self._url("/containers/{0}/json", container_id)  # type: ignore[attr-defined]
        found = self._result(self._get(url, params={"size": "1"}), json=True)  # type: ignore[attr-defined]
        return int(found.get("SizeRw") or 0)

    def count_layers(self, image: str) -> int:
        """How many layers an image is made of."""
        return len(self.inspect_image(image)["RootFS"]["Layers"])  # type: ignore[no-untyped-call]

    def open_exec(self, exec_id: str) -> tuple[socket.socket, bytes]:
        """Start an exec; its connection, not blocking, and what of its output arrived along with the headers."""
        url = self._url("/exec/{0}/start", exec_id)  # type: ignore[attr-defined]
        body = {"Tty": False, "Detach": False}
        response = self._post_json(url, headers=_UPGRADE, data=body, stream=True)  # type: ignore[attr-defined]
        return self._connection(response)

    def open_container(self, container_id: str) -> tuple[socket.socket, bytes]:
        """The streams of a container itself, which may not have started; as `open_exec`."""
        url = self._url("/containers/{0}/attach", container_id)  # type: ignore[attr-defined]
        which = dict.fromkeys(("stream", "stdin", "stdout", "stderr"), "1")
        # without a body, which the engine would take for input of the container
        response = self._post(url, headers=_UPGRADE, params=which, stream=True)  # type: ignore[attr-defined]
        return self._connection(response)

    def _connection(self, response: Response) -> tuple[socket.socket, bytes]:
        try:
            self._raise_for_status(response)  # type: ignore[attr-defined]
            raw: Any = response.raw
            reader = raw._fp.fp
            if isinstance(reader.raw._sock, ssl.SSLSocket):
                raise SandboxError("The engine is reached over TLS, which is not supported: use its socket")
            reader.raw._sock.settimeout(0)
            early = bytes(reader.peek())
            connection = socket.socket(fileno=os.dup(reader.fileno()))
            connection.settimeout(0)
            return connection, early
        finally:
            response.close()

    def read_archive(self, container_id: str, path: str) -> Iterator[bytes]:
        """A tar of what stands at `path` in a container, piece by piece; an empty one if there is nothing. Blocks.

        Raises:
            SandboxLost: there is no such container; else what the SDK raises.
        """
        url = self._url("/containers/{0}/archive", container_id)  # type: ignore[attr-defined]
        response = self._get(url, params={"path": path}, stream=True)  # type: ignore[attr-defined]
        try:
            if response.status_code == NOT_FOUND:
                if "no such container" in response.text.lower():
                    raise SandboxLost("The container is gone")
                yield bytes(EMPTY_TAR_BYTES)
                return
            self._raise_for_status(response)  # type: ignore[attr-defined]
            yield from response.iter_content(1 << 20)
        finally:
            response.close()

    def read_image(self, image: str, silent_s: float) -> Iterator[bytes]:
        """A tar of an image, piece by piece, with at most `silent_s` between two. Blocks.

        Raises:
            ImageError: there is no such image; else what the SDK raises.
        """
        url = self._url("/images/{0}/get", image)  # type: ignore[attr-defined]
        response = self._get(url, stream=True, timeout=silent_s)  # type: ignore[attr-defined]
        try:
            if response.status_code == NOT_FOUND:
                raise ImageError(f"The engine does not have the image {image}")
            self._raise_for_status(response)  # type: ignore[attr-defined]
            yield from response.iter_content(1 << 20)
        finally:
            response.close()

    def write_image(self, archive: Iterable[bytes], silent_s: float) -> None:
        """Take over the images of a tar; the engine may say nothing for at most `silent_s`. Blocks.

        Raises:
            LoadRefused: the engine has read the tar and does not take it; else what the SDK or `archive` raises.
        """
        url = self._url("/images/load")  # type: ignore[attr-defined]
        response = self._post(url, data=archive, stream=True, timeout=silent_s)  # type: ignore[attr-defined]
        try:
            self._raise_for_status(response)  # type: ignore[attr-defined]
            for said in self._stream_helper(response, decode=True):  # type: ignore[attr-defined]
                refusal = said.get("error") or (said["stream"] if NOT_UNPACKED in said.get("stream", "") else None)
                if refusal is not None:
                    raise LoadRefused(f"The engine does not take the image: {refusal.strip()}")
        finally:
            response.close()

    def read_changes(self, container_id: str, most_bytes: int) -> bytes | None:
        """What the engine says has changed in a container, as JSON; null if that is more than `most_bytes`. Blocks."""
        url = self._url("/containers/{0}/changes", container_id)  # type: ignore[attr-defined]
        response = self._get(url, stream=True)  # type: ignore[attr-defined]
        try:
            self._raise_for_status(response)  # type: ignore[attr-defined]
            answer = bytearray()
            for piece in response.iter_content(1 << 20):
                answer += piece
                if len(answer) > most_bytes:
                    return None
            return bytes(answer)
        finally:
            response.close()


class Engine:
    """A connection to one engine, for one event loop.

    Attributes:
        abilities: kept by `realwork.sandbox.abilities`, null until it has asked.
        without_first_shell: images; kept by `realwork.sandbox.first_shell`.
    """

    def __init__(self, client: EngineClient, executor: ThreadPoolExecutor) -> None:
        self.client = client
        self._executor = executor
        self._locks: dict[str, asyncio.Lock] = {}
        self._background: set[asyncio.Task[None]] = set()
        self.abilities: Record | None = None
        self.without_first_shell: set[str] = set()

    def lock(self, key: str) -> asyncio.Lock:
        """The lock of that name, to do a thing once however many ask."""
        return self._locks.setdefault(key, asyncio.Lock())

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work`, which raises nothing, go on for as long as the connection is open."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def stop_background(self) -> None:
        """End what goes on in the background."""
        for task in (tasks := set(self._background)):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def call(self, doing: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function`, a method of `client`, returns within 30 s."""
        return await self.call_within(30.0, doing, partial(function, *args, **kwargs))

    async def call_within(
        self, timeout_s: float, doing: str, work: Callable[[], T], discard: Callable[[T], None] | None = None
    ) -> T:
        """What `work` returns in a thread; a result that nobody waits for any more is given to `discard`.

        Raises:
            SandboxLost: the container of the request is gone, stopped or paused.
            NameInUse: the name of the container to be created is taken.
            ImageError: the image of the request is missing.
            TooSlow: the engine did not answer in time.
            NoAnswer: there is no engine.
            SandboxError: the engine refused.
        """
        request = self._executor.submit(work)
        answer = asyncio.wrap_future(request)
        is_wanted = False
        try:
            await asyncio.wait({answer}, timeout=timeout_s)
            is_wanted = answer.done()
        finally:
            if not is_wanted:
                answer.cancel()
                _drop_later(request, discard)
        if answer.cancelled():
            raise TooSlow(f"{doing}: the engine did not answer within {timeout_s:g} s")
        with translated(doing):
            return answer.result()

    async def attach(self, exec_id: str, stream: S) -> S:
        """Start an exec and let `stream`, which the caller closes, read its output from now on."""
        return await self._connected("starting a command", partial(self.client.open_exec, exec_id), stream)

    async def attach_container(self, container_id: str, stream: S) -> S:
        """Let `stream`, which the caller closes, read what the first process of a container says, and speak to it."""
        return await self._connected("attaching", partial(self.client.open_container, container_id), stream)

    async def _connected(self, doing: str, connect: Callable[[], tuple[socket.socket, bytes]], stream: S) -> S:
        connection, early = await self.call_within(30.0, doing, connect, lambda result: result[0].close())
        stream.data_received(early)
        try:
            await asyncio.get_running_loop().create_connection(lambda: stream, sock=connection)
        except BaseException:
            connection.close()
            raise
        return stream


@asynccontextmanager
async def open_engine(base_url: str | None = None) -> AsyncIterator[Engine]:
    """A connection to the engine at `base_url`, by default where the `docker` command would look.

    Raises:
        SandboxError: no engine answers; the message says what to do.
    """
    executor = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
    connecting = executor.submit(connect, base_url)
    try:
        client = await asyncio.wrap_future(connecting)
        engine = Engine(client, executor)
        try:
            yield engine
        finally:
            try:
                await engine.stop_background()
            finally:
                client.close()
    except asyncio.CancelledError:
        connecting.add_done_callback(partial(_drop, EngineClient.close))
        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def connect(base_url: str | None = None) -> EngineClient:
    """A client that has spoken with its engine.

    Raises:
        SandboxError: no engine answers; the message says what to do.
    """
    settings: dict[str, Any] = {"base_url": base_url} if base_url else {**kwargs_from_env()}
    address = settings.get("base_url") or "unix:///var/run/docker.sock"
    try:
        if address.startswith(UNIX):
            _knock(address.removeprefix(UNIX))
        client = EngineClient(timeout=int(REQUEST_S), max_pool_size=THREADS, **settings)
    except (DockerException, RequestException, OSError) as error:
        raise SandboxError(f"The Docker engine at {address} does not answer: {advice(error)}") from error
    client.address = address
    client.trust_env = not address.startswith(UNIX)  # else each request looks for a proxy on the way to a socket
    return client


def _knock(path: str) -> None:
    """Raise what the system says of the socket at `path`; the SDK would leave a socket open."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(REQUEST_S)
        knocking.connect(path)


def engine_problem(base_url: str | None = None) -> str | None:
    """Why the engine cannot be used and what to do about it, null when it answers. Blocks for up to a minute."""
    try:
        connect(base_url).close()
    except SandboxError as error:
        return str(error)
    return None


def _drop_later(request: Future[T], discard: Callable[[T], None] | None) -> None:
    """Discard the result in a thread, whether it is there already (the caller was cancelled just then) or not."""
    if request.done():
        threading.Thread(target=_drop, args=(discard, request), daemon=True).start()
    else:
        request.add_done_callback(partial(_drop, discard))


def _drop(discard: Callable[[T], None] | None, request: Future[T]) -> None:
    if request.cancelled():
        return
    error = request.exception()
    if error is not None:
        log.debug("A request that nobody waits for any more failed: %s", error)
    elif discard is not None:
        discard(request.result())
