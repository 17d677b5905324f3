"""Create what cluster.yaml needs in an AWS account, and write the file with it filled in.

    python cluster/aws_prepare.py --bucket B --prefix P --address 203.0.113.7/32

Creates, or updates when given again (for example after your address changed): a bucket without
public access, two roles with access to one prefix of it (and the head: to machines of this
cluster), and a security group open only to that address. Otherwise Ray would make a group with port
22 open to the world, and give the head all of EC2 and S3. Needs the rights to do this; nothing is
removed. Writes cluster.mine.yaml.
"""

import argparse
import contextlib
import ipaddress
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).parent))
from fill import FillError, fill

POLICIES = Path(__file__).parent / "iam"
# Where Canonical and AWS publish the newest image of a kind, by region.
HEAD_IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
GPU_IMAGE = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
)


class Cluster(NamedTuple):
    """What the cluster file says about the cluster."""

    name: str
    region: str
    instance_types: tuple[str, ...]  # of the workers


def read_cluster(text: str) -> Cluster:
    """Read name, region and the workers' machines from the cluster file, filled or not."""
    config = yaml.safe_load(text)
    types = {
        node["node_config"]["InstanceType"]
        for name, node in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    return Cluster(config["cluster_name"], config["provider"]["region"], tuple(sorted(types)))


def checked_address(text: str) -> str:
    """Return `text` as a CIDR block of your own: /24 or narrower, for IPv6 /64 or narrower."""
    network = ipaddress.ip_network(text, strict=False)
    if network.prefixlen < (24 if network.version == 4 else 64):
        raise FillError(
            f"--address {text} lets {network.num_addresses} addresses in; give your own, such as "
            "203.0.113.7/32"
        )
    return str(network)


def ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    """Create the bucket, without public access, unless it exists."""
    try:
        s3.head_bucket(Bucket=bucket)
        return
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
    # us-east-1 is the only region that must not be named.
    where = {} if region == "us-east-1" else {"LocationConstraint": region}
    s3.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": where} if where else {}))
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
    )


def ensure_group(ec2: Any, name: str, address: str, vpc: str | None) -> str:
    """Create the security group, or correct its rules; return its id.

    Inbound: port 22 from `address`, and everything from the group itself. Other rules are removed.
    """
    if vpc is None:
        found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not found:
            raise FillError("the region has no default VPC; name one with --vpc")
        vpc = str(found[0]["VpcId"])
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    groups = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    if groups:
        group = groups[0]["GroupId"]
    else:
        group = ec2.create_security_group(
            GroupName=name, VpcId=vpc, Description="SSH from one address; all within the cluster"
        )["GroupId"]
    source: dict[str, Any] = {"IpRanges": [{"CidrIp": address}]}
    if ":" in address:
        source = {"Ipv6Ranges": [{"CidrIpv6": address}]}
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **source}
    inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    _set_rules(ec2, group, [ssh, inside])
    return str(group)


def _set_rules(ec2: Any, group: str, wanted: list[dict[str, Any]]) -> None:
    """Give the group exactly these rules. Equal ones are not touched: a cluster may be running."""

    def key(rule: dict[str, Any]) -> str:
        sources = [
            str(value)
            for name in ("IpRanges", "Ipv6Ranges", "UserIdGroupPairs", "PrefixListIds")
            for source in rule.get(name, [])
            for field, value in sorted(source.items())
            if field in ("CidrIp", "CidrIpv6", "GroupId", "PrefixListId")
        ]
        ports = [rule.get("FromPort", -1), rule.get("ToPort", -1)]
        return json.dumps([rule["IpProtocol"], ports, sorted(sources)])

    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    old = {key(rule): rule for rule in found["IpPermissions"]}
    new = {key(rule): rule for rule in wanted}
    if surplus := [old[name] for name in old.keys() - new.keys()]:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=surplus)
    if missing := [new[name] for name in new.keys() - old.keys()]:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=missing)


def ensure_role(iam: Any, name: str, policies: list[str]) -> None:
    """Create role and instance profile `name`; replace its inline policies."""
    trust = (POLICIES / "trust.json").read_text()
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    for number, policy in enumerate(policies):
        iam.put_role_policy(RoleName=name, PolicyName=f"wsss-{number}", PolicyDocument=policy)
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_instance_profile(InstanceProfileName=name)
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    if not profile["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def filled_policy(name: str, values: dict[str, str], instance_types: tuple[str, ...]) -> str:
    """Return a policy of cluster/iam with this cluster's names, as JSON."""
    text = (POLICIES / f"{name}.json").read_text()
    text = text.replace('"YOUR_INSTANCE_TYPES"', json.dumps(instance_types)[1:-1])
    for key, value in values.items():
        text = text.replace(f"YOUR_{key}", value)
    return json.dumps(json.loads(text))


def prepare(given: argparse.Namespace) -> str:
    """Create everything in the account; return the filled cluster file's text."""
    text = given.file.read_text()
    cluster = read_cluster(text)
    address = checked_address(given.address)
    session = boto3.Session(region_name=cluster.region)
    ssm = session.client("ssm")

    def newest(parameter: str) -> str:
        return str(ssm.get_parameter(Name=parameter)["Parameter"]["Value"])

    values = {
        "CLUSTER": cluster.name,
        "BUCKET": given.bucket,
        "PREFIX": given.prefix.strip("/"),
        "HEAD_IMAGE": given.head_image or newest(HEAD_IMAGE),
        "GPU_IMAGE": given.gpu_image or newest(GPU_IMAGE),
    }
    fill(text, {**values, "SECURITY_GROUP": "checked"})  # before anything is created
    ensure_bucket(session.client("s3"), given.bucket, cluster.region)
    group = ensure_group(session.client("ec2"), cluster.name, address, given.vpc)
    values["SECURITY_GROUP"] = group
    account = session.client("sts").get_caller_identity()["Account"]
    names = {**values, "REGION": cluster.region, "ACCOUNT": account}
    iam = session.client("iam")
    worker = filled_policy("worker", names, cluster.instance_types)
    head = filled_policy("head", names, cluster.instance_types)
    ensure_role(iam, f"{cluster.name}-worker", [worker])
    ensure_role(iam, f"{cluster.name}-head", [worker, head])
    return fill(text, values)


def main(arguments: list[str] | None = None) -> int:
    """Prepare the account and write the file; 2 on an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bucket", required=True, help="created if it does not exist")
    parser.add_argument("--prefix", required=True, help="the part of the bucket to use")
    parser.add_argument("--address", required=True, help="who may use SSH, e.g. 203.0.113.7/32")
    parser.add_argument("--vpc", help="default: the region's default VPC")
    parser.add_argument("--head-image", help="AMI of the head; default: the newest Ubuntu 24.04")
    parser.add_argument("--gpu-image", help="AMI of the workers; default: AWS's newest with driver")
    parser.add_argument("--file", type=Path, default=Path("cluster.yaml"))
    parser.add_argument("--output", type=Path, default=Path("cluster.mine.yaml"))
    given = parser.parse_args(arguments)
    try:
        given.output.write_text(prepare(given))
    except (FillError, ValueError, BotoCoreError, ClientError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {given.output}; next: ray up {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
