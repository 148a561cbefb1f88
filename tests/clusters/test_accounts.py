"""What a cloud account must have: the stack of AWS and the script of Google Cloud, checked without either.

cfn-lint has the schemas of AWS's resources, and gcloud checks commands without sending them. What a head may do is
compared with what Ray's launcher calls there, on a stand-in of EC2.
"""

import fnmatch
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
import yaml
from programs import program
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_NODE_STATUS

CLUSTERS = Path(__file__).parents[2] / "clusters"
STACK = CLUSTERS / "aws-stack.yaml"
SCRIPT = CLUSTERS / "gcp-project.sh"
REGION = "us-west-2"


class Tags(yaml.SafeLoader):
    """Reads a template with its functions as plain values: ``!Ref X`` as ``X``."""


for function in ("Ref", "Sub", "GetAtt"):
    Tags.add_constructor(f"!{function}", lambda loader, node: loader.construct_scalar(node))


def resources() -> dict[str, Any]:
    stack: dict[str, Any] = yaml.load(STACK.read_text(encoding="utf-8"), Tags)  # a safe loader
    return {name: each.get("Properties", {}) for name, each in stack["Resources"].items()}


def test_the_script_is_valid() -> None:
    subprocess.run([program("shellcheck"), "--norc", str(SCRIPT)], check=True)


def test_the_stack_is_valid_and_planted_typos_are_caught(tmp_path: Path) -> None:
    typos = {
        "GroupDescription:": "GroupDescriptions:",
        "ec2:DescribeInstances": "ec2:DescribeInstance",
        "!Ref WorkerRole": "!Ref WorkersRole",
        "Name: sgbench-head": "Name: [sgbench-head]",
    }
    text = STACK.read_text(encoding="utf-8")
    for right, wrong in typos.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    changed = tmp_path / "changed.yaml"
    changed.write_text(text, encoding="utf-8")
    command = [program("cfn-lint"), "--format", "parseable", "--non-zero-exit-code", "none", "--regions", REGION, "--"]
    said = subprocess.run([*command, str(STACK), str(changed)], capture_output=True, text=True, check=True).stdout
    assert str(STACK) not in said
    assert all(f":{code}:" in said for code in ("E3002", "W3037", "E1020", "E3012")), said


