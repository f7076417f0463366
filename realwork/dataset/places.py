"""Where the runs of object storage stand: below their URL, and on this node."""

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from realwork.config import split_url


def cache() -> Path:
    """Where copies of object storage stand: `$XDG_CACHE_HOME/realwork`, else `~/.cache/realwork`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "realwork"


def place_of(url: str) -> str:
    """The name of the folder for `url` in a cache."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def name_of(url: str) -> str:
    """The last name of `url`, that of its bucket where nothing follows it."""
    parts = urlsplit(url)
    name = parts.path.rstrip("/").rpartition("/")[2]
    return parts.netloc if name in ("", ".", "..") else name


def working_copy(url: str) -> Path:
    """The directory on this node for the runs at `url`."""
    return cache() / "runs" / place_of(url)


def working_copy_of_run(url: str) -> Path:
    """The directory on this node for the run at `url`."""
    output, run_id = split_url(url)
    return working_copy(output) / run_id


def url_of_run(url: str, run_id: str) -> str:
    """Where the run of that id stands below `url`, whose options stay."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{run_id}").geturl()
