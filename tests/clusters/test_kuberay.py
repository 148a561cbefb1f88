"""The Kubernetes files, strictly: a server of Kubernetes lets pass, without a word, what it does not know.

What Ray's autoscaler, and ``ray start``, make of a file is asked of Ray itself. For the rest no Python package carries
the published schemas, so that the models here were written from the references of KubeRay's ``ray.io/v1`` and of
Kubernetes' ``v1``: they find what differs from those, and not what those say otherwise than they were read.
"""

import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.scripts.scripts import start

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "clusters" / "kuberay"
NAMES = ("raycluster", "rayjob")


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Labels(Model):
    queue: str = Field(alias="kueue.x-k8s.io/queue-name")


class Metadata(Model):
    name: str
    labels: Labels | None = None


class Env(Model):
    name: str
    value: str


class Amounts(Model):
    cpu: str
    memory: str
    gpu: int | None = Field(default=None, alias="nvidia.com/gpu")


class ContainerResources(Model):
    requests: Amounts
    limits: Amounts


class Mount(Model):
    name: str
    mount_path: str


class Named(Model):
    name: str


class SecretRef(Model):
    name: str
    optional: Literal[True]


class EnvFrom(Model):
    secret_ref: SecretRef


class Exec(Model):
    command: list[str]


class Handler(Model):
    exec: Exec


class Lifecycle(Model):
    pre_stop: Handler


class Container(Model):
    name: str
    image: str
    lifecycle: Lifecycle | None = None
    env: list[Env] = []
    env_from: list[EnvFrom]
    resources: ContainerResources
    volume_mounts: list[Mount] = []


class Claim(Model):
    claim_name: str


class Volume(Model):
    name: str
    persistent_volume_claim: Claim


class Toleration(Model):
    key: str
    operator: Literal["Exists"]
    effect: Literal["NoSchedule"]


class Pod(Model):
    restart_policy: Literal["Never"] | None = None
    termination_grace_period_seconds: int | None = None
    tolerations: list[Toleration] = []
    image_pull_secrets: list[Named]
    service_account_name: str | None = None
    priority_class_name: str | None = None
    node_selector: dict[str, str] = {}
    containers: list[Container]
    volumes: list[Volume] = []


class Template(Model):
    spec: Pod


class StartParams(Model):
    """Flags of ``ray start``, whose values KubeRay wants as strings."""

    num_cpus: str | None = Field(default=None, alias="num-cpus")
    dashboard_host: str | None = Field(default=None, alias="dashboard-host")


class Head(Model):
    service_type: Literal["ClusterIP"]
    ray_start_params: StartParams
    template: Template


class Workers(Model):
    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: StartParams
    template: Template


class AuthOptions(Model):
    mode: Literal["token"]


class AutoscalerOptions(Model):
    version: Literal["v2"]
    idle_timeout_seconds: int


class ClusterSpec(Model):
    ray_version: str
    auth_options: AuthOptions
    enable_in_tree_autoscaling: Literal[True]
    autoscaler_options: AutoscalerOptions
    head_group_spec: Head
    worker_group_specs: list[Workers]


class JobSpec(Model):
    entrypoint: str
    runtime_env_yaml: str = Field(alias="runtimeEnvYAML")
    shutdown_after_job_finishes: Literal[True]
    ttl_seconds_after_finished: int
    ray_cluster_spec: ClusterSpec


class RayCluster(Model):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Model):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


FILE: TypeAdapter[RayCluster | RayJob] = TypeAdapter(Annotated[RayCluster | RayJob, Field(discriminator="kind")])


OPTIONAL = re.compile(r"^( +)# (\w+: )", re.MULTILINE)
"""A field that may be wanted."""


def read(name: str, *, everything: bool = False) -> dict[str, Any]:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    (fields,) = yaml.safe_load_all(OPTIONAL.sub(r"\1\2", text) if everything else text)
    return dict(fields)


