"""A27 to A29: hostile files and hostile paths for the file tools, and hostile work on its way to the tests."""

import pytest

from realwork.sandbox.docker import FILE_S

from .agents import attack, tool

pytestmark = pytest.mark.usefixtures("docker_image")


def read(path):
    return tool("read_file", filepath=path)


def write(path, content="new"):
    return tool("write_file", filepath=path, content=content)


def test_a27_a_hostile_file_is_read_inside_or_refused(tmp_path):
    """Without the look at the kind of the file, and without the bound on what is read, this fails."""

    (tmp_path / "canary").write_text("sk-canary")
    make = (
        f"ln -s /etc/passwd link; ln -s {tmp_path}/canary outside; ln -s /proc/self/environ environment; mkfifo fifo;"
        " ln -s /dev/zero zero; ln -s loop loop; mkdir dir; truncate -s 1T giant; ln -s giant giant-link;"
        " python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; ls | wc -l"
    )
    refused = ["outside", "fifo", "zero", "socket", "dir", "dir/..", "loop", "/dev/zero", "/dev/stdin", "/proc/1/mem"]
    actions = [make, read("link"), read("giant"), read("giant-link"), *map(read, refused), "rm giant"]
    for agent in attack(*actions, sandbox_config={"disk_mib": None}):
        made, link, giant, giant_link, *others, _removed = agent.observations
        assert made.output == "10\n", agent.mode
        assert link.output.startswith("root:x:0:0")
        for one in (giant, giant_link):
            assert (one.status, one.output_bytes, len(one.output)) == ("ok", 1 << 40, 64 << 10)
        assert {one.status for one in others} == {"error"}
        assert all(one.duration_s < 3 for one in agent.observations[1:])
        assert "sk-canary" not in str(agent.trajectory)


def test_a27_a_sparse_file_counts_in_full():
    """Without the disk guard this fails: the engine writes its holes out wherever it copies the file."""
    for agent in attack("truncate -s 1T /giant", *["sleep 4"] * 5, reason="disk_limit"):
        assert agent.took_s < 20, agent.mode


def test_a27_a_file_that_becomes_a_fifo_while_it_is_read_does_not_hang():
    """Its kind is looked at before it is opened; what slips through is bounded by `FILE_S` alone."""
    flip = "while :; do rm -f x; mkfifo x; rm -f x; echo real >x; done >/dev/null 2>&1 &"
    for agent in attack(flip, *[read("x"), write("x")] * 3):
        assert all(one.duration_s < FILE_S + 6 for one in agent.observations), agent.mode


def test_a28_work_travels_without_what_could_harm_and_its_links_lead_where_they_led(tmp_path):
    """Where links that lead out are not made absolute the engine takes nothing of it; without `_plain`, set-id bits."""
    (tmp_path / "canary").write_text("sk-canary")
    make = (
        f"ln -s {tmp_path}/canary host; ln -s ../../../etc/hostname up; ln -s /etc abs; mkdir -p a/b;"
        " ln -s ../../../x a/b/l; cp /bin/sh run; chmod 6755 run; mkfifo fifo; echo 1 >one; ln one two;"
        " ln -s nowhere gone; printf x >\"$(printf 'a\\nb')\""
    )
    checks = (
        "! cat host",
        "cat up abs/hostname",
        'test "$(readlink a/b/l)" = /x',
        "test -x run && ! test -u run && ! test -g run",
        "! test -e fifo",
        "test one -ef two",
        "test -L gone",
        "cat a?b",
    )
    for agent in attack(make, unit_tests=list(checks)):
        assert (tmp_path / "canary").read_text() == "sk-canary", agent.mode


def test_a28_more_than_can_be_taken_over_is_rejected():
    """Without the bounds of `artifact.checked` the zeros are written out into another container: this fails."""
    for agent in attack("truncate -s 10G zeros", reward=0.0, sandbox_config={"disk_mib": None}):
        assert agent.trajectory.test_results[0].error.startswith("artifact_rejected: /workspace"), agent.mode
        assert agent.took_s < 30


NAMES = {
    "newline": "a\nb",
    "quotes": 'it\'s "so"',
    "dash": "-rf",
    "home": "~/x",
    "substitution": "$(touch /workspace/hit)`touch /workspace/hit`",
    "semicolon": "; touch /workspace/hit; #",
    "glob": "*",
    "backslash": "a\\nb\\",
    "percent": "%s%n%d",
    "unicode": "\u202e\U0001f600",
    "up": "../../../workspace/sub/../up",
}


@pytest.mark.parametrize("working_directory", ["/workspace", "/work; touch hit; #' dir"])
def test_a29_hostile_paths_name_exactly_the_file_they_spell(working_directory):
    """Without the quotes around paths in `scripts`, or where they are expanded, this fails."""

    actions = [action for path in NAMES.values() for action in (write(path, f"of {path}"), read(path))]
    for agent in attack(*actions, "test ! -e hit && pwd", working_directory=working_directory):
        *pairs, last = agent.observations
        found = dict(zip(NAMES, pairs[1::2], strict=True))
        assert {name: one.output for name, one in found.items()} == {k: f"of {v}" for k, v in NAMES.items()}, agent.mode
        assert last.output == f"{working_directory}\n"


def test_a29_paths_that_no_file_can_have_are_refused():
    paths = ["a\0b", "x" * 5000, "/".join(["y" * 200] * 30), "", "/", "/etc/passwd/x"]
    for agent in attack(*map(read, paths), *map(write, paths)):
        assert {one.status for one in agent.observations} <= {"error", "invalid"}, agent.mode
