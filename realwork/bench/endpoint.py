"""An endpoint on loopback with a process of its own, so that what is measured is not the model."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from realwork.errors import InputError

START_S = 30.0


def endpoint(answer: Callable[[bytes], bytes]) -> ThreadingHTTPServer:
    """A server on a free port that gives each body that is posted to `answer`; it has not begun to serve."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = answer(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            with suppress(ConnectionError):  # whoever asked was cut
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


@contextmanager
def serving(answer: Callable[[bytes], bytes]) -> Iterator[tuple[str, int]]:
    """The base URL and the process of an endpoint that gives each body to `answer`, which has to be picklable.

    Raises:
        InputError: it does not start.
    """
    spawning = multiprocessing.get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_serve, args=(sender, answer), daemon=True)
    process.start()
    try:
        if not receiver.poll(START_S):
            raise InputError("the endpoint of the measurement does not start; is the machine overloaded?")
        yield f"http://127.0.0.1:{receiver.recv()}/v1", process.pid or 0
    finally:
        process.terminate()
        process.join()


def _serve(port: Connection, answer: Callable[[bytes], bytes]) -> None:
    server = endpoint(answer)
    port.send(server.server_port)
    server.serve_forever()
