"""Tells from the text of a test command whether pytest runs in it.

A shell can hide anything, so there are three answers: `yes` where pytest plainly is what runs, `maybe` where it may be,
`no` where it is not, or not in a way in which it can be watched.
"""

import re
import shlex
from typing import Literal

Answer = Literal["yes", "maybe", "no"]

_PYTEST = re.compile(r"(pytest|py\.test)(-?3(\.\d+)?)?")
_PYTHON = re.compile(r"(python|pypy)[\d.]*")
_MENTION = re.compile(r"(?<![\w.-])(pytest|py\.test)(?![\w-]|\.\w)")
_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh"}
_LAUNCHERS = {"command", "env", "exec", "ionice", "nice", "nohup", "setsid", "stdbuf", "time", "timeout", "xvfb-run"}
_PROJECTS = {"hatch", "pdm", "pipenv", "poetry", "rye", "uv"}
_KEYWORDS = {"if", "then", "else", "elif", "do", "while", "until", "time", "{"}
_HIDES = {"source", ".", "eval", "sudo", "su"}
"""What comes after them may run with other variables."""
_RUNS_NO_TEST = {"--version", "-V", "-h", "--help", "--collect-only", "--co", "--fixtures", "--markers", "--setup-plan"}
_COMMENT = re.compile(r"(?<![^\s;&|(])#.*")
_LOSES_PLUGIN = re.compile(r"unset\b[^;&|\n]*\bPYTHONPATH|(-u|--unset[= ])\s*PYTHONPATH")


def runs_pytest(command: str) -> Answer:
    """Whether `command` runs pytest."""
    command = _COMMENT.sub("", command)
    if not _MENTION.search(command) or _LOSES_PLUGIN.search(command):
        return "no"
    parts = _simple_commands(command)
    if parts is None:
        return "maybe"
    answers = [_answer(words) for words in parts]
    if "no" in answers:
        return "no"
    if "yes" in answers and all(_RUNS_NO_TEST & set(words) for words, one in zip(parts, answers, strict=True) if one):
        return "no"
    hidden = any(words[0] in _HIDES and not _activates(words) for words in parts)
    return "yes" if "yes" in answers and not hidden else "maybe"


def _activates(words: list[str]) -> bool:
    """Whether a shell takes over a virtual environment, which leaves other variables alone."""
    return words[0] in ("source", ".") and words[-1].rpartition("/")[2] == "activate"


def _simple_commands(command: str) -> list[list[str]] | None:
    """The words of each simple command, null where the quotes do not match."""
    lexer = shlex.shlex(command.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if set(word) <= set(";&|()"):
                commands.append([])
            else:
                commands[-1].append(word)
    except ValueError:
        return None
    return [words for words in commands if words]


def _answer(words: list[str]) -> Answer | None:
    """`yes`: the simple command runs pytest; `no`: it does, but cannot be watched; else null."""
    left, is_negated = _without_launchers(words)
    if not left:
        return None
    head, *rest = left[0].rpartition("/")[2], *left[1:]
    if head in _SHELLS:
        inner = _script(rest)
        found = runs_pytest(inner) if inner is not None else "maybe"
    elif _PYTEST.fullmatch(head):
        found = "yes"
    elif _PYTHON.fullmatch(head):
        found = _of_python(rest)
    elif head == "coverage":
        found = _of_coverage(rest)
    else:
        found = "maybe"
    if found == "yes" and is_negated:
        return "no"
    return None if found == "maybe" else found


def _without_launchers(words: list[str]) -> tuple[list[str], bool]:
    """The words from the program that runs in the end, and whether its exit code is turned round."""
    is_negated = False
    left = list(words)
    while left:
        word = left[0].rpartition("/")[2]
        if word == "command" and left[1:2] in (["-v"], ["-V"]):
            return [], False
        if word == "!":
            is_negated = True
        elif word in _PROJECTS and "run" in left[1:3]:
            left = left[left.index("run") :]
        elif not (word in _KEYWORDS | _LAUNCHERS or re.match(r"\w+=", left[0])):
            break
        left = left[1:]
        if word in _LAUNCHERS | {*_PROJECTS, "run"}:
            left = _without_options(left)
    return left, is_negated


def _without_options(words: list[str]) -> list[str]:
    """Without leading options, and numbers, which are the arguments of the launchers' ones."""
    for at, word in enumerate(words):
        if not re.fullmatch(r"-.*|[\d.]+[smhd]?", word):
            return words[at:]
    return []


def _script(words: list[str]) -> str | None:
    """What follows the `-c` of a shell."""
    for at, word in enumerate(words[:-1]):
        if re.fullmatch(r"-[a-z]*c", word):
            return words[at + 1]
        if not word.startswith("-"):
            return None
    return None


def _of_python(words: list[str]) -> Answer:
    is_isolated = False
    for at, word in enumerate(words):
        if words[at - 1 : at] in (["-W"], ["-X"]):
            continue
        module = words[at + 1] if word.endswith("m") and at + 1 < len(words) else word[2:]
        if re.fullmatch(r"-[a-zA-Z]*m", word) or word.startswith("-m"):
            is_isolated = is_isolated or bool(re.search(r"[EI]", word.partition("m")[0]))
            found: Answer = "yes" if _PYTEST.fullmatch(module) else "maybe"
            if module == "coverage":
                found = _of_coverage(words[at + 2 :])
            return "no" if found == "yes" and is_isolated else found
        if not word.startswith("-"):
            return "maybe"
        is_isolated = is_isolated or bool(re.fullmatch(r"-[a-zA-Z]*[EI][a-zA-Z]*", word))
    return "maybe"


def _of_coverage(words: list[str]) -> Answer:
    at = words.index("-m") + 1 if "-m" in words else len(words)
    return "yes" if words[:1] == ["run"] and at < len(words) and _PYTEST.fullmatch(words[at]) else "maybe"
