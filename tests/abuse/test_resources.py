"""A01 to A10: what an agent takes or writes too much of."""

import json

import pytest

from tests.endpoint import DONE, Endpoint, in_order
from tests.endpoint import run as asked

from .agents import PIDS, attack

pytestmark = pytest.mark.usefixtures("docker_image")
AFTER = "echo fine; exit 3"
KIB = 1 << 10
SAME = {"mode": "same"}


PERCENT = """
look() {
    read -r used 2>/dev/null </sys/fs/cgroup/cpuacct/cpuacct.usage || {
        while read -r key value; do [ $key != usage_usec ] || used=${value}000; done </sys/fs/cgroup/cpu.stat
    }
    read -r up _ </proc/uptime
    up=${up%.*}${up#*.}
}
look
before=$used began=$up
sleep 1
look
echo $(((used - before) / (up - began) / 100000))
"""
"""Of one core, used by the container."""


def is_fine(observation):
    return (observation.output, observation.exit_code) == ("fine\n", 3)


@pytest.mark.parametrize(
    "bomb",
    ["bash -c ':(){ :|:& };:'; sleep 60", "python3 -c 'import os\nwhile 1:\n try: os.fork()\n except OSError: pass'"],
    ids=["bash", "python"],
)
def test_a01_a_fork_bomb_stays_within_its_container_and_is_swept_away(bomb):
    """Without `pids_limit` this fails: the container has 400 processes and more."""

    for agent in attack(bomb):
        (observation,) = agent.observations
        assert observation.status in ("timeout", "error"), agent.mode
        assert observation.duration_s < 5 + 6
        assert PIDS // 2 < agent.container.processes <= PIDS + 8


@pytest.mark.parametrize("bomb", ["python3 -c 'x = bytearray(4 << 30)'", "tail /dev/zero"], ids=["python", "tail"])
def test_a02_running_out_of_memory_is_told_and_ends_only_the_command(bomb):
    """Without the memory limit this fails: 4 GiB are taken; without the count of kills nothing is told."""

    for agent in attack(bomb, f"{bomb} 2>/dev/null; exit 0", AFTER):
        loud, quiet, after = agent.observations
        assert loud.exit_code == 137 or "MemoryError" in loud.error, agent.mode
        assert "The memory limit was reached" in loud.error
        assert "The memory limit was reached" in quiet.error or agent.mode == "exec"
        assert is_fine(after)


def test_a03_shared_memory_ends_at_its_size_and_is_charged_to_the_container():
    """Without `shm_size` this fails: the shared memory grows until the memory limit ends the container."""

    used = "cat /sys/fs/cgroup/memory.current /sys/fs/cgroup/memory/memory.usage_in_bytes 2>/dev/null"
    for agent in attack("dd if=/dev/zero of=/dev/shm/x bs=1M count=4096", used, f"rm /dev/shm/x; {AFTER}"):
        filled, charged, after = agent.observations
        assert "No space left on device" in filled.error, agent.mode
        assert int(charged.output) > 64 << 20
        assert is_fine(after)


def test_a04_filling_the_disk_ends_at_the_budget():
    """Without the disk guard this fails: 20 GB are written, as far as the time of the command reaches."""
    for agent in attack(
        *["dd if=/dev/zero of=/big bs=1M count=20000 oflag=append conv=notrunc"] * 5, reason="disk_limit"
    ):
        assert 256 << 20 < agent.container.written_bytes < 3 << 30, agent.mode
        assert len(agent.observations) < 5 or agent.observations[-1].status == "not_executed"


def test_a06_what_the_first_process_seems_to_print_reaches_no_log():
    """Without the log driver `none` this fails; without `setpriv` before process 1, too, and then its log grows."""

    for agent in attack("timeout 2 cat /dev/zero >/proc/1/fd/1", "timeout 2 yes >/proc/1/fd/2", AFTER):
        assert agent.container.inspected["HostConfig"]["LogConfig"]["Type"] == "none", agent.mode
        assert agent.container.log_bytes == 0
        assert is_fine(agent.observations[-1])


def test_a07_of_two_gigabytes_of_output_head_and_tail_are_kept():
    """Without the bound of `Capture` on the tail this fails: this process grows by hundreds of MiB."""

    for agent in attack("echo first; head -c 2147483648 /dev/zero | tr '\\0' x; echo last", AFTER):
        flood, after = agent.observations
        assert flood.exit_code in (0, None), agent.mode
        assert flood.output.startswith("first\nxxx")
        assert flood.output.endswith("xlast\n" if flood.exit_code == 0 else "x")
        assert len(flood.output) < 65 * KIB
        omitted = flood.output_bytes - 64 * KIB
        assert f"\n[... {omitted} bytes omitted ...]\n" in flood.output
        assert flood.truncated
        assert is_fine(after)


def test_a08_endless_output_ends_at_the_deadline():
    """Without the signals of `END_SESSION` this fails: `yes` goes on."""

    for agent in attack("yes", "ps -eo args | grep -c '^ye[s]$'"):
        endless, left = agent.observations
        assert endless.status == "timeout", agent.mode
        assert endless.output.startswith("y\ny\n")
        assert left.output == "0\n"


def test_a09_bytes_that_are_no_text_reach_the_endpoint_and_the_row_as_text():
    """Without the replacement of bytes that are no text (`text.decode`) this fails: there is no row."""

    commands = [
        "head -c 1048576 /dev/urandom",
        "printf '\\000\\033[31m\\r\\n\\177'; printf '\\000' >&2",
        "printf '\\355\\240\\275 \\364\\220\\200\\200 \\300\\200'",
        "head -c 1048576 /dev/zero | tr '\\0' x",
    ]
    with Endpoint(in_order(*map(asked, commands), DONE)) as endpoint:
        for agent in attack(modes=["channel"], endpoint=endpoint.base_url):
            noise, controls, surrogate, line = agent.observations
            assert noise.output_bytes == line.output_bytes == 1 << 20
            assert (controls.output, controls.error) == ("�\x1b[31m\r\n\x7f", "�")
            assert surrogate.output == "��� ���� ��"
            assert line.output.startswith("xxx")
    told = [message["content"] for message in endpoint.requests[-1]["messages"] if message["role"] == "tool"]
    assert len(told) == 4
    assert "���" in json.dumps(told, ensure_ascii=False)


def test_a10_fifty_spinning_processes_take_no_time_from_the_bystander():
    """Without `nano_cpus` this fails: a whole core is used; without `stop_processes` 50 live on at the tests."""

    def calm():
        return attack("sleep 2", modes=["channel"])[0].beside.latency_s

    before = calm()
    spin = "for i in $(seq 50); do (while :; do :; done) & done"
    gone = "[ $(ls -d /proc/[0-9]* | wc -l) -lt 10 ]"
    agents = attack(f"{spin} >/dev/null 2>&1", PERCENT, AFTER, unit_tests=[gone], grading_config=SAME)
    slowest = max(3 * max(before, calm()), 0.05)  # of a few milliseconds, what else the machine does is a multiple
    for agent in agents:
        assert agent.container.processes > 50, agent.mode
        assert int(agent.observations[1].output) < 75
        assert agent.beside.latency_s < slowest
        assert is_fine(agent.observations[-1])
