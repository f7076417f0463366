"""A real HTTP server on loopback that speaks the OpenAI chat API and answers as a test tells it to."""

import json
import threading
import time
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Request = dict[str, Any]


class Answer:
    """What the server sends: a status, a body (JSON unless it is bytes) and headers.

    `cut` ends it in the middle; `pause_s` comes before every byte, for ten seconds or until the client hangs up.
    """

    def __init__(
        self,
        body: Any,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        cut: bool = False,
        pause_s: float = 0.0,
    ) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.headers = headers or {}
        self.cut = cut
        self.pause_s = pause_s


def reply(
    content: str | None = None, *calls: tuple[str, Any], finish_reason: str | None = None, **usage: Any
) -> Answer:
    """A completion with `calls`, each a tool's name and its arguments (text is sent as it stands)."""
    tool_calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for number, (name, given) in enumerate(calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if tool_calls:
        message["tool_calls"] = tool_calls
    reason = finish_reason or ("tool_calls" if tool_calls else "stop")
    counts = {"prompt_tokens": 10, "completion_tokens": 5} | usage
    return Answer(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "test-model",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": counts,
        }
    )


def error(status: int, message: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    """An error as OpenAI's API words it."""
    return Answer({"error": {"message": message} | fields}, status=status, headers=headers)


def run(command: str, **arguments: Any) -> Answer:
    """A reply that runs one command."""
    return reply(None, ("execute_command", {"command": command} | arguments))


DONE = reply(None, ("mark_done", {}))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Endpoint:
    """The server, for the length of a `with` block; `requests` holds every body that came, in order."""

    def __init__(self, respond: Callable[[Request], Answer]) -> None:
        self.requests: list[Request] = []
        self.headers: list[Message] = []
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), self._handler(respond))
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hangs up is what some tests are about
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def authorizations(self) -> list[str | None]:
        return [headers["authorization"] for headers in self.headers]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self, respond: Callable[[Request], Answer]) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                endpoint.connections += 1

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.requests.append(request)
                endpoint.headers.append(self.headers)
                answer = respond(request)
                self.send_response(answer.status)
                for name, value in ({"content-type": "application/json"} | answer.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                if answer.pause_s:
                    self._drip(answer)
                else:
                    self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
                self.wfile.flush()
                self.close_connection = self.close_connection or answer.cut

            def _drip(self, answer: Answer) -> None:
                for byte in answer.body[: int(10 / answer.pause_s)]:
                    time.sleep(answer.pause_s)
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


def in_order(*answers: Answer) -> Callable[[Request], Answer]:
    """Answer the first request with the first answer and so on; the last one stands for all that follow."""
    lock, given = threading.Lock(), [0]

    def respond(_request: Request) -> Answer:
        with lock:
            position, given[0] = given[0], given[0] + 1
        return answers[min(position, len(answers) - 1)]

    return respond


def by_turn(*answers: Answer) -> Callable[[Request], Answer]:
    """Answer by how many replies the conversation already has, so that many rollouts can play the same script."""

    def respond(request: Request) -> Answer:
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        return answers[min(turn, len(answers) - 1)]

    return respond
