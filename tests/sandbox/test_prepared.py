"""Images that are prepared once: by one builder, whole or not at all, without secrets, reused until pruned."""

import asyncio
import io
import json
import subprocess
import sys
import tarfile
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from docker.errors import ImageNotFound

from realwork.backends import open_backends
from realwork.config import RunConfig
from realwork.environment import PackedFolder, prepare
from realwork.errors import PrepareError
from realwork.model.scripted import ScriptedCall, ScriptedReply
from realwork.plugins.hooks import NoHooks
from realwork.record import RolloutSettings
from realwork.rollout import run_rollout
from realwork.sandbox import kept, prepared, snapshots
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import connect, open_engine
from realwork.sandbox.files import pack_folder
from realwork.sandbox.garbage import collect_garbage
from realwork.sandbox.local import open_local
from realwork.sandbox.prepared import BUILDER, DIGITS, Recipe, ensure_prepared
from realwork.types import RolloutSpec

from .helpers import IMAGE, WORK, make_spec, run

SPEC = RolloutSpec(run_id="r", environment_id="e", sample_index=0)

BUILDERS = """
import asyncio, sys
from realwork.sandbox.base import SandboxSpec
from realwork.sandbox.engine import open_engine
from realwork.sandbox.prepared import Recipe, ensure_prepared

recipe, spec = Recipe.model_validate_json(sys.argv[1]), SandboxSpec.model_validate_json(sys.argv[2])

async def prepare(sandbox):
    print("building", flush=True)
    await sandbox.execute(sys.argv[3], timeout_s=100, working_directory="/workspace")

async def main():
    async with open_engine() as engine:
        asked = (ensure_prepared(engine, recipe, spec, prepare, environment_id="e") for _ in range(8))
        print(set(await asyncio.gather(*asked)))

asyncio.run(main())
"""


@pytest.fixture
def client(docker_image):
    client = connect()
    yield client
    client.close()


@pytest.fixture
def mark(client):
    """An environment's id that no other test has; its images are removed afterwards."""
    mark = f"test-{uuid.uuid4().hex[:12]}"
    yield mark
    for image in own_images(client, mark):
        client.remove_image(image["RepoTags"][0], force=True)


def own_images(client, mark):
    images = client.images(filters={"label": prepared.PREPARED})
    return [image for image in images if image["Labels"][prepared.ENVIRONMENT] == mark]


@pytest.fixture
def recipe(client):
    """A recipe that no other test has; its image is removed afterwards."""
    recipe = make_recipe(base_id=client.inspect_image(IMAGE)["Id"], init_commands=(f": {uuid.uuid4().hex}",))
    yield recipe
    with suppress(Exception):
        client.remove_image(recipe.image, force=True)


def make_recipe(**fields):
    return Recipe(
        **{
            "base_id": "sha256:1",
            "folders": (),
            "init_commands": ("make",),
            "init_network": "none",
            "environment_variables": {},
            "working_directory": WORK,
        }
        | fields
    )


def builder_of(recipe):
    return BUILDER + recipe.digest[:DIGITS]


def names(client, recipe):
    """Of the containers that build the recipe, in any state."""
    return client.containers(all=True, filters={"name": builder_of(recipe)})


def start_builders(recipe, command="true"):
    spec = make_spec(deadline_s=120.0)
    argv = [sys.executable, "-c", BUILDERS, recipe.model_dump_json(), spec.model_dump_json(), command]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def settings(mark, **environment):
    """Of a run with one environment of that id; its init commands are no other test's."""
    if "init_commands" in environment:
        environment["init_commands"] = [f": {mark}", *environment["init_commands"]]
    config = RunConfig.model_validate(
        {
            "environments": [
                {"id": mark, "docker_image": IMAGE, "prompt": "p", "unit_tests": ["t"], "init_network": "none"}
                | environment
            ],
            "rollout_config": {},
            "template_prompt": "s",
            "sandbox_config": {"memory_mib": 256},
        }
    )
    return RolloutSettings(config=config)


