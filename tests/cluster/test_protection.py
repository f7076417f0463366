"""What the files of `cluster/` protect: no secret stands in them, no dashboard is open, no socket leaves its node."""

import re

import pytest
from packaging.specifiers import SpecifierSet

from tests.cluster.files import (
    CLUSTER,
    LAUNCHER_FILES,
    MANIFESTS,
    REPOSITORY,
    compose,
    kubernetes,
    launcher,
    pod_specs,
    ray_range,
    text,
    without_comments,
)

SECRET = re.compile(r"(key|token|password|secret)\w*[\"']?[ \t]*[:=][ \t]*[\"']?(?P<value>[^\s\"']+)", re.IGNORECASE)
NO_VALUES = ("$", "{", "~/", "token", "required", "false")
"""How a value begins that is none itself: a reference, a path, and the words that settings of that name take."""
LONG_RANDOM = re.compile(r"[0-9A-Za-z+/_-]{32,}")


def values_of_secrets(written: str) -> list[str]:
    return [found["value"] for found in SECRET.finditer(written) if not found["value"].startswith(NO_VALUES)]


def test_the_search_for_secrets_finds_them():
    assert values_of_secrets("RAY_AUTH_TOKEN: 0123abcd") == ["0123abcd"]
    assert values_of_secrets("- {name: LLM_API_KEY, value: x}\nLLM_API_KEY=sk-1") == ["sk-1"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_no_secret_stands_in_a_file(name):
    assert values_of_secrets(without_comments(name)) == []
    words = LONG_RANDOM.findall(without_comments(name))
    assert [word for word in words if "/" not in word and re.search(r"\d", word) and re.search(r"[A-Za-z]", word)] == []


def test_no_pod_has_a_secret_as_a_plain_value():
    containers = [each for spec in pod_specs().values() for each in spec["containers"] + spec.get("initContainers", [])]
    given = {variable["name"] for container in containers for variable in container.get("env", [])}
    assert given <= {"DOCKER_HOST", "REALWORK_TRAJECTORIES"}


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_on_machines_asks_for_the_token_and_keeps_its_dashboard_on_loopback(name):
    config = launcher(name)
    (head,) = [each for each in config["head_start_ray_commands"] if "ray start" in each]
    (worker,) = [each for each in config["worker_start_ray_commands"] if "ray start" in each]
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in each for each in config["setup_commands"])


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_nodes_get_what_setup_needs_and_no_more_of_the_checkout(name):
    mounts = launcher(name)["file_mounts"].values()
    from_here = {path for path in mounts if not path.startswith("~")}
    assert from_here == {"realwork", "cluster", "pyproject.toml", "README.md", "LICENSE"}
    assert [path for path in from_here if not (REPOSITORY / path).exists()] == []
    assert (CLUSTER / "setup.sh").exists()
    assert "~/realwork/cluster/setup.sh" in " ".join(launcher(name)["setup_commands"])


def test_agents_on_aws_cannot_ask_for_the_credentials_of_their_machine():
    for each in launcher("ray-cluster-aws.yaml")["available_node_types"].values():
        assert each["node_config"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_compose_publishes_the_dashboard_on_loopback_and_nothing_else():
    services = compose()["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:${DASHBOARD_PORT:-8265}:8265"]
    for name in ("head", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert services[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_each_node_of_compose_has_the_engine_of_its_own_and_reaches_no_other():
    services = compose()["services"]
    assert {name for name, service in services.items() if service.get("privileged")} == {"head-engine", "worker-engine"}
    for node in ("head", "worker"):
        sockets = [volume for volume in services[node]["volumes"] if "-socket:" in volume]
        assert sockets == [f"{node}-socket:/run/engine"]
        assert sockets[0] in services[f"{node}-engine"]["volumes"]
        assert services[f"{node}-engine"]["networks"] == ["engines"]
        assert services[node]["networks"] == ["nodes"]
    listening = [word for word in services["head-engine"]["command"] if word.startswith("--host")]
    assert listening == ["--host=unix:///run/engine/docker.sock"]


def test_on_kubernetes_ray_asks_for_the_token_and_other_pods_reach_nothing():
    assert kubernetes("RayCluster")["spec"]["authOptions"] == {"mode": "token"}
    of_cluster = {"matchLabels": {"ray.io/cluster": kubernetes("RayCluster")["metadata"]["name"]}}
    policy = kubernetes("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["podSelector"] == of_cluster
    assert policy["ingress"] == [{"from": [{"podSelector": of_cluster}]}]


def test_on_kubernetes_the_engine_alone_is_privileged_and_its_socket_is_in_its_pod():
    for spec in pod_specs().values():
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["allowPrivilegeEscalation"] is False
            assert "privileged" not in security
        for container in spec.get("initContainers", []):
            assert container["name"] == "engine"
            assert [word for word in container["args"] if word.startswith("--host")] == [
                "--host=unix:///run/engine/docker.sock"
            ]
    workers = pod_specs()["workers"]
    assert {"name": "engine-socket", "emptyDir": {"sizeLimit": "1Mi"}} in workers["volumes"]
    assert not any("hostPath" in volume for volume in workers["volumes"])
    assert workers["automountServiceAccountToken"] is False


def test_every_file_names_the_same_ray_and_pyproject_allows_it():
    versions = {found for name in MANIFESTS for found in re.findall(r"ray\[default\]==([\d.]+)", text(name))}
    versions |= set(re.findall(r"ARG RAY_VERSION=([\d.]+)", text("Dockerfile")))
    versions.add(kubernetes("RayCluster")["spec"]["rayVersion"])
    (version,) = versions
    assert version in SpecifierSet(ray_range())


def test_what_the_dockerfile_copies_exists_and_travels():
    copied = [words.split()[1:-1] for words in text("Dockerfile").splitlines() if words.startswith("COPY ")]
    let_in = {line[1:] for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    sources = {source for sources in copied for source in sources}
    assert sources == let_in
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []
    for name in ("head", "worker"):
        build = compose()["services"][name]["build"]
        assert (CLUSTER / build["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / build["dockerfile"]).exists()


@pytest.mark.parametrize("name", [*MANIFESTS, "README.md"])
def test_every_file_of_the_checkout_that_is_named_exists(name):
    named = re.findall(r"(?<![\w~/.])(?:cluster|configs|examples)/[\w./-]*\w", text(name))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []
