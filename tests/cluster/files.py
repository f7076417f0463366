"""The files of `cluster/` as the tests read them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"
LAUNCHER_FILES = ("ray-cluster.yaml", "ray-cluster-aws.yaml")
MANIFESTS = ("Dockerfile", "compose.yaml", "kuberay.yaml", *LAUNCHER_FILES)


def text(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def without_comments(name: str) -> str:
    return re.sub(r"(^|\s)#.*", "", text(name), flags=re.MULTILINE)


def launcher(name: str) -> dict[str, Any]:
    return yaml.safe_load(text(name))


def compose() -> dict[str, Any]:
    return yaml.safe_load(text("compose.yaml"))


def kubernetes(kind: str) -> dict[str, Any]:
    """The one document of `kind` in kuberay.yaml."""
    (found,) = [each for each in yaml.safe_load_all(text("kuberay.yaml")) if each["kind"] == kind]
    return found


def pod_specs() -> dict[str, dict[str, Any]]:
    """The pods of kuberay.yaml, by the names of their groups."""
    spec = kubernetes("RayCluster")["spec"]
    workers = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"]} | workers


def ray_range() -> str:
    """What pyproject.toml wants of Ray, such as `>=2.60,<3`."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = [each for each in project["dependencies"] if each.startswith("ray[default]")]
    return wanted.removeprefix("ray[default]")