def cluster(name: str, *, everything: bool = False) -> ClusterSpec:
    spec = FILE.validate_python(read(name, everything=everything)).spec
    return spec if isinstance(spec, ClusterSpec) else spec.ray_cluster_spec


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_valid(name: str) -> None:
    FILE.validate_python(read(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_typo_is_caught_wherever_it_is(name: str, misspelled: Callable[[Any], Iterator[Any]]) -> None:
    changed = list(misspelled(read(name)))
    assert len(changed) > 50
    for each in changed:
        with pytest.raises(ValidationError):
            FILE.validate_python(each)


def pods(spec: ClusterSpec) -> list[Pod]:
    return [spec.head_group_spec.template.spec, *(group.template.spec for group in spec.worker_group_specs)]


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_has_the_image_whose_ray_is_the_cluster_s(name: str) -> None:
    spec = cluster(name)
    assert {container.image for pod in pods(spec) for container in pod.containers} == {"REPLACE-IMAGE"}
    (base,) = re.findall("^FROM (.*)$", (FOLDER.parent / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert base == f"rayproject/ray:{spec.ray_version}-py311-cpu"


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_may_be_wanted_are_valid_and_a_claim_takes_the_place_of_a_bucket(name: str) -> None:
    for pod in pods(cluster(name, everything=True)):
        (container,) = pod.containers
        assert [(mount.name, mount.mount_path) for mount in container.volume_mounts] == [("shared", "/shared")]
        assert [volume.persistent_volume_claim.claim_name for volume in pod.volumes] == ["sgbench-shared"]
        assert pod.service_account_name == pod.priority_class_name == "REPLACE"
        assert pod.node_selector == {"REPLACE": "REPLACE"}


@pytest.mark.parametrize("name", NAMES)
def test_runs_leave_a_worker_before_kubernetes_ends_it(name: str) -> None:
    (group,) = cluster(name).worker_group_specs
    (worker,) = group.template.spec.containers
    assert worker.lifecycle is not None
    python, _, module, what, _, seconds = worker.lifecycle.pre_stop.exec.command
    assert (python, what) == ("python", "now")
    assert importlib.util.find_spec(module) is not None
    grace = group.template.spec.termination_grace_period_seconds
    assert grace is not None
    assert float(seconds) < grace


@pytest.mark.parametrize("name", NAMES)
def test_to_ray_s_autoscaler_the_head_trains_nothing_and_gpus_scale_to_zero(name: str) -> None:
    fields = read(name)
    spec = fields["spec"].get("rayClusterSpec", fields["spec"])
    resource = {"metadata": {"name": "sgbench", "namespace": "default"}, "spec": spec}
    asked = _derive_autoscaling_config_from_ray_cr(resource)
    types = asked["available_node_types"]
    assert types.keys() == {"headgroup", "gpu"}
    assert types["headgroup"]["resources"]["CPU"] == 0
    gpu = types["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"], asked["idle_timeout_minutes"]) == (0, 8, 5)
    assert gpu["resources"] == {"CPU": 8, "GPU": 1, "memory": 32 * 2**30}
    (group,) = cluster(name).worker_group_specs
    assert group.replicas == 0
    (worker,) = group.template.spec.containers
    assert worker.resources.requests == worker.resources.limits
    (head,) = cluster(name).head_group_spec.template.spec.containers
    together = f"CPU={8 * gpu['max_workers']},GPU={gpu['max_workers']}"
    assert Env(name="SGBENCH_GROWS_TO", value=together) in head.env


def container_command(group: Head | Workers, head: str) -> str:
    """Return what KubeRay lets the container of a group run.

    Source: ``generateRayStartCommand`` in ``ray-operator/controllers/ray/common/pod.go`` of KubeRay.

    Args:
        group: The group.
        head: Where workers find the head.
    """
    (container,) = group.template.spec.containers
    limits = container.resources.limits
    given = {"num-cpus": limits.cpu, "memory": str(int(limits.memory.removesuffix("Gi")) * 2**30)}
    given |= {"num-gpus": str(limits.gpu)} if limits.gpu else {}
    given |= {"metrics-export-port": "8080", "dashboard-agent-listen-port": "52365"}
    given |= {"dashboard-host": "0.0.0.0"} if isinstance(group, Head) else {"address": f"{head}:6379"}
    given |= group.ray_start_params.model_dump(by_alias=True, exclude_none=True)
    flags = " ".join(f"--{key}={value}" for key, value in sorted(given.items()))
    return f"ulimit -n 65536; ray start {'--head ' if isinstance(group, Head) else ''}--block {flags}"


@pytest.mark.parametrize("name", NAMES)
def test_ray_understands_what_kuberay_lets_the_containers_run(name: str) -> None:
    spec = cluster(name)
    (workers,) = spec.worker_group_specs
    starts = [container_command(group, "sgbench-head-svc") for group in (spec.head_group_spec, workers)]
    head, worker = (start.make_context("start", shlex.split(each.partition("ray start ")[2])).params for each in starts)
    assert (head["head"], head["block"], head["num_cpus"], head["num_gpus"]) == (True, True, 0, None)
    assert (worker["address"], worker["num_cpus"], worker["num_gpus"]) == ("sgbench-head-svc:6379", 8, 1)
    assert worker["memory"] == 32 * 2**30


def test_the_dashboard_of_a_cluster_that_stays_is_on_loopback() -> None:
    assert cluster("raycluster").head_group_spec.ray_start_params.dashboard_host == "127.0.0.1"


def test_the_two_files_have_one_cluster_but_for_who_reaches_the_dashboard() -> None:
    stays, goes = cluster("raycluster"), cluster("rayjob")
    goes.head_group_spec.ray_start_params.dashboard_host = "127.0.0.1"
    assert stays == goes
