"""Limits of sandboxes in the run file: of the run, of an environment, and what is refused."""

import pytest
from pydantic import ValidationError

from realwork.distributed.slot import rollout_memory_mib
from realwork.limits import CAPABILITIES, SandboxLimits
from realwork.preflight import capacity_problems, engine_needs

DEFAULTS = {
    "kind": "docker",
    "network": "none",
    "memory_mib": 2048,
    "cpus": 1.0,
    "pids": 512,
    "disk_mib": 10240,
    "shm_mib": 64,
    "output_limit_kib": 64,
    "capabilities": list(CAPABILITIES),
    "user": None,
    "read_only": False,
    "runtime": None,
}


def test_the_defaults_are_those_that_are_documented(run_files):
    assert run_files.load().config.sandbox_config.model_dump() == DEFAULTS


def test_limits_left_out_in_an_environment_are_those_of_the_run(run_files):
    config = run_files.load(
        ("environments.0.sandbox_config", {"memory_mib": 4096, "user": "1000"}),
        ("sandbox_config", {"pids": 64, "user": "nobody", "memory_mib": 300}),
    ).config
    own, common = (config.limits(each) for each in config.environments)
    assert (own.memory_mib, own.pids, own.user) == (4096, 64, "1000")
    assert (common.memory_mib, common.pids, common.user) == (300, 64, "nobody")


def test_the_network_of_an_environment_stands_before_that_of_its_limits(run_files):
    config = run_files.load(
        ("environments.0.sandbox_config", {"network": "bridge"}),
        ("environments.1.sandbox_config", {"network": "bridge"}),
        ("environments.1.network", "mine"),
        ("sandbox_config", {"network": "other"}),
    ).config
    assert [config.network(each) for each in config.environments] == ["bridge", "mine"]


def test_every_rollout_reserves_what_the_largest_environment_needs(run_files):
    config = run_files.load(("environments.1.sandbox_config", {"memory_mib": 4096})).config
    assert rollout_memory_mib(config) - rollout_memory_mib(run_files.load().config) == 2048


def test_an_environment_too_large_for_this_machine_is_named(run_files):
    config = run_files.load(("environments.1.sandbox_config", {"memory_mib": 1 << 30, "cpus": 4096})).config
    problems = capacity_problems(config)
    assert [problem.partition(":")[0] for problem in problems] == [
        "environments[1].sandbox_config.memory_mib",
        "environments[1].sandbox_config.cpus",
    ]


def test_runtimes_and_networks_of_every_environment_are_needed(run_files):
    needs = engine_needs(
        run_files.load(
            ("environments.1.sandbox_config", {"runtime": "runsc", "network": "lab"}),
            ("sandbox_config.runtime", "kata"),
        ).config
    )
    assert (set(needs.runtimes), set(needs.networks)) == ({"kata", "runsc"}, {"lab"})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("capabilities", ["KILL", "NET_RAWW"], "sandbox_config.capabilities[1]: must be a capability of Linux, "),
        ("capabilities", ["CAP_NET_RAW"], "did you mean 'NET_RAW'?"),
        ("capabilities", ["ALL"], "in capitals and without CAP_; "),
        ("capabilities", "CHOWN", "sandbox_config.capabilities: expected a list, found 'CHOWN'"),
        ("capabilities", [""], "sandbox_config.capabilities[0]: must be a capability of Linux"),
        ("capabilities", [5], "sandbox_config.capabilities[0]: expected text, found a number"),
        ("user", "a b", "sandbox_config.user: must be a user of the image, by name or number"),
        ("user", 1000, "sandbox_config.user: expected text, found 1000: put it in quotes"),
        ("disk_mib", 0, "sandbox_config.disk_mib: expected a number of at least 16, found 0"),
        ("read_only", "yes", "sandbox_config.read_only: expected true or false, found 'yes'"),
    ],
)
@pytest.mark.parametrize("place", ["", "environments.0."])
def test_what_no_limit_can_be_is_named_with_its_place(run_files, place, field, value, said):
    problems = run_files.problems((f"{place}sandbox_config", {field: value}))
    assert any(said in problem for problem in problems), problems
    assert len(problems) == 1


def test_an_environment_has_no_kind_of_its_own(run_files):
    (problem,) = run_files.problems(("environments.0.sandbox_config", {"kind": "docker"}))
    assert problem == (
        "environments[0].sandbox_config.kind: unknown key. "
        "'kind' holds for the whole run: it belongs to sandbox_config at the root of the file."
    )


@pytest.mark.parametrize(
    ("limits", "needed"),
    [
        ({"capabilities": []}, ()),
        ({"capabilities": ["SETUID"]}, ("SETUID", "KILL")),
        ({"capabilities": [], "user": "1000"}, ("CHOWN", "DAC_OVERRIDE", "KILL")),
        ({"capabilities": ["KILL", "SETUID", "KILL"]}, ("KILL", "SETUID")),
    ],
)
def test_what_our_own_root_needs_is_added_to_the_capabilities(limits, needed):
    assert SandboxLimits(**limits).needed_capabilities == needed


def test_limits_are_frozen_and_closed():
    with pytest.raises(ValidationError):
        SandboxLimits(kind="docker")
    with pytest.raises(ValidationError):
        SandboxLimits().memory_mib = 5
