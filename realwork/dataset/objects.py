"""The objects below a URL of object storage, by their names.

Guarantees: an object appears whole, by one upload, or not at all.
"""

from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from realwork.dataset.durable import durable_file
from realwork.errors import InputError, StoreError, blame

_CHUNK_BYTES = 1 << 20
_DELAYED = "allow_delayed_open"


class Objects:
    """The objects below `url`, whose credentials come from the environment.

    Attributes:
        files: the file system of pyarrow in which they are.

    Raises:
        InputError: `url` cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.files, self._root = fs.FileSystem.from_uri(_with_single_puts(url))
        except (OSError, ValueError) as error:
            raise InputError(f"{url} cannot be used: {error}") from error

    def path(self, name: str) -> str:
        """Where an object stands in `files`."""
        return f"{self._root}/{name}"

    def sizes(self) -> dict[str, int]:
        """Every object, and its size in bytes; none where nothing was ever put.

        Raises:
            StoreError: they cannot be listed.
        """
        with blame(StoreError, f"{self.url} could not be read"):
            found = self.files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        return {each.path.removeprefix(f"{self._root}/"): each.size for each in found if each.is_file}

    def written_at(self, name: str) -> datetime | None:
        """When that object was put, by the storage's clock; null if it is not there.

        Raises:
            StoreError: it cannot be told.
        """
        with blame(StoreError, f"{self.url} could not be read"):
            found = self.files.get_file_info(self.path(name))
        return found.mtime if found.is_file else None

    def text(self, name: str) -> str:
        """The content of a small object.

        Raises:
            StoreError: it cannot be read.
        """
        path = self.path(name)
        with blame(StoreError, f"{self.url} could not be read"), self.files.open_input_stream(path) as source:
            content: bytes = source.read()
        return content.decode(errors="replace")

    def fetch(self, name: str, path: Path) -> None:
        """Put an object's content into the file at `path`, which appears whole or not at all.

        Raises:
            StoreError: it cannot be read, or the file not written.
        """
        with blame(StoreError, f"{self.url}/{name} could not be brought to {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.files.open_input_stream(self.path(name)) as source, durable_file(path) as file:
                while chunk := source.read(_CHUNK_BYTES):
                    file.write(chunk)

    def put(self, name: str, content: bytes) -> None:
        """Make or replace an object.

        Raises:
            StoreError: it is not there, or still the old one.
        """
        path = self.path(name)
        with blame(StoreError, f"{self.url} could not be written"), self.files.open_output_stream(path) as file:
            file.write(content)

    def upload(self, name: str, path: Path) -> None:
        """Make or replace an object with the content of a file, which is not read into memory.

        Raises:
            StoreError: it is not there, or still the old one.
        """
        with blame(StoreError, f"{path} could not be put to {self.url}"), pa.memory_map(str(path)) as source:
            content = source.read_buffer()  # at once: a stream that fails in between would be closed, and be there
            with self.files.open_output_stream(self.path(name)) as file:
                file.write(content)

    def remove(self, name: str) -> None:
        """Remove an object.

        Raises:
            StoreError: it could not be removed.
        """
        with blame(StoreError, f"{self.url} could not be written"):
            self.files.delete_file(self.path(name))


def _with_single_puts(url: str) -> str:
    """`url` with the option of S3 that puts up to 5 MiB by one request, instead of the three of a larger upload."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or _DELAYED in parts.query:
        return url
    return parts._replace(query="&".join(filter(None, (parts.query, f"{_DELAYED}=true")))).geturl()
