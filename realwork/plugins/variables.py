"""Environment variables of plugins that are called side by side in one process.

Guarantees: whatever the order in which holders come and go, a variable has the value of the last that came and is still
there; when none is left it is as before.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Variables:
    """The environment variables of this process, as plugins want them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: dict[str, str | None] = {}
        self._holders: list[Mapping[str, str]] = []

    @contextmanager
    def held(self, wanted: Mapping[str, str]) -> Iterator[None]:
        """`wanted` are set for the length of the block."""
        holder = dict(wanted)
        with self._lock:
            for name in holder:
                self._before.setdefault(name, os.environ.get(name))
            self._holders.append(holder)
            os.environ.update(holder)
        try:
            yield
        finally:
            with self._lock:
                self._let_go(holder)

    def _let_go(self, holder: Mapping[str, str]) -> None:
        self._holders = [each for each in self._holders if each is not holder]
        for name in holder:
            values = [each[name] for each in self._holders if name in each]
            value = values[-1] if values else self._before.pop(name)
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
