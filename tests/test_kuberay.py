"""kuberay.yaml and the Dockerfile of its image: what they promise. There is no Kubernetes here and no
registry with the image's base, so neither is run."""

import copy
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from ssl_runner.datasets.fetch import DEBIAN_PACKAGE

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "cluster"
JOB: dict[str, Any] = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(RAY,) = set(re.findall(r"ray\[default,train,tune\]==([\d.]+)", (ROOT / "cluster.yaml").read_text()))
BUILT = re.findall(r"-t (\S+)", DOCKERFILE)


def pods(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod's specification, by its name."""
    cluster = job["spec"]["rayClusterSpec"]
    yield "submitter", job["spec"]["submitterPodTemplate"]["spec"]
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]


def node_types(job: dict[str, Any]) -> dict[str, Any]:
    """Which nodes may come, as Ray's autoscaler reads it from KubeRay."""
    cluster = {"metadata": {"name": "x", "namespace": "y"}, "spec": job["spec"]["rayClusterSpec"]}
    types: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    return types


def broken(job: dict[str, Any]) -> list[str]:
    """Which promises a job breaks; empty if none."""
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    found = []
    containers = [("autoscaler", cluster["autoscalerOptions"])]
    for name, pod in pods(job):
        rights = pod.get("securityContext", {})
        if not rights.get("runAsNonRoot") or f"USER {rights.get('runAsUser')}:" not in DOCKERFILE:
            found.append(f"{name} may run as root, or as a user without a home")
        found += [f"{name} uses {key}" for key in ("hostNetwork", "hostPID", "volumes") if key in pod]
        containers += [(name, container) for container in pod["containers"]]
        (container,) = pod["containers"]
        if container["image"] not in BUILT:
            found.append(f"{name}: nothing builds {container['image']}")
        if name != "submitter" and "envFrom" not in container:
            found.append(f"{name} has no keys for the results")
    for name, container in containers:
        rights = container.get("securityContext", {})
        if rights != {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}:
            found.append(f"{name} may gain rights")
        if container["resources"]["requests"] != container["resources"]["limits"]:
            found.append(f"{name} may take more than it asked for")
    if node_types(job)["headgroup"]["resources"]["CPU"]:
        found.append("the head runs trials")
    if head.get("serviceType") != "ClusterIP" or head.get("enableIngress") or "headService" in head:
        found.append("the head is reachable from outside")
    if cluster.get("authOptions") != {"mode": "token"}:
        found.append("whoever reaches Ray may use it")
    if cluster.get("rayVersion") != RAY:
        found.append("KubeRay is told of another Ray")
    return found


def test_the_job_keeps_its_promises():
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert broken(JOB) == []


Change = Callable[[dict[str, Any], dict[str, Any]], object]

# What is changed in the cluster, or in the pod of the group `cpu`, and what is then broken.
MISTAKES: list[tuple[Change, str]] = [
    (lambda _, pod: pod["securityContext"].pop("runAsNonRoot"), "cpu may run as root"),
    (lambda _, pod: pod["securityContext"].update(runAsUser=0), "cpu may run as root"),
    (lambda _, pod: pod.update(hostNetwork=True), "cpu uses hostNetwork"),
    (lambda _, pod: pod["containers"][0].pop("securityContext"), "cpu may gain rights"),
    (lambda _, pod: pod["containers"][0]["resources"]["limits"].update(cpu="9"), "cpu may take more"),
    (lambda _, pod: pod["containers"][0].update(image="ray:2.60.0"), "cpu: nothing builds ray:2.60.0"),
    (lambda _, pod: pod["containers"][0].pop("envFrom"), "cpu has no keys"),
    (lambda cluster, _: cluster["headGroupSpec"].update(rayStartParams={}), "the head runs trials"),
    (
        lambda cluster, _: cluster["headGroupSpec"].update(serviceType="NodePort"),
        "reachable from outside",
    ),
    (lambda cluster, _: cluster.pop("authOptions"), "whoever reaches Ray may use it"),
    (lambda cluster, _: cluster.update(rayVersion="2.52.0"), "told of another Ray"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_a_broken_promise_would_be_noticed(change, message):
    job = json.loads(json.dumps(JOB))  # what the file names twice becomes two: a change is one change
    cluster = job["spec"]["rayClusterSpec"]
    change(cluster, cluster["workerGroupSpecs"][0]["template"]["spec"])
    (found,) = broken(job)
    assert message in found


def test_workers_of_both_kinds_come_and_go():
    types = node_types(JOB)
    workers = {name: kind for name, kind in types.items() if name != "headgroup"}
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in workers.items()} == {
        "cpu": (0, 4),
        "gpu": (0, 2),
    }
    assert [workers[name]["resources"].get("GPU", 0) for name in ("cpu", "gpu")] == [0, 1]
    assert all(kind["resources"]["CPU"] > 0 for kind in workers.values())


def test_ray_would_notice_a_mistake():
    job = copy.deepcopy(JOB)
    for _, pod in pods(job):
        pod["containers"][0].pop("resources")
    with pytest.raises(ValueError, match="CPU"):
        node_types(job)


def test_the_sweep_is_started_again_and_cleaned_up_after():
    spec = JOB["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["backoffLimit"] > 1  # the first may find the lock of the dead driver
    assert spec["entrypoint"].split()[:3] == ["python", "-m", "ssl_runner.tune"]
    assert {"--address", "--results"} <= set(spec["entrypoint"].split())


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, each as its name and its arguments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines())]