def in_sandbox(settings, scenario):
    """What `scenario` returns for a sandbox in which the only environment of `settings` stands ready."""

    async def main():
        environment = settings.config.environments[0]
        spec = SPEC.model_copy(update={"environment_id": environment.id})
        async with open_backends(settings) as backends, backends.open_sandbox(spec, environment) as sandbox:
            return await scenario(sandbox)

    return asyncio.run(main())


def say(command):
    async def scenario(sandbox):
        result = await run(sandbox, command)
        return (result.stdout + result.stderr).decode().strip()

    return scenario


@pytest.mark.parametrize(
    "change",
    [
        {"base_id": "sha256:2"},
        {"folders": ("abc",)},
        {"init_commands": ("make", "make")},
        {"init_commands": ("make ",)},
        {"init_network": "bridge"},
        {"environment_variables": {"A": "1"}},
        {"working_directory": "/work"},
        {"user": "nobody"},
    ],
    ids=str,
)
def test_every_ingredient_and_nothing_else_changes_the_digest(change):
    assert make_recipe(**change).digest != make_recipe().digest
    assert make_recipe(**change).digest == make_recipe(**change).digest
    ingredients = ("base_id", "folders", "init_commands", "init_network", "environment_variables", "working_directory")
    assert set(Recipe.model_fields) == {*ingredients, "user"}


def test_the_order_of_variables_is_nothing_and_that_of_commands_and_folders_is_something():
    one, two = {"A": "1", "B": "2"}, {"B": "2", "A": "1"}
    assert make_recipe(environment_variables=one).digest == make_recipe(environment_variables=two).digest
    assert make_recipe(init_commands=("a", "b")).digest != make_recipe(init_commands=("b", "a")).digest
    assert make_recipe(folders=("a", "b")).digest != make_recipe(folders=("b", "a")).digest


