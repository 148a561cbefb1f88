"""The files of Ray's launcher: by Ray's own schema, raw and prepared; each key and flag known; what the project wants.

Ray's schema lets anything pass as configuration of a provider or a node, so that these are modelled here. The models
were written from the references of EC2's RunInstances and Compute Engine's instances.insert, whose schemas come with no
package that fits the environment: they find what differs from those, and not what those say otherwise than they were
read.
"""

import copy
import importlib.util
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import ray.autoscaler
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
NAMES = ("aws", "gcp", "onprem")
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
FLAGS = {flag for parameter in start.params for flag in parameter.opts}


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CamelModel(Model):
    """Of Google's, whose fields are written likeThis."""

    model_config = ConfigDict(alias_generator=to_camel)


class AwsProvider(Model):
    type: Literal["aws"]
    region: str
    availability_zone: str
    cache_stopped_nodes: bool


class Profile(Model):
    Name: str


class Ebs(Model):
    VolumeSize: int
    VolumeType: Literal["gp3"]


class BlockDevice(Model):
    DeviceName: str
    Ebs: Ebs


class Market(Model):
    MarketType: Literal["spot"]


class AwsNode(Model):
    InstanceType: str
    ImageId: str
    SecurityGroupIds: list[str]
    IamInstanceProfile: Profile
    InstanceMarketOptions: Market | None = None
    BlockDeviceMappings: list[BlockDevice]


class GcpProvider(Model):
    type: Literal["gcp"]
    region: str
    availability_zone: str
    project_id: str


class InitializeParams(CamelModel):
    disk_size_gb: int
    disk_type: str
    source_image: str


class Disk(CamelModel):
    boot: Literal[True]
    auto_delete: Literal[True]
    type: Literal["PERSISTENT"]
    initialize_params: InitializeParams


class Accelerator(CamelModel):
    accelerator_type: str
    accelerator_count: int


class Scheduling(CamelModel):
    provisioning_model: Literal["SPOT"]
    instance_termination_action: Literal["DELETE"]
    on_host_maintenance: Literal["TERMINATE"]
    automatic_restart: Literal[False]


class Item(CamelModel):
    key: str
    value: str


class Metadata(CamelModel):
    items: list[Item]


class AccessConfig(CamelModel):
    name: Literal["External NAT"]
    type: Literal["ONE_TO_ONE_NAT"]


class Network(CamelModel):
    subnetwork: str
    access_configs: list[AccessConfig]


class ServiceAccount(CamelModel):
    email: str
    scopes: list[str]


class GcpNode(CamelModel):
    machine_type: str
    guest_accelerators: list[Accelerator] = []
    scheduling: Scheduling | None = None
    metadata: Metadata | None = None
    disks: list[Disk]
    network_interfaces: list[Network]
    service_accounts: list[ServiceAccount]


class LocalProvider(Model):
    type: Literal["local"]
    head_ip: str
    worker_ips: list[str]


class Resources(Model):
    CPU: int
    GPU: int = 0


class NodeType(Model):
    min_workers: int = 0
    max_workers: int = 0
    resources: Resources
    node_config: AwsNode | GcpNode


class Auth(Model):
    ssh_user: str


class Docker(Model):
    container_name: str
    image: str
    run_options: list[str]


class Launcher(Model):
    cluster_name: str
    max_workers: int | None = None
    idle_timeout_minutes: int | None = None
    provider: AwsProvider | GcpProvider | LocalProvider = Field(discriminator="type")
    auth: Auth
    docker: Docker | None = None
    head_node_type: str | None = None
    available_node_types: dict[Literal["head", "gpu"], NodeType] | None = None
    file_mounts: dict[str, str]
    rsync_exclude: list[str] = []
    rsync_filter: list[str] = []
    initialization_commands: list[str] = []
    setup_commands: list[str]
    head_setup_commands: list[str] = []
    head_start_ray_commands: list[str]
    worker_start_ray_commands: list[str]


