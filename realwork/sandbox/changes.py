"""What has changed in the file system of a container since it was created, counted.

Guarantees: names alone are looked at, on the host or as the engine says them; memory is bounded.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from docker.errors import DockerException
from requests.exceptions import RequestException

from realwork.sandbox.engine import EngineClient

TEMPORARY = ("/dev", "/proc", "/root/.cache", "/run", "/sys", "/tmp", "/var/cache", "/var/log", "/var/tmp")
MOST_ANSWER_BYTES = 16 << 20
MOST_ENTRIES = 200_000


def count_changes(client: EngineClient, container_id: str, outside: Sequence[str]) -> int | None:
    """Files and empty folders added, changed or deleted below none of `outside`; null when that cannot be told. Blocks.

    The engine compares the whole image, which takes a second; where this process may, it looks at the overlay's upper
    folder instead, which holds nothing but the changes.
    """
    try:
        found = client.inspect_container(container_id)
        upper = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
        if upper and os.access(upper, os.R_OK | os.X_OK):
            return _count(_below(Path(upper)), outside)
        answer = client.read_changes(container_id, MOST_ANSWER_BYTES)
        return None if answer is None else _count(leaves(json.loads(answer) or []), outside)
    except (DockerException, RequestException, OSError, ValueError):
        return None


def _count(paths: Iterable[str], outside: Sequence[str]) -> int:
    return sum(not any(path == one or path.startswith(one + "/") for one in outside) for path in paths)


def _below(upper: Path) -> Iterator[str]:
    """Raises ValueError when there is too much to be remembered."""
    waiting, seen = [""], 0
    while waiting:
        folder = waiting.pop()
        is_empty = True
        with os.scandir(f"{upper}{folder}") as entries:
            for entry in entries:
                is_empty, seen = False, seen + 1
                if seen > MOST_ENTRIES:
                    raise ValueError("too many changes")
                path = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                else:
                    yield path
        if is_empty and folder:
            yield folder


def leaves(changes: list[dict[str, str]]) -> Iterator[str]:
    """The changed paths that are not named for what changed below them alone."""
    paths = sorted(change["Path"].split("/") for change in changes)
    for path, following in zip(paths, [*paths[1:], []], strict=True):
        if following[: len(path)] != path:
            yield "/".join(path)
