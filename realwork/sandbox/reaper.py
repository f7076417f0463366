"""The reaper: a plain process, one for a user and engine, that removes what its owner can no longer remove.

It outlives Ray and every actor, each of which keeps a connection to it (see `attended`); the end of a connection makes
it look at once. Guarantees: only a container with our owner label or an image with our snapshot label is ever touched,
and none whose owner lives before its deadline is past; it loads nothing but the standard library, writes no file, and
ends by itself when nobody needs it.
"""

import http.client
import json
import os
import resource
import selectors
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

from realwork.sandbox import labels

SNAPSHOT = "realwork.snapshot=temporary"
SNAPSHOTS = "realwork/snapshot:"
"""What images bear that may go with their run; see `snapshots`."""
SWEEP_S = 3.0
SOON_S = 0.5
"""A process whose connection has ended may not be quite dead yet."""
IMAGES_EVERY_S = 30.0
IDLE_S = 10.0
GIVE_UP_S = 600.0
"""Without anybody to work for and without an answer of the engine, there is nothing to wait for."""
GRACE_S = 5.0
"""Time for an owner to remove at the deadline what is its own."""
REQUEST_S = 30.0
REMOVERS = 4


class Refused(Exception):
    """The engine answered that it will not."""


class PlainEngine:
    """The engine's HTTP API, one connection a request, without the SDK."""

    def __init__(self, address: str) -> None:
        """An engine at `address`, which begins with `unix://` or `tcp://`."""
        self._parts = urlsplit(address)

    def containers(self) -> list[dict[str, Any]]:
        """Ours, in any state."""
        found = self._listed("/containers/json?all=1", labels.OWNER)
        return [one for one in found if labels.is_own(one)]

    def snapshots(self) -> list[dict[str, Any]]:
        """Those that are not to be kept; what is made of another one comes first."""
        found = self._listed("/images/json?all=0", SNAPSHOT)
        return sorted(found, key=lambda image: int(image["Created"]), reverse=True)

    def remove_container(self, container_id: str) -> None:
        """Kill and remove it."""
        self._request("DELETE", f"/containers/{container_id}?force=1&v=1")

    def remove_image(self, image_id: str) -> None:
        """Remove it, but not what it was made of."""
        self._request("DELETE", f"/images/{image_id}?noprune=1")

    def _listed(self, path: str, label: str) -> list[dict[str, Any]]:
        filters = quote(json.dumps({"label": [label]}))
        found: list[dict[str, Any]] = json.loads(self._request("GET", f"{path}&filters={filters}")) or []
        return found

    def _request(self, method: str, path: str) -> bytes:
        connection = self._connection()
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {body[:200]!r}")
        return body

    def _connection(self) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path)
        return http.client.HTTPConnection(self._parts.hostname or "localhost", self._parts.port, timeout=REQUEST_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=REQUEST_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(REQUEST_S)
        self.sock.connect(self._path)


FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, Refused)
"""What an engine that is gone, too slow or strange gives; the next look may find it well."""


class Reaper:
    """Waits for clients and for their ends, and looks at the engine."""

    def __init__(self, engine: PlainEngine, listener: socket.socket) -> None:
        self._engine = engine
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._clients: set[socket.socket] = set()
        self._most_clients = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._is_listening = False
        self._listen(wanted=True)
        self._next_images = 0.0
        self._images_left = 0

    def run(self) -> None:
        """Work until nobody needs it any more."""
        needed_at = answered_at = time.monotonic()
        next_sweep = 0.0
        while True:
            if self._take_events(max(0.0, next_sweep - time.monotonic())):
                next_sweep = self._next_images = 0.0
                time.sleep(SOON_S / 10)
            now = time.monotonic()
            if self._clients:
                needed_at = answered_at = now
            if now < next_sweep:
                continue
            self._listen(wanted=len(self._clients) < self._most_clients)
            left = self._sweep()
            next_sweep = time.monotonic() + (SOON_S if next_sweep == 0.0 else SWEEP_S)
            answered_at = answered_at if left is None else now
            needed_at = needed_at if left == 0 else now
            if now - needed_at > IDLE_S or now - answered_at > GIVE_UP_S:
                self._listener.close()
                return

    def _take_events(self, timeout_s: float) -> bool:
        """Wait for events for at most that time; whether a client has gone."""
        has_gone = False
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            else:
                has_gone |= self._has_gone(key.fileobj)
        return has_gone

    def _accept(self) -> None:
        """Take a client in; half of the files are left for the engine, and who finds no place waits for a sweep."""
        try:
            client, _ = self._listener.accept()
        except OSError:
            self._listen(wanted=False)
            return
        client.settimeout(0)
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ)
        self._listen(wanted=len(self._clients) < self._most_clients)

    def _listen(self, *, wanted: bool) -> None:
        if wanted and not self._is_listening:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._is_listening and not wanted:
            self._selector.unregister(self._listener)
        self._is_listening = wanted

    def _has_gone(self, client: Any) -> bool:
        try:
            if client.recv(64):
                return False
        except BlockingIOError:
            return False
        except OSError:
            pass
        self._selector.unregister(client)
        self._clients.discard(client)
        client.close()
        return True

    def _sweep(self) -> int | None:
        """Remove what is abandoned; how much of ours is left, null when the engine does not tell."""
        try:
            found = self._engine.containers()
            dead = [str(one["Id"]) for one in found if labels.is_abandoned(one["Labels"], grace_s=GRACE_S)]
            with ThreadPoolExecutor(REMOVERS) as pool:
                removed = sum(pool.map(self._remove_container, dead)) if dead else 0
            return len(found) - removed + self._sweep_images()
        except FAILURES:
            return None

    def _sweep_images(self) -> int:
        """Remove snapshots of runs that are gone, which a running attempt may still need until then."""
        if time.monotonic() < self._next_images:
            return self._images_left
        left = 0
        for image in self._engine.snapshots():
            if not labels.is_abandoned(image["Labels"], grace_s=GRACE_S):
                left += 1
                continue
            try:
                for name in image.get("RepoTags") or ():
                    if name.startswith(SNAPSHOTS):  # others have made theirs of it, with its labels
                        self._engine.remove_image(quote(name, safe=":/"))
            except FAILURES:
                left += 1
        self._next_images = time.monotonic() + (IMAGES_EVERY_S if self._clients else 0.0)
        self._images_left = left
        return left

    def _remove_container(self, container_id: str) -> bool:
        try:
            self._engine.remove_container(container_id)
        except FAILURES:
            return False
        return True


def command(python: str, package_parent: str, address: str, name: str) -> Sequence[str]:
    """What starts a reaper: isolated from the environment, the current folder and installed packages."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from realwork.sandbox.reaper import main; main(*sys.argv[2:])"
    return (python, "-I", "-S", "-B", "-c", code, package_parent, address, name)


def main(address: str, name: str) -> None:
    """Be the reaper of that abstract socket, as nobody's child, unless there is one."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"\0{name}")
    except OSError:
        return
    listener.listen(1024)
    if os.fork():
        return
    os.nice(5)
    Reaper(PlainEngine(address), listener).run()
