"""Where a key may not be."""

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq

from realwork.sandbox.engine import connect
from tests.e2e.command import own_containers


def holds(key, folder):
    """Files below `folder` with `key` in their bytes."""
    found = subprocess.run(
        ["grep", "-rlaF", "--devices=skip", key, str(folder)], capture_output=True, text=True, check=False
    )
    return found.stdout.splitlines()


def logs_with(key, since):
    """Files of Ray's sessions that were alive since then with `key` in them."""
    sessions = [one for one in Path("/tmp/ray").glob("session_2*") if one.stat().st_mtime >= since - 60]
    assert sessions
    return [file for session in sessions for file in holds(key, session)]


def rows_with(key, folder):
    """Parts below `folder` with `key` in a value, however it is encoded."""
    return [part for part in folder.rglob("part-*.parquet") if key in str(pq.read_table(part).to_pylist())]


def processes_with(key, what):
    """Ids of processes with `key` in their command line or environment, but for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / what).read_bytes()
        except OSError:  # it has ended
            continue
        if key.encode() in content and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def containers_with(key, run_id):
    client = connect()
    try:
        return [name for name in own_containers(run_id) if key in str(client.inspect_container(name))]
    finally:
        client.close()
