"""The benchmarks through the command line: what they measure, never how fast it was."""

import json

import pytest

from tests.e2e.command import own_containers, realwork

PARTS = {"driver", "actors", "store", "tasks", "Ray", "model server", "engine and containers"}


def is_spread(found):
    return 0 < found["lowest"] <= found["median"] <= found["highest"]


def test_bench_measures_episodes_of_both_modes_beside_the_engine(docker_image, tmp_path):
    options = ("--rounds", 1, "--episodes", 8, "--commands", 2, "--parallel", 2, "--json", "numbers.json")
    result = realwork("bench", "episodes", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = json.loads((tmp_path / "numbers.json").read_text())
    assert list(measured["modes"]) == ["same", "fresh"]
    for found in measured["modes"].values():
        assert found["successful"] == 8
        assert all(is_spread(found[name]) for name in ("episodes_per_s", "whole_per_s", "engine_per_s"))
        assert found["ratio"]["median"] == pytest.approx(
            found["episodes_per_s"]["median"] / found["engine_per_s"]["median"]
        )
        assert set(found["cpu_ms"]) == PARTS
    assert "ratio to the engine alone" in result.stdout


def test_bench_measures_the_start_beside_that_of_ray(docker_image, tmp_path):
    result = realwork("bench", "start", "--rounds", 1, "--json", "-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert all(is_spread(measured[kind][name]) for kind in ("cold", "warm") for name in measured[kind])


def test_bench_measures_rollouts_in_flight_and_lets_them_end(docker_image, tmp_path):
    options = ("--rollouts", 3, "--reply-s", 0.2, "--seconds", 3, "--json", "-")
    result = realwork("bench", "flight", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert (measured["rollouts"], measured["successful"]) == (3, 3)
    assert set(measured["part_share"]) == PARTS
    assert all(share >= 0 for part, share in measured["part_share"].items() if part != "engine and containers")
    assert all(is_spread(measured[name]) for name in ("cpu_share", "actor_mib"))
    assert measured["actor_mib"]["lowest"] > 30
    assert measured["commands_per_s"] > 1
    assert own_containers("bench") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope",), "No such command 'nope'"),
        (("model", "--json", "missing/numbers.json"), "--json missing/numbers.json: No such file or directory"),
        (("episodes", "--episodes", 8, "--parallel", 8), "8 rollouts at once need at least 32 episodes, not 8"),
    ],
)
def test_a_mistake_is_said_before_anything_is_measured(tmp_path, arguments, said):
    result = realwork("bench", *arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_bench_measures_the_model_client_beside_the_bare_one(tmp_path):
    result = realwork("bench", "model", "--requests", 5, "--json", "-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert all(is_spread(measured[client][name]) for client in ("ours", "bare") for name in measured[client])
    assert is_spread(measured["ratio"])
    assert 0 < measured["long_conversation_mib"] < 64


def test_bench_measures_the_store_beside_bare_pyarrow(tmp_path):
    result = realwork("bench", "store", "--rows", 1200, "--mib", 1, "--json", "-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert sorted(measured["rates"]) == ["1", "100", "2048"]
    for each in measured["rates"].values():
        assert all(is_spread(each[name]) for name in ("acked_per_s", "sealed_per_s", "bare_per_s", "ratio"))
        assert each["acked_per_s"]["median"] > each["sealed_per_s"]["median"]
    assert list(measured["memory_mib"]) == ["1000", "1200"]
    assert measured["resume_s"] > 0


def test_bench_measures_the_sandbox_beside_the_engine_and_the_host(docker_image, tmp_path):
    result = realwork("bench", "sandbox", "--commands", 3, "--lives", 2, "--sandboxes", 4, "--json", "-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert all(
        0 < measured[name]["median_s"] <= measured[name]["p95_s"]
        for name in ("channel", "exec_raw", "life", "life_command")
    )
    assert set(measured["files"]) == {"1 KiB", "1 MiB", "64 MiB"}
    assert measured["commands_per_s"].keys() == {"channel", "exec"}
    assert measured["init"]["first_s"] > 5


def test_bench_measures_driver_store_and_scheduler(tmp_path):
    result = realwork(
        *("bench", "scale", "--rounds", 2, "--rollouts", 16, "--in-flight", 200, "--nodes", 4, "--json", "-"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert [each["graded"] for each in measured["played"]] == [16, 16, 32]
    assert all(is_spread(each["both_ms"]) for each in measured["played"])
    assert is_spread(measured["growth"])
    assert (measured["simulated"]["in_flight"], measured["simulated"]["rollouts"]) == (200, 400)
    assert 0 < measured["simulated"]["decision_ms"] <= measured["simulated"]["most_decision_ms"]
