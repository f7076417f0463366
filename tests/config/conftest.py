"""A valid document, and `run_file`: writes a document as a real file and loads it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realwork.errors import InputError
from realwork.runfile import RunFile, load_run_file

ENVIRON = {"OPENROUTER_API_KEY": "key-of-openrouter", "TAG": "3.12", "HOME": "/root"}

DOCUMENT: dict[str, Any] = {
    "environments": [
        {
            "id": "first",
            "docker_image": "python:3.12",
            "prompt": "Write a calculator.",
            "unit_tests": ["pytest -q", "true"],
        },
        {"id": "second", "docker_image": "python:3.12", "prompt": "Mend it.", "unit_tests": ["true"]},
    ],
    "rollout_config": {},
    "template_prompt": "You are an engineer.",
}


class RunFiles:
    """Writes run files into a folder of their own and loads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def document(self, *changes: tuple[str, Any]) -> dict[str, Any]:
        """A valid document with `changes`: `("environments.0.prompt", "")`; `...` as a value removes the key."""
        document = copy.deepcopy(DOCUMENT)
        for dotted, value in changes:
            *above, last = [int(part) if part.isdecimal() else part for part in dotted.split(".")]
            holder: Any = document
            for part in above:
                holder = holder[part] if isinstance(part, int) else holder.setdefault(part, {})
            if value is ...:
                del holder[last]
            else:
                holder[last] = value
        return document

    def write(self, text: str | bytes, name: str = "run.json") -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def load(self, *changes: tuple[str, Any], **options: Any) -> RunFile:
        path = self.write(json.dumps(self.document(*changes)))
        return load_run_file(path, **({"environ": ENVIRON} | options))

    def load_text(self, text: str | bytes, name: str = "run.json", **options: Any) -> RunFile:
        return load_run_file(self.write(text, name), **({"environ": ENVIRON} | options))

    def problems(self, *changes: tuple[str, Any], **options: Any) -> list[str]:
        return self._problems(lambda: self.load(*changes, **options))

    def problems_of_text(self, text: str | bytes, name: str = "run.json", **options: Any) -> list[str]:
        return self._problems(lambda: self.load_text(text, name, **options))

    def _problems(self, load: Callable[[], RunFile]) -> list[str]:
        with pytest.raises(InputError) as caught:
            load()
        assert all(caught.value.problems)
        return list(caught.value.problems)


@pytest.fixture
def run_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFiles:
    """Run files in `folder`, while the current folder is its sibling `current`."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    return RunFiles(tmp_path / "folder")
