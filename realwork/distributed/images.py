"""Prepared images handed from node to node: saved by a task where the image is, loaded where it is needed.

Guarantees: a few pieces are in flight, whatever the size of the image; every wait has a deadline; a source that dies,
or does not have the image, is an answer and no error; when the receiver goes, the sender ends.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from realwork.distributed.answers import answer
from realwork.distributed.cluster import only_on
from realwork.errors import NodeError, RealworkError, SandboxError

if TYPE_CHECKING:
    from realwork.sandbox.engine import Engine
    from realwork.sandbox.prepared import Fetch

log = logging.getLogger(__name__)

TRANSFER_S = 1800.0
FIRST_PIECE_S = 600.0
"""The sender's engine writes the image out before it gives the first piece."""
PIECE_S = 120.0
PIECES_AHEAD = 4


def fetch_from(node_id: str) -> "Fetch":
    """What brings a prepared image from the engine of a node; it logs why it could not, and is called in an event loop.

    The task there finds its engine as every process of that node does, by `DOCKER_HOST`.
    """
    return partial(_fetch, node_id)


async def _fetch(node_id: str, engine: "Engine", image: str, known: frozenset[str]) -> bool:
    from realwork.sandbox.refusals import LoadRefused

    try:
        async with asyncio.timeout(TRANSFER_S):
            try:
                await _hand_over(node_id, engine, image, known)
            except LoadRefused:
                if not known:
                    raise
                await _hand_over(node_id, engine, image, frozenset())
    except (RayError, RealworkError, TimeoutError) as error:
        why = str(error).strip() or f"it took longer than {TRANSFER_S:g} s"
        log.warning("%s cannot be fetched from node %s: %s", image, node_id, why)
        return False
    return True


async def _hand_over(node_id: str, engine: "Engine", image: str, known: frozenset[str]) -> None:
    from realwork.sandbox.handing import load

    sender = ray.remote(_saved).options(
        num_cpus=0,
        max_retries=0,
        num_returns="streaming",
        _generator_backpressure_num_objects=PIECES_AHEAD,
        scheduling_strategy=only_on(node_id),
    )
    stream = sender.remote(image, known)
    pieces = Pieces(stream)
    try:
        await load(engine, image, pieces)
    except BaseException:
        pieces.close()
        if not pieces.has_ended:  # a sender that waits for its engine would wait on; Ray dies of a cancelled end
            ray.cancel(stream, force=True)
        raise
    pieces.close()


def _saved(image: str, known: frozenset[str]) -> Iterator[bytes]:
    """The task of the sender."""
    from realwork.sandbox.engine import connect
    from realwork.sandbox.handing import saved

    client = connect()
    try:
        yield from saved(client, image, known)
    finally:
        client.close()


class Pieces(Iterator[bytes]):
    """What a task gives, for a thread, which waits for it while the event loop goes on; one piece at a time.

    Attributes:
        has_ended: whether the task has said that nothing more comes.
    """

    def __init__(self, stream: Any, *, first_piece_s: float = FIRST_PIECE_S, piece_s: float = PIECE_S) -> None:
        self._stream = stream
        self._wait_s = first_piece_s
        self._piece_s = piece_s
        self._loop = asyncio.get_running_loop()
        self._changing = threading.Lock()
        self._coming: Future[bytes | None] | None = None
        self._is_closed = False
        self.has_ended = False

    def __next__(self) -> bytes:
        """The next piece.

        Raises:
            NodeError: the sender is gone, or silent for too long.
            SandboxError: its engine failed, or nobody wants the rest any more.
        """
        with self._changing:
            if self._is_closed:
                raise SandboxError("Nobody waits for the image any more")
            self._coming = coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        try:
            piece = coming.result()
        except CancelledError:
            raise SandboxError("Nobody waits for the image any more") from None
        self._wait_s = self._piece_s
        if piece is None:
            raise StopIteration
        return piece

    async def _next(self) -> bytes | None:
        """The next piece, null after the last."""
        try:
            async with asyncio.timeout(self._wait_s):
                piece: bytes = await answer(await anext(self._stream))
                return piece
        except StopAsyncIteration:
            self.has_ended = True
            return None
        except TimeoutError:
            raise NodeError(f"nothing came for {self._wait_s:g} s") from None
        except RayError as error:
            self.has_ended = True
            raise NodeError(f"the sender is gone: {error}") from error
        except RealworkError:
            self.has_ended = True
            raise

    def close(self) -> None:
        """Let the thread wait no longer."""
        with self._changing:
            self._is_closed = True
            if self._coming is not None:
                self._coming.cancel()
