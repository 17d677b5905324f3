"""cluster.yaml on a made-up AWS (moto): what cluster/aws_prepare.py makes, and what Ray then does.

Nothing here reaches a real account. moto stands for AWS; Ray's own bootstrap and node provider run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
import yaml
from moto import mock_aws
from test_cluster_yaml import ROOT, accept, aws_prepare, lint

REGION = "us-west-2"
ADDRESS = "203.0.113.7/32"


class Prepared(NamedTuple):
    text: str  # the filled file
    config: dict[str, Any]  # after Ray's bootstrap


def prepare(output: Path, address: str = ADDRESS, bucket: str = "lab") -> int:
    image = boto3.client("ec2", REGION).describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    return aws_prepare.main(
        [
            *("--bucket", bucket, "--prefix", "wsss/qin", "--address", address),
            *("--file", str(ROOT / "cluster.yaml"), "--output", str(output)),
            *("--head-image", image, "--gpu-image", image),
        ]
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """An account with everything prepared, and the file as Ray's bootstrap leaves it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "testing")
        patch.setenv("HOME", str(home))  # Ray writes a key pair below ~/.ssh
        from ray.autoscaler._private.aws.config import bootstrap_aws

        assert prepare(home / "mine.yaml") == 0
        text = (home / "mine.yaml").read_text()
        yield Prepared(text, bootstrap_aws(accept(yaml.safe_load(text))))


def groups() -> list[dict[str, Any]]:
    return boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"]


def group_of(prepared: Prepared) -> dict[str, Any]:
    (name,) = prepared.config["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    (group,) = [group for group in groups() if group["GroupId"] == name]
    return group


def test_nothing_is_left_to_fill_and_all_rules_hold(prepared: Prepared) -> None:
    used = [line for line in prepared.text.splitlines() if not line.lstrip().startswith("#")]
    assert not any("YOUR_" in line for line in used)
    assert "--store s3://lab/wsss/qin " in prepared.text
    assert lint.findings(yaml.safe_load(prepared.text)) == []


def test_only_ssh_from_one_address_and_the_cluster_itself_may_enter(prepared: Prepared) -> None:
    own = group_of(prepared)
    by_protocol = {rule["IpProtocol"]: rule for rule in own["IpPermissions"]}
    assert set(by_protocol) == {"tcp", "-1"}
    ssh, inside = by_protocol["tcp"], by_protocol["-1"]
    assert (ssh["FromPort"], ssh["ToPort"]) == (22, 22)
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [own["GroupId"]]
    rules = [rule for group in groups() for rule in group["IpPermissions"]]
    assert [each["CidrIp"] for rule in rules for each in rule["IpRanges"]] == [ADDRESS]
    assert inside["IpRanges"] == []


def test_ray_takes_no_broad_role(prepared: Prepared) -> None:
    names = {role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]}
    assert names == {"wsss-sweeps-head", "wsss-sweeps-worker"}
    for name in names:
        attached = boto3.client("iam").list_attached_role_policies(RoleName=name)
        assert attached["AttachedPolicies"] == []


def test_workers_may_start_in_three_zones(prepared: Prepared) -> None:
    subnets = prepared.config["available_node_types"]["gpu_spot"]["node_config"]["SubnetIds"]
    found = boto3.client("ec2", REGION).describe_subnets(SubnetIds=subnets)["Subnets"]
    zones = {subnet["AvailabilityZone"] for subnet in found}
    assert zones == {"us-west-2a", "us-west-2b", "us-west-2c"}


