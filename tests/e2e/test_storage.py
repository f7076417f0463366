"""A run whose output is object storage, against a server that speaks S3."""

import json

from moto.server import ThreadedMotoServer
from pyarrow import fs

import realwork as package

from .command import environment, realwork, run_file

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
REPLIES = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}]


def test_a_run_goes_to_object_storage_and_is_complete_when_it_is_started_again(tmp_path, monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "script.json").write_text(json.dumps(REPLIES))
    file = run_file(
        tmp_path,
        environments=[environment("e")],
        llm_config={"model": "scripted:script.json"},
        rollout_config={"trajectory_output_path": "s3://bucket/runs"},
        episode_control_config={"max_episodes": 2},
    )
    try:
        missing = realwork("run", file, "--run-id", "r", "--sandbox", "local", cwd=tmp_path)
        files, root = fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
        files.create_dir(root)
        played = realwork("run", file, "--run-id", "r", "--sandbox", "local", cwd=tmp_path)
        found = package.read("s3://bucket/runs/r").to_table(columns=["trajectory_id", "reward"]).to_pylist()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-node"))
        stats = realwork("stats", "--json", "s3://bucket/runs/r", cwd=tmp_path)
        shown = realwork("show", "s3://bucket/runs", cwd=tmp_path)
        checked = realwork("check", file, "--sandbox", "local", cwd=tmp_path)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        files.delete_file("bucket/runs/r/trajectories/part-000001.parquet")  # as if it had not come there
        again = realwork("run", file, "--resume", "s3://bucket/runs/r", "--sandbox", "local", cwd=tmp_path)
        completed = package.read("s3://bucket/runs").count_rows()
        compacted = realwork("compact", "s3://bucket/runs", cwd=tmp_path)
        unknown_run = realwork("compact", "s3://bucket/elsewhere", cwd=tmp_path)
        unknown = realwork("run", file, "--resume", "s3://bucket/runs/unknown", cwd=tmp_path)
    finally:
        server.stop()
    assert (missing.returncode, "s3://bucket/runs/r" in missing.stderr) == (2, True), missing.stderr
    assert played.returncode == 0, played.stderr
    assert "Parquet: s3://bucket/runs/r/trajectories" in played.stdout
    assert (unknown.returncode, "it has no run.json" in unknown.stderr) == (2, True), unknown.stderr
    assert (unknown_run.returncode, "holds no run" in unknown_run.stderr) == (2, True), unknown_run.stderr
    assert sorted(row["trajectory_id"] for row in found) == ["r:e:0:0", "r:e:1:0"]
    assert {row["reward"] for row in found} == {1.0}
    assert (again.returncode, "s3://bucket/runs/r is complete: nothing" in again.stderr) == (0, True), again.stderr
    assert completed == 2
    assert checked.returncode == 0, checked.stderr
    assert json.loads(stats.stdout)["total"]["graded"] == 2, stats.stderr
    assert "r:e:1:0" in shown.stdout, shown.stderr
    assert compacted.stdout == "s3://bucket/runs/r: 1 parts before, 1 now\n", compacted.stderr