def test_32_that_ask_from_4_processes_at_the_same_time_build_once(recipe, client):
    processes = [start_builders(recipe, "sleep 1") for _ in range(4)]
    said = [process.communicate(timeout=120)[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(lines.count("building") for lines in said) == 1
    assert {lines[-2] for lines in said} == {str({recipe.image})}
    assert names(client, recipe) == []


def test_a_builder_that_is_killed_is_replaced_and_leaves_no_half_image(recipe, client):
    async def prepare(sandbox):
        assert (await run(sandbox, "echo whole >state; sync")).exit_code == 0

    async def build():
        async with open_engine() as engine:
            return await ensure_prepared(engine, recipe, make_spec(), prepare, environment_id="e")

    with start_builders(recipe, "echo half >state; sleep 60") as killed:
        assert killed.stdout.readline() == "building\n"
        time.sleep(0.5)
        killed.kill()
    assert len(names(client, recipe)) == 1
    assert not client.images(recipe.image)
    assert asyncio.run(build()) == recipe.image
    assert names(client, recipe) == []

    async def look():
        async with open_container(make_spec(image=recipe.image)) as sandbox:
            return (await run(sandbox, "cat state")).stdout

    assert asyncio.run(look()) == b"whole\n"


def test_a_build_that_fails_is_built_once_and_tells_all_who_wait(recipe, client):
    builds = []

    async def prepare(sandbox):
        builds.append(1)
        await asyncio.sleep(0.5)
        raise PrepareError("e: the init command failed: no such package")

    async def main():
        async with open_engine() as one, open_engine() as two:
            asked = [
                ensure_prepared(engine, recipe, make_spec(), prepare, environment_id="e")
                for engine in (one, two)
                for _ in range(4)
            ]
            return await asyncio.gather(*asked, return_exceptions=True)

    errors = asyncio.run(main())
    assert {(type(error), str(error)) for error in errors} == {
        (PrepareError, "e: the init command failed: no such package")
    }
    assert len(builds) == 1
    assert names(client, recipe) == []
    assert not client.images(recipe.image)


def test_a_cancelled_build_leaves_no_container_and_no_image(recipe, client):
    async def main():
        started = asyncio.Event()

        async def prepare(sandbox):
            started.set()
            await run(sandbox, "sleep 60", timeout_s=60)

        async with open_engine() as engine:
            task = asyncio.create_task(ensure_prepared(engine, recipe, make_spec(), prepare, environment_id="e"))
            await started.wait()
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 20
    assert names(client, recipe) == []
    assert not client.images(recipe.image)


def test_init_commands_and_folders_are_there_and_are_not_done_again(mark, tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "tool").write_text("#!/bin/sh\necho tool\n")
    (tmp_path / "kit" / "tool").chmod(0o755)
    packed = PackedFolder(name="kit", content=pack_folder(tmp_path / "kit", "kit"))
    given = settings(mark, init_commands=["kit/tool >made; date +%s%N >>made; mkdir -p /opt/x", "sleep 999 &"])
    given = given.model_copy(update={"folders": {mark: (packed,)}})
    first = in_sandbox(given, say("cat made; ls -d /opt/x; kit/tool; pgrep sleep | wc -l"))
    assert first.split("\n")[0] == "tool"
    assert first.split("\n")[2:] == [
        "/opt/x",
        "tool",
        "1",
    ]  # what the init left running is gone; 1 is the sandbox's own
    assert in_sandbox(given, say("cat made; ls -d /opt/x; kit/tool; pgrep sleep | wc -l")) == first
    (tmp_path / "kit" / "tool").write_text("#!/bin/sh\necho other\n")
    changed = PackedFolder(name="kit", content=pack_folder(tmp_path / "kit", "kit"))
    assert in_sandbox(given.model_copy(update={"folders": {mark: (changed,)}}), say("head -1 made")) == "other"


def test_the_row_can_name_the_image_that_was_used(mark, client):
    async def digest(sandbox):
        return sandbox.image_digest

    found = in_sandbox(settings(mark, init_commands=["true"]), digest)
    assert found != client.inspect_image(IMAGE)["Id"]
    assert prepared.PREPARED in client.inspect_image(found)["Config"]["Labels"]
    assert in_sandbox(settings(mark), digest) == client.inspect_image(IMAGE)["Id"]


def test_the_network_of_init_is_not_the_agents(mark):
    command = "ls /sys/class/net | grep -v lo"
    given = settings(mark, init_commands=[f"{command} >nets"], init_network="bridge")
    assert in_sandbox(given, say(f"cat nets; echo now; {command}")).split() == ["eth0", "now"]


def test_variables_reach_init_commands_and_the_agent_but_not_the_image(mark, client):
    canary = f"sk-canary-{uuid.uuid4().hex}"
    given = settings(
        mark,
        init_commands=['test -n "$TOKEN"; printf %s "$TOKEN" | wc -c >seen'],
        environment_variables={"TOKEN": canary},
    )

    async def scenario(sandbox):
        return sandbox.image_digest, await say("cat seen; echo $TOKEN")(sandbox)

    image, said = in_sandbox(given, scenario)
    assert said.split() == [str(len(canary)), canary]
    shown = subprocess.run(
        ["docker", "history", "--no-trunc", image], capture_output=True, text=True, check=True
    ).stdout
    assert canary not in shown
    everything = json.dumps([client.inspect_image(image), client.history(image), client.images(all=True)])
    assert canary not in everything
    assert "TOKEN" not in everything


def test_an_image_keeps_what_its_base_starts_and_is_not_taken_for_a_container_of_ours(mark, client):
    async def digest(sandbox):
        return sandbox.image_digest

    image = in_sandbox(settings(mark, init_commands=["true"]), digest)
    base, made = client.inspect_image(IMAGE)["Config"], client.inspect_image(image)["Config"]
    assert (made["Cmd"], made["Entrypoint"] or None, made["Env"]) == (base["Cmd"], base["Entrypoint"], base["Env"])
    users = client.create_container(image, ["sleep", "60"], name=f"{mark}-of-a-user")["Id"]

    async def garbage():
        async with open_engine() as engine:
            return await collect_garbage(engine)

    try:
        report = asyncio.run(garbage())
        assert f"{mark}-of-a-user" not in report.removed + report.kept
        assert client.inspect_container(users)
    finally:
        client.remove_container(users, force=True)


def test_an_image_with_a_volume_is_prepared_in_every_sandbox(mark, client):
    made = client.create_container(IMAGE, ["true"])["Id"]
    name = f"realwork/{mark}:latest"
    client.commit(made, *name.split(":"), conf={"Volumes": {WORK: {}}})
    client.remove_container(made)
    try:
        given = settings(
            mark, docker_image=name, init_commands=["date +%s%N >made; ls /sys/class/net >nets"], init_network="bridge"
        )
        first, second = (in_sandbox(given, say("cat made; cat nets; ls /sys/class/net")) for _ in range(2))
        assert first.split()[0] != second.split()[0]
        assert first.split()[1:] == ["eth0", "lo", "lo"]
        assert own_images(client, mark) == []
    finally:
        client.remove_image(name, force=True)


def test_an_image_that_vanishes_is_made_again(mark, client):
    async def scenario():
        given = settings(mark, init_commands=["echo here >made"])
        environment = given.config.environments[0]
        spec = SPEC.model_copy(update={"environment_id": mark})
        async with open_backends(given) as backends:
            assert await backends.prepare(spec, environment)
            for image in own_images(client, mark):
                client.remove_image(image["Id"], force=True)
            async with backends.open_sandbox(spec, environment) as sandbox:
                return await say("cat made")(sandbox)

    assert asyncio.run(scenario()) == "here"


def test_an_environment_that_a_plugin_changed_is_prepared_as_it_is_changed(mark, client):
    given = settings(mark, init_commands=["echo plain >made"], unit_tests=["grep changed made"])

    class Changing(NoHooks):
        async def modify(self, environment, refuse):
            return environment.model_copy(update={"init_commands": [*environment.init_commands, "echo changed >made"]})

    async def main():
        spec = SPEC.model_copy(update={"environment_id": mark})
        async with open_backends(given.model_copy(update={"script": ()})) as backends:
            return [await run_rollout(spec, given, backends, hooks) for hooks in (Changing(), NoHooks())]

    changed, plain = asyncio.run(main())
    assert (changed.success, plain.success) == (True, False), (changed.error_message, plain.error_message)
    assert changed.image_digest != plain.image_digest
    assert changed.timing.image_s > 0


def test_variables_that_a_plugin_sets_for_one_rollout_need_no_image_of_its_own(mark):
    given = settings(mark, init_commands=['echo "${KEPT}${SEED}" >made'], environment_variables={"KEPT": "kept"})

    class Seeding(NoHooks):
        def __init__(self, seed):
            self.seed = seed

        async def modify(self, environment, refuse):
            variables = environment.environment_variables | {"SEED": self.seed}
            tests = [f"grep -x seen-{self.seed} seen", f"test $SEED = {self.seed}", "grep -x kept made"]
            changed = environment.model_dump() | {"environment_variables": variables, "unit_tests": tests}
            return type(environment).model_validate(changed)

    async def main():
        spec = SPEC.model_copy(update={"environment_id": mark})
        call = ScriptedCall(name="execute_command", arguments={"command": "echo seen-$SEED >seen"})
        script = (ScriptedReply(tool_calls=(call,)),)
        async with open_backends(given.model_copy(update={"script": script})) as backends:
            return [await run_rollout(spec, given, backends, Seeding(seed)) for seed in ("11", "22")]

    first, second = asyncio.run(main())
    assert (first.reward, second.reward) == (1.0, 1.0), (first.error_message, second.error_message)
    assert first.image_digest == second.image_digest


def test_a_folder_that_cannot_be_copied_fails_the_environment():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../out"))
    environment = settings("e").config.environments[0]

    async def main():
        async with open_local(make_spec()) as sandbox:
            await prepare(sandbox, environment, [PackedFolder(name="kit", content=buffer.getvalue())], 1.0)

    with pytest.raises(PrepareError, match=r"e: the folder 'kit' cannot be copied in: .*leads out"):
        asyncio.run(main())


def test_prepared_images_are_listed_and_removed_unless_a_container_uses_them(mark, client):
    async def listed(engine):
        return [each for each in await kept.prepared_images(engine) if each.environment == mark]

    async def scenario(sandbox):
        async with open_engine() as engine:
            (image,) = await listed(engine)
            return image, await kept.remove(engine, image), await listed(engine)

    given = settings(mark, init_commands=["head -c 3000000 /dev/zero >big"])
    image, removed, still = in_sandbox(given, scenario)
    assert (image.base, image.containers, image.is_stale, removed) == (IMAGE, 1, False, False)
    assert 3_000_000 <= image.added_bytes < 4_000_000
    assert still == [image]

    async def afterwards():
        async with open_engine() as engine:
            (image,) = await listed(engine)
            assert kept.prunable([image], datetime.now(UTC) - timedelta(days=1)) == []
            assert kept.prunable([image], datetime.now(UTC)) == [image]
            return await kept.remove(engine, image), await listed(engine)

    assert asyncio.run(afterwards()) == (True, [])


def test_a_prepared_image_keeps_its_name_as_long_as_there_is_a_snapshot_of_its_container(mark, client):
    async def listed(engine):
        return [each for each in await kept.prepared_images(engine) if each.environment == mark]

    snapshot = in_sandbox(settings(mark, init_commands=["true"]), lambda sandbox: sandbox.snapshot(keep=True))

    async def afterwards():
        async with open_engine() as engine:
            (image,) = await listed(engine)
            prunable, removed = kept.prunable([image], datetime.now(UTC)), await kept.remove(engine, image)
            names = client.inspect_image(image.name)["RepoTags"]
            await snapshots.remove(engine, snapshot.id)
            (later,) = await listed(engine)
            return (image.descendants, prunable, removed, names), later.descendants, await kept.remove(engine, later)

    try:
        before, descendants, removed = asyncio.run(afterwards())
    finally:
        with suppress(ImageNotFound):
            client.remove_image(snapshot.id, noprune=True)
    assert (before[:3], len(before[3])) == ((1, [], False), 1)
    assert (descendants, removed) == (0, True)
    assert own_images(client, mark) == []


def test_an_image_that_somebody_made_of_a_prepared_one_is_not_listed(mark, client):
    async def derive(sandbox):
        return sandbox.image_digest

    image = in_sandbox(settings(mark, init_commands=["true"]), derive)
    made = client.create_container(image, ["true"])["Id"]
    client.commit(made, f"realwork/{mark}", "own")
    client.remove_container(made)

    async def listed():
        async with open_engine() as engine:
            return [each.name for each in await kept.prepared_images(engine)]

    found = asyncio.run(listed())
    assert f"realwork/{mark}:own" not in found
    assert client.inspect_image(image)["RepoTags"][0] in found


def test_an_image_whose_base_has_another_content_now_is_stale(mark, client):
    name = f"realwork/{mark}:base"
    for content in ("one", "two"):
        made = client.create_container(IMAGE, ["true"])["Id"]
        client.commit(made, *name.split(":"), message=content, conf={"Labels": {"content": content}})
        client.remove_container(made)
        if content == "one":
            in_sandbox(settings(mark, docker_image=name, init_commands=["true"]), say("true"))

    async def listed():
        async with open_engine() as engine:
            return [each.is_stale for each in await kept.prepared_images(engine) if each.environment == mark]

    try:
        assert asyncio.run(listed()) == [True]
        in_sandbox(settings(mark, docker_image=name, init_commands=["true"]), say("true"))
        assert sorted(asyncio.run(listed())) == [False, True]
    finally:
        client.remove_image(name, force=True)
