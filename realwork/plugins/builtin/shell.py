"""A shell command line as the words of every simple command in it, however deep it is wrapped.

Guarantees: never raises, takes time in proportion to the text, and errs on the side of finding a command: a quote that
is never closed is passed over.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_KEYWORDS = frozenset({"if", "then", "else", "elif", "while", "until", "do", "!", "{", "}", "time"})
_WRAPPERS = frozenset(
    {
        "sudo",
        "doas",
        "env",
        "nohup",
        "exec",
        "command",
        "builtin",
        "nice",
        "ionice",
        "timeout",
        "setsid",
        "stdbuf",
        "xargs",
        "chroot",
        "busybox",
        "toybox",
    }
)
_MAX_DEPTH = 8
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_NUMBER = re.compile(r"[\d.]+[smhd]?")
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)([A-Za-z_]\w*)\1")
_TOKEN = re.compile(
    r"""(?P<separator>[;&|()`\n])
    |   (?P<redirection>\d*[<>][<>&|]*)
    |   (?P<comment>\#[^\n]*)
    |   (?P<word>(?:[^\s;&|()`<>'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)
    |   (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_SUBSTITUTION = re.compile(r"\$\(|[<>]\(|`")
_PIECE = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)""", re.DOTALL)


def simple_commands(text: str, depth: int = 0) -> Iterator[list[str]]:
    """The words of each command in `text`: in lists, pipes, substitutions, `sh -c`, behind `sudo` and its like.

    Assignments and redirections are left out; the first word may bear a path.
    """
    if depth > _MAX_DEPTH:
        yield text.split()
        return
    text, bodies = _without_heredocs(text)
    for body in bodies:
        yield from simple_commands(body, depth + 1)
    for words in _split(text.replace("\\\n", " ")):
        yield from _unwrapped(words, depth)


def _without_heredocs(text: str) -> tuple[str, list[str]]:
    """`text` without the bodies of its here-documents, and those bodies that a shell reads."""
    kept: list[str] = []
    bodies: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        kept.append(line)
        for match in _HEREDOC.finditer(line):
            body = []
            for inner in lines:
                if inner.strip("\t") == match[2]:
                    break
                body.append(inner)
            else:
                kept += body
                continue
            if any(posixpath.basename(word) in SHELLS for word in line.split()):
                bodies.append("\n".join(body))
    return "\n".join(kept), bodies


def _split(text: str) -> Iterator[list[str]]:
    """The words of `text` between separators, without comments and redirections."""
    command: list[str] = []
    is_target = False
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "separator":
                yield command
                command, is_target = [], False
            case "redirection":
                is_target = True
            case "word" if is_target:
                is_target = False
            case "word":
                command.append(_unquoted(token[0]))
    yield command


def _unquoted(word: str) -> str:
    """What the shell makes of the quotes in `word`."""
    return _PIECE.sub(lambda piece: next((part for part in piece.groups() if part is not None), ""), word)


def _unwrapped(words: list[str], depth: int) -> Iterator[list[str]]:
    while words and (words[0] in _KEYWORDS or _ASSIGNMENT.match(words[0])):
        words = words[1:]
    for word in words:
        if substitution := _SUBSTITUTION.search(word):
            yield from simple_commands(word[substitution.end() :], depth + 1)
    if not words:
        return
    yield words
    program = posixpath.basename(words[0])
    if program == "eval":
        yield from simple_commands(" ".join(words[1:]), depth + 1)
    elif program in SHELLS or program == "su":
        for option, script in pairwise(words[1:]):
            if re.fullmatch(r"-\w*c|--command", option):
                yield from simple_commands(script, depth + 1)
    elif program in _WRAPPERS and depth < _MAX_DEPTH:
        for begin in _wrapped_at(words):
            yield from _unwrapped(words[begin:], depth + 1)


def _wrapped_at(words: Sequence[str]) -> list[int]:
    """Where the command that `words[0]` starts may begin: after its options, one of which may have a value."""
    begin, begins = 1, []
    while begin < len(words) and (
        words[begin].startswith("-") or _ASSIGNMENT.match(words[begin]) or _NUMBER.fullmatch(words[begin])
    ):
        begin += 1
    if begin < len(words):
        begins.append(begin)
        if words[begin - 1].startswith("-"):
            begins += [begin + 1] if begin + 1 < len(words) else []
    return begins
