"""An actor's memory does not grow with what its agent prints, nor the store's with how much is committed (I9)."""

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from realwork.sandbox import labels
from tests.e2e.command import REPOSITORY, environment, rows, run_file, running
from tests.endpoint import DONE, Endpoint, by_turn, run
from tests.sandbox.owners import descendants, wait_until

MOST_GROWTH_KIB = 64 << 10
QUARTER_GIB = "head -c 268435456 /dev/zero | tr '\\0' x"


def resident_kib(pid):
    with suppress(OSError, KeyError):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(status["VmRSS"].split()[0])
    return 0


def is_actor(pid):
    with suppress(OSError):
        return b"ray::RolloutActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_four_actors_whose_agents_print_a_quarter_of_a_gib_each_stay_small(private_engine, tmp_path):
    turns = by_turn(run("echo small"), run("sleep 5"), run(QUARTER_GIB, timeout=200), DONE)
    before, most = {}, {}
    ended = threading.Event()

    def watch(pids):
        while not ended.wait(0.1):
            for pid in pids:
                most[pid] = max(most.get(pid, 0), resident_kib(pid))

    with Endpoint(turns) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            environments=[environment("e", unit_tests=["true"])],
            episode_control_config={"max_episodes": 4},
            rollout_config={"max_parallel_rollouts": 4},
        )
        arguments = ("run", file, "--run-id", "large")
        with running(*arguments, cwd=tmp_path, DOCKER_HOST=private_engine.url) as process:
            wait_until(lambda: sum(map(is_second, endpoint.requests)) == 4, 180, "four agents at work")
            before = {pid: resident_kib(pid) for pid in descendants(process.pid) if is_actor(pid)}
            watching = threading.Thread(target=watch, args=(before,))
            watching.start()
            said, _ = process.communicate(timeout=250)
            ended.set()
            watching.join()
    assert process.returncode == 0, said
    assert len(before) == 4
    assert max(most[pid] - before[pid] for pid in before) < MOST_GROWTH_KIB, (before, most)
    found = rows(tmp_path / "out" / "large")
    assert [row["steps"][2]["tool_results"][0]["output_bytes"] for row in found] == [1 << 28] * 4
    assert private_engine.containers(f"{labels.RUN}=large") == []


def is_second(request):
    return sum(message["role"] == "assistant" for message in request["messages"]) == 1


STORE = """
import asyncio, resource, sys
from pathlib import Path
from realwork.dataset.commits import make_commit
from realwork.dataset.store import TrajectoryStore
from tests.dataset.records import rich

model = rich(output="x" * 8_000)

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

async def main():
    specs = [model.spec.model_copy(update={"sample_index": sample}) for sample in range(8000)]
    commits = [make_commit(model.model_copy(update={"spec": spec})) for spec in specs]
    async with TrajectoryStore(Path(sys.argv[1])) as store:
        await asyncio.gather(*map(store.commit, commits[:3000]))
        await store.seal()
        before = peak_kib()
        answers = await asyncio.gather(*map(store.commit, commits[3000:]))
        print(len(answers), peak_kib() - before)

asyncio.run(main())
"""


def test_a_store_with_5000_queued_commits_stays_small(tmp_path):
    command = [sys.executable, "-c", STORE, str(tmp_path / "run")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr
    answers, grown_kib = map(int, ended.stdout.split())
    assert answers == 5000
    assert grown_kib < MOST_GROWTH_KIB
