"""cluster.yaml and gcp.yaml: Ray accepts them, and they keep their promises. Nothing here talks to a
cloud. The file for one's own machines is run in tests/cluster."""

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
AWS, GCP = "cluster.yaml", "experiments/cluster/gcp.yaml"
TEXTS = {file: (ROOT / file).read_text() for file in (AWS, GCP)}
CONFIGS: dict[str, dict[str, Any]] = {file: yaml.safe_load(text) for file, text in TEXTS.items()}
WORKER_TYPES = ["cpu", "gpu"]

OWN_FIREWALL = {"aws": "SecurityGroupIds", "gcp": "networkInterfaces"}
"""Where a node type names what of ours decides who reaches it."""

SPOT: dict[str, dict[str, Any]] = {
    AWS: {"InstanceMarketOptions": {"MarketType": "spot"}},
    GCP: {"scheduling": {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}},
}


@pytest.fixture(params=[AWS, GCP])
def file(request: pytest.FixtureRequest) -> str:
    """Each of the files, by its path."""
    path: str = request.param
    return path


@pytest.fixture
def config(file: str) -> dict[str, Any]:
    """The file as read, to be changed at will."""
    return copy.deepcopy(CONFIGS[file])


def check_as_ray_up_does(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in Ray's defaults and validate; returns what Ray would work with."""
    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def openings(config: dict[str, Any]) -> list[str]:
    """What in a config would let the world reach a port; empty if nothing does.

    On AWS a node type without a security group of its own gets one from Ray, with port 22 open to all
    (ray/autoscaler/_private/aws/config.py, `_create_default_ssh_inbound_rules`). On Google Cloud one
    without a network gets the first of the region (gcp/config.py, `_configure_subnet`), as a rule
    Google's default network, with port 22 open to all.
    """
    own = OWN_FIREWALL[config["provider"]["type"]]
    found = [
        f"{name} has no {own}"
        for name, node_type in config["available_node_types"].items()
        if not node_type["node_config"].get(own)
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
        assert own[key] == CONFIGS[AWS][key]
    assert own["setup_commands"][-1] == CONFIGS[AWS]["setup_commands"][-1]


def test_both_clouds_files_say_the_same_of_ray():
    alike = ["cluster_name", "max_workers", "idle_timeout_minutes", "auth", "file_mounts"]
    alike += ["rsync_exclude", "setup_commands", "head_start_ray_commands", "worker_start_ray_commands"]
    for key in alike:
        assert CONFIGS[AWS][key] == CONFIGS[GCP][key], key
    # The head has a library with which it starts the workers, and the data.
    library = [CONFIGS[file]["head_setup_commands"][0].split()[-1] for file in (AWS, GCP)]
    assert library == ["boto3", "google-api-python-client"]
    assert CONFIGS[AWS]["head_setup_commands"][1:] == CONFIGS[GCP]["head_setup_commands"][1:]


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


def test_the_head_runs_no_trials(config):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["max_workers"] == 0  # no second machine of its kind either


def test_workers_of_both_kinds_come_and_go(config):
    node_types = config["available_node_types"]
    assert sorted(node_types) == sorted([*WORKER_TYPES, config["head_node_type"]])
    assert [node_types[name]["min_workers"] for name in WORKER_TYPES] == [0, 0]
    assert sorted(node_types[name]["resources"].get("GPU", 0) for name in WORKER_TYPES) == [0, 1]
    assert all(node_types[name]["resources"]["CPU"] > 0 for name in WORKER_TYPES)
    assert config["max_workers"] == sum(node_types[name]["max_workers"] for name in WORKER_TYPES)
    assert config["provider"]["cache_stopped_nodes"] is False


def test_spot_is_one_comment_away(file):
    assert "spot" not in yaml.safe_dump(CONFIGS[file]).lower()
    keys = {*SPOT[file], *SPOT[GCP]["scheduling"], "automaticRestart"}
    with_spot = yaml.safe_load(re.sub(rf"# (({'|'.join(keys)}):)", r"\1", TEXTS[file]))
    check_as_ray_up_does(with_spot)
    for name, node_type in with_spot["available_node_types"].items():
        for key, wanted in SPOT[file].items():
            market = node_type["node_config"].get(key, {})
            assert (market.items() >= wanted.items()) == (name in WORKER_TYPES), name


def test_no_port_is_open_to_the_world(config):
    assert openings(config) == []


@pytest.mark.parametrize("mistake", ["no firewall", "world-wide rule", "dashboard for all"])
def test_an_open_port_would_be_noticed(config, mistake):
    if mistake == "no firewall":
        own = OWN_FIREWALL[config["provider"]["type"]]
        del config["available_node_types"]["cpu"]["node_config"][own]
    if mistake == "world-wide rule":
        rule = {"FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        config["provider"]["security_group"] = {"IpPermissions": [rule]}
    if mistake == "dashboard for all":
        config["head_start_ray_commands"] = ["ray start --head --dashboard-host=0.0.0.0"]
    assert len(openings(config)) == 1


def calls_of_the_script(file: str, program: str, tmp_path: Path) -> list[list[str]]:
    """How the script in a file's comments calls the cloud's program, which here only notes that."""
    stub = tmp_path / "bin" / program
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done >> ~/calls\necho >> ~/calls\necho sg-1\n'
    )
    stub.chmod(0o755)
    script = "\n".join(re.findall(r"^#\$ (.*)$", TEXTS[file], re.MULTILINE))
    subprocess.run(
        ["bash"],
        input=script.encode(),
        env={
            "HOME": str(tmp_path),
            "PATH": f"{stub.parent}:/usr/bin:/bin",
            "ME": "203.0.113.7",
            "BUCKET": "my-bucket",
        },
        check=True,
        capture_output=True,
    )
    calls = (tmp_path / "calls").read_bytes().decode().split("\0\n")
    return [call.split("\0") for call in calls if call]


def test_the_script_for_aws_makes_what_the_file_names(tmp_path):
    calls = calls_of_the_script(AWS, "aws", tmp_path)
    # Port 22 is opened to one address, and nothing else to any.
    rules = [call for call in calls if call[1] == "authorize-security-group-ingress"]
    (opening,) = (rule for rule in rules if "--cidr" in rule)
    assert opening[opening.index("--cidr") + 1] == "203.0.113.7/32"
    assert opening[opening.index("--port") + 1] == "22"
    made = {call[-1] for call in calls if call[1] == "create-instance-profile"}
    node_types = CONFIGS[AWS]["available_node_types"].values()
    assert made == {each["node_config"]["IamInstanceProfile"]["Name"] for each in node_types}


def test_the_script_for_google_makes_what_the_file_names(tmp_path):
    calls = [" ".join(call) for call in calls_of_the_script(GCP, "gcloud", tmp_path)]
    config = CONFIGS[GCP]
    provider = config["provider"]
    nodes = [node_type["node_config"] for node_type in config["available_node_types"].values()]
    # Port 22 is opened to one address, all ports to the subnet's own, and nothing else to any.
    (subnet,) = (call for call in calls if call.startswith("compute networks subnets create"))
    (own,) = re.findall(r"--range=(\S+)", subnet)
    rules = [call for call in calls if "firewall-rules create" in call]
    opened = [re.findall(r"--(?:allow|source-ranges)=(\S+)", rule) for rule in rules]
    assert opened == [["all", own], ["tcp:22", "203.0.113.7/32"]]
    # The nodes' subnet and accounts are those that it makes, and all is in one region and zone.
    assert provider["availability_zone"].startswith(f"{provider['region']}-")
    for node in nodes:
        (interface,), (disk,) = node["networkInterfaces"], node["disks"]
        name = subnet.split()[4]
        assert interface["subnetwork"] == f"regions/{provider['region']}/subnetworks/{name}"
        zone = f"zones/{provider['availability_zone']}/"
        assert disk["initializeParams"]["diskType"].startswith(zone)
    made = {call.split()[-1] for call in calls if call.startswith("iam service-accounts create")}
    domain = f"@{provider['project_id']}.iam.gserviceaccount.com"
    assert {name + domain for name in made} == {
        account["email"] for node in nodes for account in node["serviceAccounts"]
    }
    # Both may use the bucket; only the head may start machines.
    for name in made:
        granted = [call for call in calls if f"--member=serviceAccount:{name}{domain}" in call]
        assert sum("gs://my-bucket" in call for call in granted) == 2
        starts_machines = any("roles/compute." in call for call in granted)
        assert starts_machines == (name == "ssl-runner-head")


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_ray_starts_with_the_promised_environment(tmp_path, kind):
    # The file's own commands, in the shell that Ray wraps around them over ssh, on a "node" whose
    # `ray` only notes how it was called. Ray exports what the machine of `ray up` has, so 1.
    ray = tmp_path / "venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text('#!/bin/sh\necho "$@" > ~/arguments\nenv > ~/environment\n')
    ray.chmod(0o755)
    # (Those for Google Cloud are the same, as tested above.)
    prepared = check_as_ray_up_does(copy.deepcopy(CONFIGS[AWS]))
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
    mounts = CONFIGS[AWS]["file_mounts"]
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote.startswith("~/")
        assert local.startswith("~/") or (ROOT / local).exists(), f"{local} is not in the repository"


def test_the_nodes_install_a_ray_that_the_project_accepts():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    (pinned,) = re.findall(
        r"ray\[default,train,tune\]==([\d.]+)", "".join(CONFIGS[AWS]["setup_commands"])
    )
    assert wanted.specifier.contains(pinned)
