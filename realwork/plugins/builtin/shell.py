"""A shell command line as the words of every simple command in it, however deep it is wrapped.

Guarantees: never raises, takes time in proportion to the text, and errs on the side of finding a command: a quote that
is never closed is passed over.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

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
_EXECUTES = frozenset({"-exec", "-execdir", "-ok", "-okdir"})
_MAX_DEPTH = 8
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_NUMBER = re.compile(r"[\d.]+[smhd]?")
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)([A-Za-z_]\w*)\1")
_TOKEN = re.compile(
    r"""(?P<separator>\|[|&]?|[;&()`\n])
    |   (?P<redirection>\d*[<>][<>&|]*)
    |   (?P<comment>\#[^\n]*)
    |   (?P<word>(?:\$'(?:[^'\\]|\\.)*'|[^\s;&|()`<>'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)
    |   (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_SUBSTITUTION = re.compile(r"\$\(|[<>]\(|`")
_PIECE = re.compile(
    r"""\$'(?P<escaped>(?:[^'\\]|\\.)*)'|'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<one>.)""", re.DOTALL
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|([0-7]{1,3})|(.))", re.DOTALL)
_CONTROL = {"n": "\n", "r": "\r", "t": "\t"}


class _Command(NamedTuple):
    """A command as it is written.

    Attributes:
        written: the files that it is redirected to.
        read: the here-strings that it is given.
        separator: what stands behind it, empty at the end.
    """

    words: list[str]
    written: list[str]
    read: list[str]
    separator: str


def simple_commands(text: str, depth: int = 0) -> Iterator[list[str]]:
    """The words of each command in `text`: in lists, pipes, substitutions, `sh -c`, behind `sudo` and its like.

    Assignments and redirections are left out; the first word may bear a path. A redirection to a file is a command of
    its own, `>` and the file.
    """
    if depth > _MAX_DEPTH:
        yield text.split()
        return
    text, bodies = _without_heredocs(text)
    for body in bodies:
        yield from simple_commands(body, depth + 1)
    piped = ""
    for command in _split(text.replace("\\\n", " ")):
        for target in command.written:
            yield from _unwrapped([">", target], depth)
        found = [*_unwrapped(command.words, depth)]
        yield from found
        if any(_reads_script(words) for words in found):
            for script in (piped, *command.read):
                yield from simple_commands(script, depth + 1)
            piped = ""
        piped = (_printed(found) or piped) if command.separator in ("|", "|&") else ""


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


def _split(text: str) -> Iterator[_Command]:
    """The commands of `text` between separators, without comments."""
    command = _Command([], [], [], "")
    redirection = ""
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "separator":
                yield command._replace(separator=token[0])
                command, redirection = _Command([], [], [], ""), ""
            case "redirection":
                redirection = token[0]
            case "word" if redirection:
                if redirection == "<<<":
                    command.read.append(_unquoted(token[0]))
                elif ">" in redirection:
                    command.written.append(_unquoted(token[0]))
                redirection = ""
            case "word":
                command.words.append(_unquoted(token[0]))
    yield command


def _unquoted(word: str) -> str:
    """What the shell makes of the quotes in `word`."""
    return _PIECE.sub(_unquoted_piece, word)


def _unquoted_piece(piece: re.Match[str]) -> str:
    if (escaped := piece["escaped"]) is not None:
        return _ESCAPE.sub(_character, escaped)
    return next((part for part in piece.groups() if part is not None), "")


def _character(escape: re.Match[str]) -> str:
    hexadecimal, octal, other = escape[1] or escape[2], escape[3], escape[4]
    if hexadecimal or octal:
        return chr(int(hexadecimal, 16) if hexadecimal else int(octal, 8))
    return _CONTROL.get(other, other)


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
    if (script := _script(program, words)) is not None:
        yield from simple_commands(script, depth + 1)
    elif program in SHELLS or program == "su":
        for option, script in pairwise(words[1:]):
            if re.fullmatch(r"-\w*c|--command", option):
                yield from simple_commands(script, depth + 1)
    elif depth < _MAX_DEPTH:
        for wrapped in _wrapped(program, words):
            yield from _unwrapped(wrapped, depth + 1)


def _script(program: str, words: Sequence[str]) -> str | None:
    """What `program` reads as a command line, null if it does not read its arguments so."""
    if program == "eval":
        return " ".join(words[1:])
    if program == "watch":
        return "\n".join(" ".join(words[begin:]) for begin in _behind_options(words))
    if program == "trap":
        return next((word for word in words[1:] if word != "--"), "")
    return None


def _wrapped(program: str, words: list[str]) -> Iterator[list[str]]:
    """The words of the commands that `program` starts."""
    if program == "find":
        begin = None
        for at, word in enumerate([*words, ";"]):
            if begin is None and word in _EXECUTES:
                begin = at + 1
            elif begin is not None and word in (";", "+"):
                yield words[begin:at]
                begin = None
    elif program in _WRAPPERS:
        yield from (words[begin:] for begin in _behind_options(words))


def _behind_options(words: Sequence[str]) -> list[int]:
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


def _reads_script(words: Sequence[str]) -> bool:
    """Whether it is a shell that reads its commands from where it stands, neither from a file nor from `-c`."""
    if not words or posixpath.basename(words[0]) not in SHELLS:
        return False
    return "-s" in words or all(word.startswith("-") for word in words[1:])


def _printed(commands: Sequence[Sequence[str]]) -> str:
    """What an `echo` or `printf` among `commands` prints, nearly."""
    for words in commands:
        if words and words[0] in ("echo", "printf"):
            return " ".join(words[1:]).replace("\\n", "\n")
    return ""
