"""Blocks commands that would end the sandbox or wipe it, by the words of each command, not by its text."""

import fnmatch
import posixpath
from collections.abc import Sequence

from realwork.plugins.base import ActionFilterPlugin, PluginContext, PluginHookType
from realwork.plugins.builtin.shell import simple_commands
from realwork.types import Action, CommandAction

BLOCKED_COMMANDS = ("shutdown", "reboot", "halt", "poweroff", "mkfs", "mkfs.*", "insmod", "rmmod", "modprobe")
BLOCKED_PATTERNS = (
    "rm -r /",
    "rm -r /[*]",
    "rm -r --no-preserve-root",
    "chmod -R /",
    "chown -R /",
    "dd of=/dev/[!nsf]*",
    "dd of=/dev/[ns][!uth]*",
    "init [06]",
    "systemctl poweroff",
    "systemctl reboot",
    "systemctl halt",
)
_LONG_OPTIONS = {"--recursive": "r", "--force": "f"}


class SafetyFilter(ActionFilterPlugin):
    """Leaves out every command line with a blocked command or pattern in it.

    Args:
        blocked_commands: names of programs, wildcards allowed; given, they take the place of the default.
        blocked_patterns: a program and words that must all stand among its arguments, in any order; short options may
            be joined (`-r` is found in `-rf`), wildcards are allowed (`[*]` is a star); likewise.
    """

    def __init__(
        self, blocked_commands: Sequence[str] = BLOCKED_COMMANDS, blocked_patterns: Sequence[str] = BLOCKED_PATTERNS
    ) -> None:
        for given in (blocked_commands, blocked_patterns):
            if isinstance(given, str) or not all(str(each).strip() for each in given):
                raise ValueError("blocked_commands and blocked_patterns must be lists of texts that are not empty")
        self._commands = tuple(blocked_commands)
        self._patterns = tuple((pattern, pattern.split()) for pattern in blocked_patterns)

    @property
    def name(self) -> str:
        return "safety_filter"

    @property
    def version(self) -> str:
        return "1.0.0"

    @property
    def supported_hooks(self) -> list[PluginHookType]:
        return [PluginHookType.PRE_ACTION]

    async def filter_actions(self, actions: list[Action], context: PluginContext) -> list[Action]:
        return [action for action in actions if self._match(action) is None]

    def block_reason(self, action: Action) -> str:
        return f"'{self._match(action)}' is not allowed"

    def _match(self, action: Action) -> str | None:
        """The command or pattern that `action` must not have but has."""
        if not isinstance(action, CommandAction):
            return None
        for words in simple_commands(action.command):
            if found := self._match_words(words):
                return found
        return None

    def _match_words(self, words: Sequence[str]) -> str | None:
        if not words:
            return None
        program, arguments = posixpath.basename(words[0]), words[1:]
        for blocked in self._commands:
            if fnmatch.fnmatchcase(program, blocked):
                return blocked
        for text, (name, *wanted) in self._patterns:
            if fnmatch.fnmatchcase(program, name) and all(_is_among(word, arguments) for word in wanted):
                return text
        return None


def _is_among(wanted: str, arguments: Sequence[str]) -> bool:
    if wanted.startswith("-") and not wanted.startswith("--"):
        return set(wanted[1:].lower()) <= _short_options(arguments)
    return any(fnmatch.fnmatchcase(_plain_path(argument), wanted) for argument in arguments)


def _short_options(arguments: Sequence[str]) -> set[str]:
    """The letters of the options, without regard to case: `rm -R` is `rm -r`."""
    joined = [each[1:] for each in arguments if each.startswith("-") and not each.startswith("--")]
    return set("".join(joined).lower()) | {_LONG_OPTIONS[each] for each in arguments if each in _LONG_OPTIONS}


def _plain_path(argument: str) -> str:
    return "/" + posixpath.normpath(argument).lstrip("/") if argument.startswith("/") else argument
