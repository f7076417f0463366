"""`plugins`: writes plugin modules into a folder and loads them as a run file's entries."""

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from realwork.config import RunConfig
from realwork.errors import InputError
from realwork.plugins.answers import Answer, State
from realwork.plugins.base import BasePlugin
from realwork.plugins.calls import call_plugin, within
from realwork.plugins.loading import LoadedPlugin, load_plugins
from realwork.plugins.panel import PackedPlugin
from realwork.plugins.told import HookCall


def config(*entries: Any, enabled: bool = True) -> RunConfig:
    return RunConfig.model_validate(
        {
            "environments": [{"id": "calc", "docker_image": "i", "prompt": "p", "unit_tests": ["true"]}],
            "rollout_config": {"enable_plugins": enabled},
            "template_prompt": "t",
            "plugins": list(entries),
        }
    )


class InProcess:
    """Calls plugins in this process."""

    def __init__(self, plugins: dict[str, BasePlugin]) -> None:
        self.plugins = plugins
        self.calls: list[tuple[str, str]] = []
        self.losses = Counter[str]()

    async def __call__(self, plugin: PackedPlugin, call: HookCall, state: State, limit_s: float) -> Answer:
        self.calls.append((plugin.name, call.hook))
        return await within(limit_s, call, call_plugin(self.plugins[plugin.name], call, state))


class Plugins:
    """Modules in `folder`, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str) -> str:
        name = f"plugins_{uuid.uuid4().hex}"
        (self.folder / f"{name}.py").write_text(text)
        return name

    def entry(self, text: str, **entry: Any) -> dict[str, Any]:
        return {"module": self.write(text), **entry}

    def load(self, *entries: Any, enabled: bool = True) -> list[LoadedPlugin]:
        """What `entries`, texts of modules or whole entries, add to the built-ins."""
        return load_plugins(config(*self._entries(entries), enabled=enabled), folder=self.folder)

    def users(self, *entries: Any) -> list[LoadedPlugin]:
        return [each for each in self.load(*entries) if not each.builtin]

    def problems(self, *entries: Any) -> list[str]:
        with pytest.raises(InputError) as caught:
            self.load(*entries)
        return list(caught.value.problems)

    def _entries(self, entries: tuple[Any, ...]) -> list[Any]:
        return [self.entry(each) if isinstance(each, str) and "\n" in each else each for each in entries]

    def in_process(self, *entries: Any) -> tuple[list[PackedPlugin], InProcess]:
        """The user's plugins among `entries`, and what calls them without any other process."""
        loaded = self.users(*entries)
        packed = [
            PackedPlugin(
                name=each.plugin.name,
                version=each.plugin.version,
                kind=each.plugin.plugin_type,
                hooks=each.hooks,
                priority=each.priority,
                timeout_s=each.entry.timeout,
                critical=each.entry.critical,
            )
            for each in loaded
        ]
        return packed, InProcess({each.plugin.name: each.plugin for each in loaded})


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    return Plugins(tmp_path)
