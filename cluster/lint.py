"""Check a cluster file against the rules that keep it safe: `python cluster/lint.py FILE...`.

Ray accepts clusters that are open to the world or never end; these rules do not. Check a file after
editing it. Each finding names the place and the rule. Exit code 1 if there are any.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Config = dict[str, Any]
RAY_WORKER_PORTS = range(10002, 20000)  # Ray's default; a fixed port would collide
SECRETS = ("~/.ray/auth_token", "~/.config/wsss/mlflow_password")
SECRET_IN_TEXT = re.compile(
    r"(password|passwd|secret|token)\w*\s*[=:]\s*['\"]?[\w/+]|AKIA[A-Z0-9]{12}", re.IGNORECASE
)


def findings(config: Config) -> list[str]:
    """Return the broken rules, as `place: rule`."""
    found = [*_everywhere(config), *_commands(config)]
    if config["provider"]["type"] == "aws":
        found += [*_aws(config), *_node_types(config)]
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in nested dicts and lists, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    else:
        yield str(value)


def _everywhere(config: Config) -> Iterator[str]:
    for text in _texts(config):
        if "0.0.0.0" in text or "::/0" in text:
            yield f"{text}: nothing may listen to, or be opened to, the whole world"
        if SECRET_IN_TEXT.search(text):
            yield "a text holds a password or key: keep it in a file of mode 600 under file_mounts"
    mounts = config.get("file_mounts", {})
    for secret in SECRETS:
        if mounts.get(secret) != secret:
            yield f"file_mounts: {secret} must be copied to every node"
    if not 0 < config.get("idle_timeout_minutes", 0) <= 60:
        yield "idle_timeout_minutes: idle workers must end within an hour"


def _commands(config: Config) -> Iterator[str]:
    """Check the commands that nodes run."""
    for where in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = config.get(where, [])
        if any(re.search(r"\bray stop\b", command) for command in commands):
            yield f"{where}: `ray stop` may end other people's Ray; use cluster/stop_ray.sh"
        starts = [command for command in commands if "ray start" in command]
        if not starts:
            yield f"{where}: without `ray start`, Ray fills in its own defaults"
        for start in starts:
            # env.sh sets RAY_AUTH_MODE=token, without which the job API accepts anybody.
            if ". ~/.wsss/env.sh" not in start:
                yield f"{where}: `ray start` must read ~/.wsss/env.sh, which turns on the token"
            for option, port in re.findall(r"--([a-z-]*port)=(\d+)", start):
                if int(port) in RAY_WORKER_PORTS:
                    yield f"{where}: --{option}={port} is in 10002-19999, Ray's workers' ports"
        if where.startswith("head"):
            yield from _head_commands(commands, " ".join(starts))
    if not any("install.sh" in command for command in config.get("setup_commands", [])):
        yield "setup_commands: cluster/install.sh must install the lock's versions"


def _head_commands(commands: list[str], start: str) -> Iterator[str]:
    if "--dashboard-host=127.0.0.1" not in start:
        yield "head_start_ray_commands: the dashboard is the job API; --dashboard-host=127.0.0.1"
    if "--num-cpus=0" not in start:
        yield "head_start_ray_commands: trials must not fill the head; --num-cpus=0"
    if not any("start_mlflow.sh" in command for command in commands):
        yield "head_start_ray_commands: cluster/start_mlflow.sh must start MLflow, with a password"
    if any("mlflow server" in command for command in commands):
        yield "head_start_ray_commands: start MLflow by cluster/start_mlflow.sh, not by hand"


def _aws(config: Config) -> Iterator[str]:
    provider = config["provider"]
    if provider.get("cache_stopped_nodes", True):
        yield "provider: cache_stopped_nodes must be false, or ended machines keep their disks"
    if len(set(provider.get("availability_zone", "").split(","))) < 2:
        yield "provider: availability_zone must name several zones"
    if "security_group" in provider:
        yield "provider: a security_group of Ray's making opens port 22 to the world"
    if not 0 < config.get("max_workers", 0) <= 64:
        yield "max_workers: cap the workers, 1 to 64"
    regions = set(re.findall(r"--region (\S+)", " ".join(config.get("setup_commands", []))))
    if regions != {provider["region"]}:
        yield f"setup_commands: --region must be {provider['region']}, as under provider"


def _node_types(config: Config) -> Iterator[str]:
    head = config["head_node_type"]
    types = config["available_node_types"]
    for name, node_type in types.items():
        node = node_type["node_config"]
        if node_type.get("min_workers", 0) != 0:
            yield f"{name}: min_workers must be 0, or idle machines never end"
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: IMDSv2: MetadataOptions.HttpTokens must be required"
        disks = [disk.get("Ebs", {}) for disk in node.get("BlockDeviceMappings", [])]
        if not disks or not all(disk.get("Encrypted") is True for disk in disks):
            yield f"{name}: disks must be encrypted"
        if not disks or not all(disk.get("DeleteOnTermination") is True for disk in disks):
            yield f"{name}: disks must go with their machine"
        if not node.get("SecurityGroupIds"):
            yield f"{name}: SecurityGroupIds: without, Ray opens port 22 to the world"
        if not node.get("IamInstanceProfile"):
            yield f"{name}: IamInstanceProfile: without, Ray gives the head all of EC2 and S3"
    workers = {name: node for name, node in types.items() if name != head}
    spot = {name for name, node in workers.items() if _is_spot(node)}
    if _is_spot(types[head]):
        yield f"{head}: the head must be on demand"
    if not spot or spot == set(workers):
        yield "available_node_types: workers need a spot type and an on-demand type"
    elif min(workers[name].get("priority", 0) for name in spot) <= max(
        node.get("priority", 0) for name, node in workers.items() if name not in spot
    ):
        yield "available_node_types: spot types need a higher priority than those on demand"


def _is_spot(node_type: Config) -> bool:
    return node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"


def main(arguments: list[str] | None = None) -> int:
    """Print each file's findings, if any; return 1 if there are any, 2 for no cluster file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    any_found = False
    for file in parser.parse_args(arguments).files:
        try:
            found = findings(yaml.safe_load(Path(file).read_text()))
        except (OSError, yaml.YAMLError) as error:
            print(f"error: {file}: {error}", file=sys.stderr)
            return 2
        except (KeyError, TypeError, AttributeError) as error:
            print(f"error: {file}: not like cluster.yaml: {error!r}", file=sys.stderr)
            return 2
        any_found |= bool(found)
        for finding in found or ["follows all rules"]:
            print(f"{file}: {finding}")
    return int(any_found)


if __name__ == "__main__":
    sys.exit(main())