@pytest.mark.parametrize(
    ("kind", "lifecycle", "role"),
    [
        ("head", None, "wsss-sweeps-head"),
        ("gpu_spot", "spot", "wsss-sweeps-worker"),
        ("gpu_on_demand", None, "wsss-sweeps-worker"),
    ],
)
def test_machines_start_as_the_file_says_and_are_gone_afterwards(
    prepared: Prepared, kind: str, lifecycle: str | None, role: str
) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    ec2 = boto3.client("ec2", REGION)
    provider = AWSNodeProvider(prepared.config["provider"], "wsss-sweeps")
    node_config = prepared.config["available_node_types"][kind]["node_config"]
    (name,) = provider.create_node(node_config, {"ray-node-type": "worker"}, 1)

    def seen() -> dict[str, Any]:
        return ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]

    machine = seen()
    assert machine.get("InstanceLifecycle") == lifecycle
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert machine["IamInstanceProfile"]["Arn"].endswith(f"/{role}")
    assert [group["GroupId"] for group in machine["SecurityGroups"]] == [
        group_of(prepared)["GroupId"]
    ]
    attached = [{"Name": "attachment.instance-id", "Values": [name]}]
    disks = ec2.describe_volumes(Filters=attached)["Volumes"]
    assert disks
    assert all(disk["Encrypted"] for disk in disks)
    provider.terminate_node(name)
    assert seen()["State"]["Name"] == "terminated"


def test_preparing_again_replaces_the_address_and_keeps_the_rest(
    prepared: Prepared, tmp_path: Path
) -> None:
    before = group_of(prepared)["GroupId"]
    wide = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 65535}
    from_us = [wide | {"IpRanges": [{"CidrIp": "198.51.100.9/32"}]}]
    ec2 = boto3.client("ec2", REGION)
    ec2.authorize_security_group_ingress(GroupId=before, IpPermissions=from_us)
    try:
        assert prepare(tmp_path / "a.yaml", address="198.51.100.9/32") == 0
        group = group_of(prepared)
        ranges = [
            source["CidrIp"] for rule in group["IpPermissions"] for source in rule["IpRanges"]
        ]
        assert (group["GroupId"], ranges) == (before, ["198.51.100.9/32"])
        assert {rule.get("ToPort") for rule in group["IpPermissions"]} == {22, None}
    finally:
        assert prepare(tmp_path / "b.yaml") == 0
    assert (tmp_path / "b.yaml").read_text() == prepared.text


@pytest.mark.parametrize("address", ["0.0.0.0/0", "10.0.0.0/8", "::/0"])
def test_a_wide_address_is_refused_before_anything_is_made(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    assert prepare(tmp_path / "mine.yaml", address=address, bucket="other") == 2
    assert "give your own" in capsys.readouterr().err
    buckets = boto3.client("s3", REGION).list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == ["lab"]
    assert not (tmp_path / "mine.yaml").exists()


def test_the_bucket_is_closed_to_the_public(prepared: Prepared) -> None:
    block = boto3.client("s3", REGION).get_public_access_block(Bucket="lab")
    assert set(block["PublicAccessBlockConfiguration"].values()) == {True}


@pytest.mark.parametrize("name", ["head", "worker"])
def test_a_role_names_its_actions_and_reaches_only_this_cluster(
    prepared: Prepared, name: str
) -> None:
    iam, role = boto3.client("iam"), f"wsss-sweeps-{name}"
    policies = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=policy) for policy in policies]
    granted = [
        (action, set(as_list(statement["Resource"])), statement.get("Condition"))
        for document in documents
        for statement in document["PolicyDocument"]["Statement"]
        for action in as_list(statement["Action"])
    ]
    assert granted
    assert "YOUR_" not in repr(granted)
    for action, resources, condition in granted:
        assert "*" not in action
        if "*" in resources:  # what AWS cannot limit: seeing
            assert action.startswith("ec2:Describe")
        if action == "s3:ListBucket":
            assert resources == {"arn:aws:s3:::lab"}
            prefixes = condition["StringLike"]["s3:prefix"]
            assert set(prefixes) == {"wsss/qin", "wsss/qin/*"}
        elif action.startswith("s3:"):
            assert resources == {"arn:aws:s3:::lab/wsss/qin/*"}
        if action in ("ec2:TerminateInstances", "ec2:CreateTags"):
            assert condition
    if name == "worker":
        assert {action[:3] for action, *_ in granted} == {"s3:"}


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