def read(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load((CLUSTERS / f"{name}.yaml").read_text(encoding="utf-8"))
    return fields


def check(fields: dict[str, Any]) -> None:
    """Raise if Ray, or the provider, would not know something in a file, or take it for something else."""
    Launcher.model_validate(fields)
    jsonschema.validate(fields, SCHEMA)
    validate_config(prepare_config(copy.deepcopy(fields)))
    for command in [*fields["head_start_ray_commands"], *fields["worker_start_ray_commands"]]:
        unknown = set(re.findall(r"(?<=\s)--[\w-]+", command)) - FLAGS
        if "ray start" in command and unknown:
            raise ValueError(f"'ray start' has no {unknown}")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_valid_raw_and_prepared(name: str) -> None:
    check(read(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_typo_is_caught_wherever_it_is(name: str, misspelled: Callable[[Any], Iterator[Any]]) -> None:
    fields = read(name)
    mounts = fields.pop("file_mounts")  # whose keys are paths
    changed = list(misspelled(fields))
    assert len(changed) > 10
    for each in changed:
        with pytest.raises(ValidationError):
            check({**each, "file_mounts": mounts})


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_typo_in_a_flag_is_caught(name: str) -> None:
    text = (CLUSTERS / f"{name}.yaml").read_text(encoding="utf-8")
    for flag in ("--head", "--num-cpus", "--object-manager-port", "--dashboard-host"):
        with pytest.raises(ValueError, match=f"'ray start' has no {{'{flag}x'}}"):
            check(yaml.safe_load(re.sub(rf"{flag}\b", f"{flag}x", text)))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_the_head_is_on_demand_and_trains_nothing_and_gpus_are_spot_and_scale_to_zero(name: str) -> None:
    launcher = Launcher.model_validate(read(name))
    assert launcher.available_node_types is not None
    head, gpu = (launcher.available_node_types[kind] for kind in ("head", "gpu"))
    spot = "InstanceMarketOptions" if name == "aws" else "scheduling"
    assert launcher.head_node_type == "head"
    assert head.resources == Resources(CPU=0)
    assert getattr(head.node_config, spot) is None
    assert getattr(gpu.node_config, spot) is not None
    assert (gpu.min_workers, gpu.max_workers) == (0, launcher.max_workers)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_sweep_is_told_what_the_workers_have_together(name: str) -> None:
    launcher = Launcher.model_validate(read(name))
    assert launcher.docker is not None
    assert launcher.available_node_types is not None
    gpu = launcher.available_node_types["gpu"]
    together = f"CPU={gpu.max_workers * gpu.resources.CPU},GPU={gpu.max_workers * gpu.resources.GPU}"
    assert f"--env SGBENCH_GROWS_TO={together}" in launcher.docker.run_options


@pytest.mark.parametrize("name", NAMES)
def test_the_dashboard_is_on_loopback_and_no_node_starts_without_the_token(name: str) -> None:
    launcher = Launcher.model_validate(read(name))
    (head,) = [command for command in launcher.head_start_ray_commands if "ray start" in command]
    (worker,) = [command for command in launcher.worker_start_ray_commands if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head
    assert launcher.file_mounts[f"{'~' if name == 'onprem' else '/home/ray'}/.ray/auth_token"] == "~/.ray/auth_token"
    if launcher.docker:
        assert "--env RAY_AUTH_MODE=token" in launcher.docker.run_options
    else:
        assert all("RAY_AUTH_MODE=token" in command for command in (head, worker))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_node_copies_and_installs_nothing_but_the_token_as_its_image_has_all(name: str) -> None:
    launcher = Launcher.model_validate(read(name))
    assert launcher.docker is not None
    assert launcher.docker.image == "REPLACE-IMAGE"
    assert launcher.file_mounts == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert launcher.setup_commands == launcher.head_setup_commands == []  # without, Ray would install a nightly build


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_worker_passes_on_the_notice_that_it_will_be_taken_away(name: str) -> None:
    (command,) = [each for each in Launcher.model_validate(read(name)).worker_start_ray_commands if "notices" in each]
    words = shlex.split(command, comments=True)
    assert words[:3] == ["setsid", "--fork", "python"]
    assert importlib.util.find_spec(words[words.index("-m") + 1]) is not None
    assert words[words.index("-m") + 2] == name


def test_own_machines_install_the_project_by_its_constraints() -> None:
    launcher = Launcher.model_validate(read("onprem"))
    assert any(target.endswith("/sgbench") and source == "." for target, source in launcher.file_mounts.items())
    assert any(
        "pip install -c ~/sgbench/constraints.txt -e ~/sgbench[service]" in each for each in launcher.setup_commands
    )
