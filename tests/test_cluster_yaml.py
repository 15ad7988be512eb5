"""cluster.yaml: Ray accepts it, and it keeps its promises. Nothing here talks to AWS. The file for
one's own machines is run in tests/cluster."""

import copy
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.command_runner import (
    _with_environment_variables,
    _with_interactive,
)
from ray.autoscaler._private.util import prepare_config, validate_config, with_envs

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "cluster.yaml").read_text()
CONFIG: dict[str, Any] = yaml.safe_load(TEXT)
WORKER_TYPES = sorted(CONFIG["available_node_types"].keys() - {CONFIG["head_node_type"]})


@pytest.fixture
def config() -> dict[str, Any]:
    """The file as read, to be changed at will."""
    return copy.deepcopy(CONFIG)


def check_as_ray_up_does(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in Ray's defaults and validate; returns what Ray would work with."""
    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def openings(config: dict[str, Any]) -> list[str]:
    """What in a config would let the world reach a port; empty if nothing does.

    A node type without a security group of its own gets one from Ray, with port 22 open to all
    (ray/autoscaler/_private/aws/config.py, `_create_default_ssh_inbound_rules`).
    """
    found = [
        f"{name} has no SecurityGroupIds"
        for name, node_type in config["available_node_types"].items()
        if not node_type["node_config"].get("SecurityGroupIds")
    ]
    found += [anyone for anyone in ("0.0.0.0/0", "::/0") if anyone in yaml.safe_dump(config)]
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    found += [
        start for start in starts if " --head " in start and "--dashboard-host=127.0.0.1" not in start
    ]
    return found


def test_ray_accepts_the_file(config):
    prepared = check_as_ray_up_does(config)
    assert prepared["available_node_types"].keys() == config["available_node_types"].keys()


def test_ray_accepts_the_file_for_ones_own_machines():
    own = yaml.safe_load((ROOT / "experiments/cluster/own_machines.yaml").read_text())
    assert check_as_ray_up_does(own)["max_workers"] == len(own["provider"]["worker_ips"])
    # What both files say of Ray is the same.
    for key in ("file_mounts", "rsync_exclude"):
        assert own[key] == CONFIG[key]
    assert own["setup_commands"][-1] == CONFIG["setup_commands"][-1]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("max_worker",), 3, "Additional properties are not allowed"),
        (("available_node_types", "cpu", "max_nodes"), 3, "Additional properties"),
        (("available_node_types", "cpu", "resources"), {"CPU": "16"}, "is not of type 'integer'"),
        (("head_node_type",), "heads", "must be one of `available_node_types`"),
        (("available_node_types", "cpu", "min_workers"), 99, "smaller than the sum"),
    ],
)
def test_ray_refuses_a_mistake(config, path, value, message):
    *parents, key = path
    place = config
    for parent in parents:
        place = place[parent]
    place[key] = value
    with pytest.raises((jsonschema.ValidationError, ValueError), match=re.escape(message)):
        check_as_ray_up_does(config)


def test_the_head_runs_no_trials():
    head = CONFIG["available_node_types"][CONFIG["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["max_workers"] == 0  # no second machine of its kind either


def test_workers_of_both_kinds_come_and_go():
    node_types = CONFIG["available_node_types"]
    assert [node_types[name]["min_workers"] for name in WORKER_TYPES] == [0, 0]
    assert sorted(node_types[name]["resources"].get("GPU", 0) for name in WORKER_TYPES) == [0, 1]
    assert all(node_types[name]["resources"]["CPU"] > 0 for name in WORKER_TYPES)
    assert CONFIG["max_workers"] == sum(node_types[name]["max_workers"] for name in WORKER_TYPES)
    assert CONFIG["provider"]["cache_stopped_nodes"] is False


def test_spot_is_one_comment_away():
    with_spot = yaml.safe_load(TEXT.replace("# InstanceMarketOptions:", "InstanceMarketOptions:"))
    check_as_ray_up_does(with_spot)
    for name, node_type in with_spot["available_node_types"].items():
        market = node_type["node_config"].get("InstanceMarketOptions")
        assert market == ({"MarketType": "spot"} if name in WORKER_TYPES else None)


def test_no_port_is_open_to_the_world(config):
    assert openings(config) == []
    # The script in the comments opens port 22 to one address, and nothing else to any.
    assert re.findall(r"--cidr (\S+)", TEXT) == ['"$me/32"']


@pytest.mark.parametrize("mistake", ["no group", "world-wide rule", "dashboard for all"])
def test_an_open_port_would_be_noticed(config, mistake):
    if mistake == "no group":
        del config["available_node_types"]["cpu"]["node_config"]["SecurityGroupIds"]
    if mistake == "world-wide rule":
        rule = {"FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        config["provider"]["security_group"] = {"IpPermissions": [rule]}
    if mistake == "dashboard for all":
        config["head_start_ray_commands"] = ["ray start --head --dashboard-host=0.0.0.0"]
    assert len(openings(config)) == 1


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_ray_starts_with_the_promised_environment(tmp_path, kind):
    # The file's own commands, in the shell that Ray wraps around them over ssh, on a "node" whose
    # `ray` only notes how it was called. Ray exports what the machine of `ray up` has, so 1.
    ray = tmp_path / "venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text('#!/bin/sh\necho "$@" > ~/arguments\nenv > ~/environment\n')
    ray.chmod(0o755)
    prepared = check_as_ray_up_does(copy.deepcopy(CONFIG))
    setup = prepared[f"{kind}_setup_commands"][0]
    (start,) = (c for c in prepared[f"{kind}_start_ray_commands"] if "ray start" in c)
    for command in (setup, setup, start):  # set-up commands are run twice on workers
        (command,) = with_envs([command], {"RAY_HEAD_IP": "10.0.0.5"})
        command = _with_environment_variables(command, {"RAY_USAGE_STATS_ENABLED": 1})
        subprocess.run(
            " ".join(_with_interactive(command)),
            shell=True,
            check=True,
            env={"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,  # an interactive bash would reach for the terminal
        )
    lines = (tmp_path / "environment").read_text().splitlines()
    environment = dict(line.partition("=")[::2] for line in lines)
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["PATH"].startswith(f"{tmp_path}/venv/bin:")
    assert "OMP_NUM_THREADS" not in environment  # Ray sets it per trial, unless it is set
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[0] == "start"
    if kind == "head":
        assert {"--head", "--autoscaling-config=~/ray_bootstrap_config.yaml"} <= set(arguments)
    else:
        assert "--address=10.0.0.5:6379" in arguments


def test_the_nodes_get_the_package_and_the_password():
    mounts = CONFIG["file_mounts"]
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote.startswith("~/")
        assert local.startswith("~/") or (ROOT / local).exists(), f"{local} is not in the repository"


def test_the_nodes_install_a_ray_that_the_project_accepts():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    (pinned,) = re.findall(r"ray\[default,train,tune\]==([\d.]+)", "".join(CONFIG["setup_commands"]))
    assert wanted.specifier.contains(pinned)