def faults(text: str) -> list[str]:
    """What in a Dockerfile is not pinned, not there, no shell or run by root; empty if nothing is."""
    found = []
    steps = instructions(text)
    (base,) = (rest for name, rest in steps if name == "FROM")
    if not re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base):
        found.append("the base is not pinned")
    elif re.split("[:-]", base)[1] not in SpecifierSet(PROJECT["requires-python"]):
        found.append("the base is of a Python that the project does not take")
    for name, rest in steps:
        if name == "COPY":
            *sources, _ = rest.split()
            found += [f"{each} is not there" for each in sources if not list(ROOT.glob(each))]
        if name == "RUN":
            if subprocess.run(["sh", "-n", "-c", rest], capture_output=True).returncode:
                found.append(f"no shell: {rest}")
            if DEBIAN_PACKAGE in rest and f"{DEBIAN_PACKAGE}=" not in rest:
                found.append("Debian's package is not pinned")
    users = [rest for name, rest in steps if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        found.append("it runs as root")
    if f"'ray[default,train,tune]=={RAY}'" not in text:
        found.append("another Ray than on other clusters")
    return found


def test_the_image_is_pinned_whole_and_without_root():
    assert faults(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"@sha256:\w+", "", "the base is not pinned"),
        (r"python:3\.12\.\d+", "python:3.10.1", "a Python that the project does not take"),
        ("COPY ssl_runner", "COPY sslrunner", "sslrunner is not there"),
        (r"lists/\* ", "lists/* && ( ", "no shell"),
        (r"mnist=\S+", "mnist", "Debian's package is not pinned"),
        ("USER 1000:1000", "USER ray", "it runs as root"),
        ("tune]==", "tune]>=", "another Ray"),
    ],
)
def test_a_fault_of_the_image_would_be_noticed(old, new, message):
    changed, count = re.subn(old, new, DOCKERFILE)
    assert count == 1
    (found,) = faults(changed)
    assert message in found


def test_the_image_is_the_project():
    # The package is made of what is copied, and has the project's version in its name.
    steps = instructions(DOCKERFILE)
    copied = [source for name, rest in steps if name == "COPY" for source in rest.split()[:-1]]
    assert {"pyproject.toml", PROJECT["readme"], "ssl_runner"} <= set(copied)
    assert [re.split(r":|-(?=cuda)", image)[1:] for image in BUILT] == [
        [PROJECT["version"]],
        [PROJECT["version"], "cuda"],
    ]
    # What is installed first, for its size, is what the project would install.
    needed = map(Requirement, PROJECT["dependencies"])
    wanted = [each for each in needed if each.name in ("torch", "torchvision")]
    assert len(wanted) == 2
    assert all(f"'{requirement}'" in DOCKERFILE for requirement in wanted)


def test_the_page_builds_it_as_the_file_says():
    lines = [re.sub(r"^# +", "", line) for line in DOCKERFILE.splitlines()]
    page = (FOLDER / "README.md").read_text().splitlines()
    builds = [line for line in page if "docker build" in line]
    assert builds
    assert set(builds) <= set(lines)
