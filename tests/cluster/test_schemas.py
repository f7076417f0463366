"""Each file of `cluster/` is what its reader expects, by Ray's own code, published schemas, engine and shellcheck."""

import copy
import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from docker.errors import APIError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from realwork.sandbox.engine import connect
from tests.cluster.files import CLUSTER, LAUNCHER_FILES, compose, kubernetes, launcher, pod_specs, text

KUBERNETES = "1.33"
# From KubeRay's reference of ray.io/v1, whose schema no package has.
CLUSTER_FIELDS = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"}
CLUSTER_FIELDS |= {"headGroupSpec", "workerGroupSpecs"}
HEAD_FIELDS = {"serviceType", "rayStartParams", "template"}
WORKER_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_cluster_launcher_takes_its_file(name):
    validate_config(prepare_config(launcher(name)))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_cluster_launcher_would_refuse_a_misspelt_section(name):
    config = launcher(name)
    config["setup_command"] = config.pop("setup_commands")
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config))


def test_rays_autoscaler_reads_the_ray_cluster_as_it_is_meant():
    types = _derive_autoscaling_config_from_ray_cr(kubernetes("RayCluster"))["available_node_types"]
    assert types["headgroup"]["resources"] == {"CPU": 0, "memory": 0}, (
        "rollouts would be put on a node without an engine"
    )
    engine = pod_specs()["workers"]["initContainers"][0]
    assert engine["resources"]["limits"]["memory"] == "16Gi"
    assert types["workers"]["resources"] == {"CPU": 4, "memory": 16 << 30}
    assert 0 < types["workers"]["min_workers"] < types["workers"]["max_workers"]


def test_the_ray_cluster_has_no_field_that_kuberay_does_not_know():
    found = kubernetes("RayCluster")
    assert found["apiVersion"] == "ray.io/v1"
    assert set(found["spec"]) <= CLUSTER_FIELDS
    assert set(found["spec"]["headGroupSpec"]) <= HEAD_FIELDS
    for group in found["spec"]["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
    start = [found["spec"]["headGroupSpec"], *found["spec"]["workerGroupSpecs"]]
    assert all(isinstance(value, str) for group in start for value in group["rayStartParams"].values())


@pytest.mark.parametrize("kind", ["Namespace", "PersistentVolumeClaim", "NetworkPolicy"])
def test_kubernetes_takes_its_own_kinds(kind):
    kubernetes_validate.validate(kubernetes(kind), KUBERNETES, strict=True)


@pytest.mark.parametrize("group", ["head", "workers"])
def test_kubernetes_takes_the_pods(group):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": group}, "spec": pod_specs()[group]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    misspelt = copy.deepcopy(pod)
    misspelt["spec"]["containers"][0]["volumeMount"] = misspelt["spec"]["containers"][0].pop("volumeMounts")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, KUBERNETES, strict=True)


def test_compose_takes_its_file():
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(compose(), schema)
    misspelt = copy.deepcopy(compose())
    misspelt["services"]["head"]["volums"] = misspelt["services"]["head"].pop("volumes")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, schema)


def _compose_command() -> list[str]:
    """The real thing, where there is one; Debian has it as a program of its own."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = ["docker", "compose"]
    if not shutil.which("docker") or subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker compose on this machine")
    return plugin


def test_compose_refuses_to_start_without_a_token():
    command = [*_compose_command(), "-f", str(CLUSTER / "compose.yaml"), "config"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    without = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "the token of the cluster" in without.stderr
    given = subprocess.run(
        command, env=environment | {"RAY_AUTH_TOKEN": "t"}, capture_output=True, text=True, check=False
    )
    assert given.returncode == 0, given.stderr


def test_an_engine_can_read_the_dockerfile(docker_image):
    """It reads the whole file before it looks for the stage to build, which does not exist."""
    client = connect()
    try:
        with pytest.raises(APIError, match="build target no-such-stage"):
            list(client.build(fileobj=BytesIO(text("Dockerfile").encode()), target="no-such-stage"))
    finally:
        client.close()


@pytest.mark.parametrize("script", sorted(CLUSTER.rglob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert checked.stdout == ""
    assert checked.returncode == 0
