"""The Ray that a run uses: joined or started, and how many rollouts its nodes can hold."""

import gc
import logging
import math
import os
import platform
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
from pydantic import Field
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from realwork.errors import InputError
from realwork.plugins.panel import PackedPlugin
from realwork.types import Record

LOCAL_OBJECT_STORE_MIB = 512
KNOCK_TIMEOUT_S = 5.0
TIMED_OUT = "timed out during startup"
_FOUND_BY_RAY = frozenset({"memory", "object_store_memory", "TPU", "HPU", "NPU", "neuron_cores"})
T = TypeVar("T")
_is_starting = threading.Event()


def _leave_group() -> None:
    """Give a process of a local Ray, just forked, a group of its own.

    What ends a whole group, as a terminal and `timeout` do, then reaches the driver alone, which ends Ray at last.
    """
    if _is_starting.is_set():
        os.setpgrp()


os.register_at_fork(after_in_child=_leave_group)


class Node(Record):
    """A living node; `memory_mib`, `cpus` and `resources`, those by their names, are what Ray may give away of it."""

    node_id: str
    name: str
    memory_mib: int = Field(ge=0)
    cpus: float
    resources: dict[str, float] = {}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray for the length of the block: the cluster at `address`, or a local one of our own when that is null.

    A process that is connected already stays as it is, before and after.

    Raises:
        InputError: no cluster answers at `address`, or it refuses us.
    """
    if is_connected():
        yield
        return
    if address is None:
        # Containers have limits of their own; Ray's monitor would blame our actors for their memory.
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        try:
            _start()
        except Exception as error:  # Ray has no type of its own for it
            said = str(error).strip().partition("\n")[0]
            raise InputError(
                f"a local Ray could not be started: {said}. If this machine is busy, try again; else see what its "
                "processes wrote below /tmp/ray/session_latest/logs"
            ) from error
    else:
        _join(address)
    try:
        yield
    finally:
        _leave()


def _leave() -> None:
    """Disconnect; meanwhile no garbage is looked for.

    An actor's handle that another thread lets go of while Ray shuts down ends the process with exit code 1.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


def _start() -> None:
    """Start a local Ray, which gives up after 30 s: on a busy machine it gets a second chance."""
    _is_starting.set()
    try:
        for is_last in (False, True):
            try:
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=LOCAL_OBJECT_STORE_MIB << 20,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except Exception as error:  # Ray has no type of its own for it
                ray.shutdown()
                if is_last or TIMED_OUT not in str(error):
                    raise
            else:
                return
    finally:
        _is_starting.clear()


def this_node() -> str:
    """Ray's id of the node that this process is on; its name where there is no Ray."""
    node_id: str = ray.get_runtime_context().get_node_id() if is_connected() else platform.node()
    return node_id


def is_connected() -> bool:
    """Whether this process has joined a cluster already."""
    connected: bool = ray.is_initialized()
    return connected


def _join(address: str) -> None:
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"'{address}' is the address of a dashboard, for 'realwork submit'; a cluster is joined at HOST:PORT, such "
            "as 127.0.0.1:6379, which 'ray start --head' prints"
        )
    try:
        _knock(_current() if address == "auto" else address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        raise InputError(
            f"no Ray cluster could be joined at '{address}': {error}. Start one with 'ray start --head', check the "
            "address, or leave --address and RAY_ADDRESS out for a local run; a cluster with token authentication "
            "needs its token here, in ~/.ray/auth_token or RAY_AUTH_TOKEN (and in Python RAY_AUTH_MODE=token)."
        ) from error


def _current() -> str:
    """The address of the cluster that was started last on this machine, where Ray notes it; "" if there is none."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    return note.read_text(encoding="utf-8").strip() if note.is_file() else ""


def _knock(address: str) -> None:
    """Find out in seconds whether anything listens at `address`; Ray itself would try for minutes.

    Raises:
        OSError: nothing does.
    """
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()


def this_machine() -> Node:
    """This machine as a node, where there is no Ray."""
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Node(node_id=this_node(), name=platform.node(), memory_mib=memory_mib, cpus=os.cpu_count() or 1)


def nodes() -> list[Node]:
    """The living nodes of the cluster that we are connected to."""
    return [
        Node(
            node_id=node["NodeID"],
            name=_name(node),
            memory_mib=int(node["Resources"].get("memory", 0)) >> 20,
            cpus=node["Resources"].get("CPU", 0.0),
            resources=node["Resources"],
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def _name(node: Mapping[str, Any]) -> str:
    """What people call a node: what it was given with `--node-name`, else its host's name."""
    given, host = str(node.get("NodeName") or ""), str(node["NodeManagerHostname"])
    return given if given and given != node["NodeManagerAddress"] else host


def plugin_problems(plugins: Sequence[PackedPlugin], found: list[Node]) -> list[str]:
    """Which of `plugins` no node of Ray's can ever call, by what they want; where there is no Ray, all can be."""
    refused = defaultdict[str, list[str]](list)
    for plugin in plugins:
        options = plugin.options
        wanted = {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
        wanted = {name: amount for name, amount in wanted.items() if amount}
        if not plugin.builtin and not any(_has(node, wanted) for node in found):
            asked = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items())
            refused[asked].append(plugin.name)
    return [
        f"plugin {', '.join(names)}: no node has what a call of it reserves: {asked}"
        for asked, names in refused.items()
    ]


def local_plugin_problems(plugins: Sequence[PackedPlugin]) -> list[str]:
    """Which of `plugins` a local Ray can never call, told without one: too many CPUs, or a resource that none has.

    What Ray finds by itself, such as GPUs, is taken for granted.
    """
    machine = this_machine()
    wanted = {name for plugin in plugins for name in plugin.options.get("resources", {})}
    found = dict.fromkeys([name for name in wanted if ":" in name or name in _FOUND_BY_RAY], math.inf)
    node = machine.model_copy(update={"resources": {"CPU": machine.cpus, "GPU": math.inf} | found})
    return plugin_problems(plugins, [node])


def _has(node: Node, wanted: Mapping[str, float]) -> bool:
    return not node.resources or all(node.resources.get(name, 0.0) >= amount for name, amount in wanted.items())


def only_on(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Ray's strategy for what is to run on a node, and on no other when that is gone."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def on_node(node_id: str, function: Callable[..., T], *arguments: Any) -> Any:
    """Begin a call of `function` on a node, and no other; what its answer is awaited from, or given to `ray.get`."""
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": only_on(node_id)}
    return ray.remote(function).options(**options).remote(*arguments)
