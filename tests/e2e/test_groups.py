"""Groups of an environment's episodes, from the run file to the rows."""

import zlib

from tests.endpoint import DONE, Endpoint, reply, run

from .command import environment, plain, realwork, rows, run_file


def sample_of(request, environment_id="e", most=20):
    """Which sample asks: each has a seed of its own."""
    seeds = {zlib.crc32(f"{environment_id}:{sample}".encode()) & 0x7FFFFFFF: sample for sample in range(most)}
    return seeds[request["seed"]]


def test_a_group_is_whole_once_all_its_samples_are_graded_also_by_a_later_start(tmp_path):
    unwell = {1}

    def respond(request):
        if sample_of(request) in unwell:
            return reply("No.", finish_reason="content_filter")
        return DONE if request["messages"][-1]["role"] == "tool" else run("touch done")

    with Endpoint(respond) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            episode_control_config={"max_episodes": 8, "group_size": 2},
            rollout_config={"store_shards": 3},
        )
        play = ("run", file, "--run-id", "r", "--sandbox", "local", "--no-ray")
        first = realwork(*play, cwd=tmp_path)
        assert first.returncode == 1, first.stderr
        before = rows(tmp_path / "out" / "r")
        unwell.clear()
        second = realwork(*play, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    found = rows(tmp_path / "out" / "r")
    assert {(row["sample_index"], row["group_id"], row["group_size"]) for row in found} == {
        (sample, f"r:e:{sample // 2}", 2) for sample in range(8)
    }
    assert whole(before) == ["r:e:1", "r:e:2", "r:e:3"]
    assert whole(found) == ["r:e:0", "r:e:1", "r:e:2", "r:e:3"]
    (completed,) = [row["trajectory_id"] for row in found if row["group_id"] == "r:e:0" and row["group_complete"]]
    assert completed == "r:e:1:1"
    assert len(list((tmp_path / "out" / "r").glob("ledger-*-of-3.sqlite"))) == 3


def whole(found):
    """The groups of which a row says that they are complete, once for each such row."""
    return sorted(row["group_id"] for row in found if row["group_complete"])


def test_pairs_for_dpo_are_of_one_group(tmp_path):
    def respond(request):
        is_good = sample_of(request) in (0, 3)
        return DONE if request["messages"][-1]["role"] == "tool" else run("touch done" if is_good else "true")

    with Endpoint(respond) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, episode_control_config={"max_episodes": 6, "group_size": 2})
        ended = realwork("run", file, "--run-id", "r", "--sandbox", "local", "--no-ray", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    exported = realwork("export", tmp_path / "out" / "r", "--to", "trl-dpo", "--output", "o.jsonl", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    shown = plain(realwork("stats", tmp_path / "out" / "r", cwd=tmp_path).stdout)
    assert "Groups in which all rewards are alike: 1" in shown


def test_episodes_that_do_not_make_whole_groups_are_a_mistake(tmp_path):
    control = {"max_episodes": 8, "group_size": 3}
    file = run_file(tmp_path, environments=[environment("e")], episode_control_config=control)
    refused = realwork("run", file, cwd=tmp_path, OPENAI_API_KEY="sk-x")
    assert refused.returncode == 2
    said = plain(refused.stderr)
    assert "episode_control_config.group_size" in said
    assert "max_episodes" in said
    assert not (tmp_path / "out").exists()
