"""Blocks commands that would end the sandbox or wipe it, by the words of each command, not by its text."""

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

from realwork.plugins.base import ActionFilterPlugin, PluginContext, PluginHookType
from realwork.plugins.builtin.shell import simple_commands
from realwork.types import Action, CommandAction

BLOCKED_COMMANDS = ("shutdown", "reboot", "halt", "poweroff", "mkfs", "mkfs.*", "insmod", "rmmod", "modprobe")
BLOCKED_PATTERNS = (
    "rm -r /",
    "rm -r /[*]",
    "rm -r ~",
    "rm -r ~/[*]",
    "rm -r --no-preserve-root",
    "chmod -R /",
    "chown -R /",
    "dd of=/dev/[!nsf]*",
    "dd of=/dev/[ns][!uth]*",
    "> /dev/[hsv]d[a-z]*",
    "> /dev/xvd*",
    "> /dev/nvme*",
    "> /dev/mmcblk*",
    "init [06]",
    "telinit [06]",
    "systemctl poweroff",
    "systemctl reboot",
    "systemctl halt",
)
_FIND_ALL = "find / -delete"
_CHOOSING_ALL = frozenset({"-delete", "-depth", "-d", "-xdev", "-mount", "-type", "-mindepth"})
"""What a `find` may say and still find everything."""
_LONG_OPTIONS = {"--recursive": "r", "--force": "f"}
_SYSTEM_FOLDERS = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"})
_HOME = re.compile(r"(?:~|\$HOME|\$\{HOME\})(/.*)?", re.DOTALL)
_REGULAR_EXPRESSION = re.compile(r"[\\()|^]|\.\+|\$(?:\s|$)")


class SafetyFilter(ActionFilterPlugin):
    """Leaves out every command line with a blocked command or pattern in it.

    Args:
        blocked_commands: further names of programs, wildcards allowed; one with a path is not the program of that name,
            unless its folder is one of the system's.
        blocked_patterns: further patterns, each a program and words that must all stand among its arguments, in any
            order; short options may be joined (`-r` is found in `-rf`), wildcards are allowed (`[*]` is a star). The
            program `>` stands for redirections to a file.
        defaults: whether those that are built in are blocked, too.
    """

    def __init__(
        self, blocked_commands: Sequence[str] = (), blocked_patterns: Sequence[str] = (), defaults: bool = True
    ) -> None:
        _check(blocked_commands, blocked_patterns, defaults)
        self._commands: tuple[str, ...] = (*(BLOCKED_COMMANDS if defaults else ()), *blocked_commands)
        patterns: tuple[str, ...] = (*(BLOCKED_PATTERNS if defaults else ()), *blocked_patterns)
        self._patterns = tuple((pattern, tuple(pattern.split())) for pattern in patterns)
        self._blocks_find_all = defaults
        names = [*self._commands, *(words[0] for _, words in self._patterns), "find"]
        self._programs = re.compile("|".join(fnmatch.translate(name) for name in names))

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
        program, arguments = _program(words[0]), words[1:]
        if not self._programs.match(program):
            return None
        for blocked in self._commands:
            if fnmatch.fnmatchcase(program, blocked):
                return blocked
        for text, (name, *wanted) in self._patterns:
            if fnmatch.fnmatchcase(program, name) and all(_is_among(word, arguments) for word in wanted):
                return text
        return _FIND_ALL if self._blocks_find_all and program == "find" and _deletes_all(arguments) else None


def _check(commands: Any, patterns: Any, defaults: Any) -> None:
    """Make sure that each entry can match something.

    Raises:
        ValueError: naming each that cannot.
    """
    for given in (commands, patterns):
        if not isinstance(given, list | tuple) or not all(isinstance(each, str) and each.strip() for each in given):
            raise ValueError("blocked_commands and blocked_patterns must be lists of texts that are not empty")
    if not isinstance(defaults, bool):
        raise ValueError(f"defaults must be true or false, not {defaults!r}")
    if problems := [*_command_problems(commands), *_pattern_problems(patterns)]:
        raise ValueError("; ".join(problems))


def _command_problems(commands: Sequence[str]) -> Iterator[str]:
    for command in commands:
        if len(command.split()) > 1 or command != command.strip():
            yield f"blocked_commands: {command!r} has a space, as no program's name has; put it into blocked_patterns"
        elif _looks_like_regular_expression(command):
            yield f"blocked_commands: {command!r} {_ADVICE}"


def _pattern_problems(patterns: Sequence[str]) -> Iterator[str]:
    for pattern in patterns:
        if _looks_like_regular_expression(pattern):
            yield f"blocked_patterns: {pattern!r} {_ADVICE}"
        for word in pattern.split()[1:]:
            if _is_short_option(word) and not word[1:].isalnum():
                yield f"blocked_patterns: {word!r} in {pattern!r} is no option; options take no wildcards"


_ADVICE = (
    "looks like a regular expression, but is read as words with shell wildcards (*, ?, [...]); "
    "put a character that is meant itself into brackets, as in [(]"
)


def _looks_like_regular_expression(text: str) -> bool:
    return _REGULAR_EXPRESSION.search(re.sub(r"\[[^\]]+\]", "", text)) is not None


def _program(word: str) -> str:
    """The name of the program that `word` starts: without its folder, if that is the system's."""
    if "/" not in word:
        return word
    folder, _, name = _plain_path(word).rpartition("/")
    return name if folder in _SYSTEM_FOLDERS else word


def _is_short_option(word: str) -> bool:
    return word.startswith("-") and not word.startswith("--")


def _is_among(wanted: str, arguments: Sequence[str]) -> bool:
    if _is_short_option(wanted):
        return set(wanted[1:].lower()) <= _short_options(arguments)
    return any(fnmatch.fnmatchcase(_plain_path(argument), wanted) for argument in arguments)


def _short_options(arguments: Sequence[str]) -> set[str]:
    """The letters of the options, without regard to case: `rm -R` is `rm -r`."""
    joined = [each[1:] for each in arguments if _is_short_option(each)]
    return set("".join(joined).lower()) | {_LONG_OPTIONS[each] for each in arguments if each in _LONG_OPTIONS}


def _plain_path(argument: str) -> str:
    if argument.startswith("/"):
        return "/" + posixpath.normpath(argument).lstrip("/")
    home = _HOME.fullmatch(argument)
    return posixpath.normpath("~" + (home[1] or "")) if home else argument


def _deletes_all(arguments: Sequence[str]) -> bool:
    """Whether the arguments of a `find` delete all that there is, not only what they choose."""
    options = {each for each in arguments if each.startswith("-")}
    return "-delete" in options <= _CHOOSING_ALL and any(_plain_path(each) == "/" for each in arguments)