def test_nothing_but_ssh_comes_in_from_outside() -> None:
    inside = [each for each in resources().values() if "SourceSecurityGroupId" in each]
    assert [each["SourceSecurityGroupId"] for each in inside] == ["Group"]
    (ssh,) = resources()["Group"]["SecurityGroupIngress"]
    assert ssh == {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "SshFrom"}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[set[str]]:
    """What Ray's launcher calls on the head of ``aws.yaml`` to start, mark and end a worker."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where the launcher puts its key
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    found: set[str] = set()
    with moto.mock_aws():
        boto3.client("iam").create_instance_profile(InstanceProfileName="sgbench-worker")
        (group,) = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
        text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8").replace("REPLACE-GROUP", group["GroupId"])
        config = AWSNodeProvider.bootstrap_config(prepare_config(yaml.safe_load(text)))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for ec2 in (provider.ec2, provider.ec2_fail_fast):
            ec2.meta.client.meta.events.register("before-call.*", lambda model, **_: found.add(f"ec2:{model.name}"))
        worker = config["available_node_types"]["gpu"]["node_config"]
        provider.create_node(worker, {TAG_RAY_NODE_KIND: "worker", TAG_RAY_NODE_NAME: "worker"}, 1)
        (node,) = provider.non_terminated_nodes({})
        (tag,) = [each for each in provider.ec2.Instance(node).tags if each["Key"] == TAG_RAY_CLUSTER_NAME]
        assert tag["Value"] == "sgbench"
        provider.set_node_tags(node, {TAG_RAY_NODE_STATUS: "up-to-date"})
        provider.terminate_nodes([node])
        yield found


def test_a_head_may_do_what_ray_calls_there_and_nothing_else(called: set[str]) -> None:
    (policy,) = resources()["HeadRole"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    allowed = {
        action
        for each in statements
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    }
    assert allowed - {"iam:PassRole"} == called
    for each in statements:
        if "ec2:TerminateInstances" in each["Action"]:
            assert each["Condition"] == {"StringEquals": {f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": "sgbench"}}
        if each["Action"] == "iam:PassRole":
            assert each["Resource"] == "WorkerRole.Arn"
    assert resources()["HeadProfile"]["InstanceProfileName"] == "sgbench-head"
    assert resources()["WorkerProfile"]["InstanceProfileName"] == "sgbench-worker"


@pytest.fixture
def gcloud(tmp_path: Path) -> dict[str, str]:
    """An environment in which gcloud only notes how it was called."""
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/bash\nprintf "gcloud" >>{tmp_path}/said\nprintf " %q" "$@" >>{tmp_path}/said\n'
        f'echo >>{tmp_path}/said\n[[ -z ${{FAULT:-}} || $* != *"$AT"* ]] || {{ echo "$FAULT" >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


CREATE = ("create", "my-project", "my-bucket", "203.0.113.7/32")
DELETE = ("delete", "my-project", "my-bucket")


def run(words: tuple[str, ...], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=False)


def test_the_script_is_of_commands_that_gcloud_has(tmp_path: Path, gcloud: dict[str, str]) -> None:
    for words in (CREATE, DELETE):
        assert run(words, gcloud).returncode == 0
    said = (tmp_path / "said").read_text()
    (tmp_path / "commands").write_text(f"```\n{said}gcloud compute networks create one --subnet-mod=custom\n```\n")
    lint = [program("gcloud"), "meta", "lint-gcloud-commands", "--commands-text-file", str(tmp_path / "commands")]
    answer = subprocess.run(
        lint, env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    *ours, planted = json.loads(answer.stdout)
    assert len(ours) == said.count("\n")
    assert [each["error_message"] for each in ours if each["error_message"]] == []
    assert planted["error_message"]


def test_what_exists_is_kept_and_anything_else_ends_the_script(gcloud: dict[str, str]) -> None:
    at = {"AT": "networks create"}
    assert run(CREATE, {**gcloud, **at, "FAULT": "The resource 'sgbench' already exists"}).returncode == 0
    refused = run(CREATE, {**gcloud, **at, "FAULT": "Required 'compute.networks.create' permission"})
    assert (refused.returncode, refused.stderr) == (1, "Required 'compute.networks.create' permission\n")
    assert run(DELETE, {**gcloud, "AT": "delete", "FAULT": "not found"}).returncode != 2


def test_all_that_is_created_is_deleted_but_for_the_bucket(tmp_path: Path, gcloud: dict[str, str]) -> None:
    run(CREATE, gcloud)
    created = set(re.findall(r"gcloud (.*) create (\S+)", (tmp_path / "said").read_text()))
    run(DELETE, gcloud)
    said = (tmp_path / "said").read_text()
    deleted = {
        (kind, name.partition("@")[0])
        for kind, names in re.findall(r"gcloud (.*) delete (.*)", said)
        for name in names.split()
    }
    assert created - deleted == {("storage buckets", "gs://my-bucket")}
    granted, taken = (set(re.findall(rf"{verb}-iam-policy-binding .*--role (\S+)", said)) for verb in ("add", "remove"))
    assert granted - taken == {"roles/artifactregistry.reader"}  # of what is deleted


def test_machines_of_google_cloud_are_in_the_network_and_have_the_accounts_of_the_script() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    types = yaml.safe_load((CLUSTERS / "gcp.yaml").read_text(encoding="utf-8"))["available_node_types"]
    for kind, account in (("head", "sgbench-head"), ("gpu", "sgbench-worker")):
        node = types[kind]["node_config"]
        (interface,), (given,) = node["networkInterfaces"], node["serviceAccounts"]
        assert fnmatch.fnmatch(interface["subnetwork"], "projects/*/regions/us-central1/subnetworks/sgbench")
        assert given["email"].startswith(f"{account}@")
        assert f"create iam service-accounts create {account}\n" in text
    assert "subnets create sgbench --network sgbench" in text
    assert set(re.findall(r"--allow (\S+)", text)) == {"tcp:22", "all"}
    assert "sgbench-among --network sgbench --source-ranges 10.0.0.0/20 --allow all" in text
