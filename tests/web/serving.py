"""The viewer in this process, and what it answers."""

import asyncio
import gzip
import http.client
import threading
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

from realwork.web.runs import Runs
from realwork.web.server import serving


class Answer(NamedTuple):
    """What came back; `sent` is how many bytes of the body did."""

    status: int
    headers: dict[str, str]
    text: str
    sent: int


class Viewer:
    """Asks the viewer at a port."""

    def __init__(self, port):
        self.port = port
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path, *, method="GET", **headers):
        """The answer to one request, sent as it is: no library tidies the path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = {"Host": f"127.0.0.1:{self.port}", "Accept-Encoding": "gzip"} | headers
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        whole = gzip.decompress(body) if headers.get("content-encoding") == "gzip" and body else body
        return Answer(response.status, headers, whole.decode("utf-8", "replace"), len(body))

    def rollout(self, run, trajectory_id, **query):
        """The page of a rollout."""
        more = "".join(f"&{name}={quote(value)}" for name, value in query.items())
        return self.get(f"/runs/{run}/rollout?id={quote(trajectory_id)}{more}")


@contextmanager
def viewer(*directories, token=None):
    """A viewer of runs for the length of the block."""
    loop = asyncio.new_event_loop()
    ready, ended = threading.Event(), asyncio.Event()
    bound = []

    async def serve():
        async with serving(Runs(directories), host="127.0.0.1", port=0, token=token) as port:
            bound.append(port)
            ready.set()
            await ended.wait()

    def run():
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(30)
    assert bound, "the viewer has not begun"
    try:
        yield Viewer(bound[0])
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
