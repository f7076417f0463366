"""The tiny model behind the OpenAI chat API on loopback, with token ids as vLLM tells them.

Guarantees: one request at a time reaches the model; whatever is sent gets an answer as OpenAI words it; nothing but
this machine can connect.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from realwork.tiny.chatml import END, prompt, read_call
from realwork.tiny.engine import Completion, TinyModel, TooLong, find_model

MODEL = "SmolLM2-135M-Instruct"
MAX_BODY_BYTES = 8 << 20
DEFAULT_MAX_TOKENS = 256


@contextmanager
def serving(port: int) -> Iterator[ThreadingHTTPServer]:
    """A server on `port`, 0 for any, that has not begun to serve.

    Raises:
        InputError: the model is not installed.
        OSError: the port is taken.
    """
    model, lock = TinyModel(find_model()), threading.Lock()

    class Handler(_Handler):
        def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
            with lock:
                return _answer(model, request)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    try:
        yield server
    finally:
        server.server_close()


class _Refused(Exception):
    """A request that cannot be answered: what an HTTP client is told."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "code": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "realwork"}]})
        else:
            self._send(404, _Refused(f"there is nothing at {self.path}").body)

    def do_POST(self) -> None:
        try:
            if self.path.rstrip("/") != "/v1/chat/completions":
                raise _Refused(f"there is nothing at {self.path}", status=404)
            self._send(200, self.answer(self._request()))
        except _Refused as refused:
            self._send(refused.status, refused.body)

    def _request(self) -> Mapping[str, Any]:
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise _Refused(f"a body of at most {MAX_BODY_BYTES} bytes is expected", status=413)
        try:
            request = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise _Refused(f"the body is no JSON: {error}") from error
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
            raise _Refused("an object with a list of messages is expected")
        return request

    def _send(self, status: int, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        return


def _answer(model: TinyModel, request: Mapping[str, Any]) -> dict[str, Any]:
    tools = [] if request.get("tool_choice") == "none" else request.get("tools") or []
    max_tokens = request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_MAX_TOKENS
    temperature = request.get("temperature", 1.0)
    try:
        written = model.complete(
            prompt(request["messages"], tools),
            tools=tools,
            seed=request.get("seed"),
            temperature=float(temperature),
            max_tokens=max(1, int(max_tokens)),
        )
        return _completion(written, request, model)
    except TooLong as error:
        raise _Refused(str(error), code="context_length_exceeded") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _Refused(f"the request cannot be understood: {error!r}") from error


def _completion(written: Completion, request: Mapping[str, Any], model: TinyModel) -> dict[str, Any]:
    call = read_call(written.text) if request.get("tools") and written.finish_reason == "stop" else None
    message: dict[str, Any] = {"role": "assistant", "content": None if call else written.text.removesuffix(END)}
    if call:
        function = {"name": call[0], "arguments": call[1]}
        message["tool_calls"] = [{"id": f"call_{len(request['messages'])}", "type": "function", "function": function}]
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if call else written.finish_reason,
    }
    completion: dict[str, Any] = {
        "id": "chatcmpl-tiny",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [choice],
        "usage": {
            "prompt_tokens": len(written.prompt_ids),
            "completion_tokens": len(written.ids),
            "total_tokens": len(written.prompt_ids) + len(written.ids),
        },
    }
    if request.get("logprobs"):
        told = zip(written.ids, written.logprobs, strict=True)
        content = [{"token": model.text([one]), "logprob": logprob, "top_logprobs": []} for one, logprob in told]
        choice["logprobs"] = {"content": content}
    if request.get("return_token_ids"):
        choice["token_ids"] = list(written.ids)
        completion["prompt_token_ids"] = list(written.prompt_ids)
    return completion
