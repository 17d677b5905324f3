"""The cluster files: Ray takes them, our rules hold and can fail, the scripts do what they say."""

import copy
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.cluster.secrets import SecretError, ensure_secrets

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "cluster"))

import aws_prepare  # noqa: E402, F401 - for test_cluster_aws.py
import fill  # noqa: E402
import lint  # noqa: E402

FILES = ("cluster.yaml", "cluster.onprem.yaml")
SCRIPTS = sorted((ROOT / "cluster").glob("*.sh"))
BIN = sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
ONPREM = {
    "HEAD_HOST": "node0",
    "WORKER_HOSTS": "node1,node2",
    "SSH_USER": "me",
    "SSH_KEY": "~/.ssh/id_ed25519",
    "STORE": "/shared/wsss",
    "TMP": "/tmp/wsss-me",
}

Config = dict[str, Any]


def load(name: str) -> Config:
    return yaml.safe_load((ROOT / name).read_text())


def accept(config: Config) -> Config:
    """What Ray makes of a file before it calls any cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_hosts_of_the_list_become_the_workers() -> None:
    text = (ROOT / "cluster.onprem.yaml").read_text()
    prepared = accept(yaml.safe_load(fill.fill(text, ONPREM)))
    assert prepared["provider"]["worker_ips"] == ["node1", "node2"]
    workers = prepared["available_node_types"]["local.cluster.node"]
    assert (workers["min_workers"], workers["max_workers"]) == (2, 2)
    assert prepared["auth"]["ssh_user"] == "me"


@pytest.mark.parametrize("name", FILES)
def test_all_rules_hold(name: str) -> None:
    assert lint.findings(load(name)) == []


def at(*path: str, value: Any) -> Callable[[Config], None]:
    """A change that sets the value at a path."""

    def change(config: Config) -> None:
        *outer, last = path
        for key in outer:
            config = config[int(key)] if isinstance(config, list) else config[key]
        config[int(last) if isinstance(config, list) else last] = value

    return change


def in_commands(where: str, old: str, new: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        assert any(old in command for command in config[where]), "the test's own text is stale"
        config[where] = [command.replace(old, new) for command in config[where]]

    return change


HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
TYPES = "available_node_types"
BROKEN_ANYWHERE = {
    "the whole world": in_commands(HEAD, "host=127.0.0.1", "host=0.0.0.0"),
    "--dashboard-host=127.0.0.1": in_commands(HEAD, "--dashboard-host=127.0.0.1", ""),
    "must not fill the head": in_commands(HEAD, "--num-cpus=0", ""),
    "a password or key": in_commands(HEAD, "bash", "MLFLOW_AUTH_ADMIN_PASSWORD=password1234 bash"),
    "~/.ray/auth_token must be copied": at("file_mounts", "~/.ray/auth_token", value=""),
    "mlflow_password must be copied": at("file_mounts", "~/.config/wsss/mlflow_password", value=""),
    "idle_timeout_minutes": at("idle_timeout_minutes", value=100_000),
    "other people's Ray": at(HEAD, "0", value="ray stop"),
    "turns on the token": in_commands(WORKER, ". ~/.wsss/env.sh; ", ""),
    "10002-19999": in_commands(WORKER, "=6380", "=10500"),
    "without `ray start`": at(WORKER, value=[]),
    "start_mlflow.sh must start": in_commands(HEAD, "start_mlflow", "start_nothing"),
    "not by hand": in_commands(HEAD, "ulimit -c 0;", "mlflow server --host 127.0.0.1 &"),
    "install.sh must install": at("setup_commands", value=["pip install ray --region us-west-2"]),
}
SPOT_NODE = (TYPES, "gpu_spot", "node_config")
SPOT, IS_SPOT = "InstanceMarketOptions", {"MarketType": "spot"}
BROKEN_AWS = {
    "the whole world": at("provider", "security_group", value={"IpRanges": [{"CidrIp": "::/0"}]}),
    "cache_stopped_nodes": at("provider", "cache_stopped_nodes", value=True),
    "several zones": at("provider", "availability_zone", value="us-west-2a"),
    "of Ray's making": at("provider", "security_group", value={"GroupName": "wsss"}),
    "cap the workers": at("max_workers", value=1000),
    "--region must be": at("provider", "region", value="eu-central-1"),
    "min_workers must be 0": at(TYPES, "gpu_on_demand", "min_workers", value=1),
    "HttpTokens": at(*SPOT_NODE, "MetadataOptions", value={"HttpTokens": "optional"}),
    "encrypted": at(*SPOT_NODE, "BlockDeviceMappings", value=[{"Ebs": {"VolumeSize": 100}}]),
    "go with their machine": at(*SPOT_NODE, "BlockDeviceMappings", value=[]),
    "SecurityGroupIds": at(TYPES, "head", "node_config", "SecurityGroupIds", value=[]),
    "IamInstanceProfile": at(TYPES, "head", "node_config", "IamInstanceProfile", value={}),
    "head must be on demand": at(TYPES, "head", "node_config", SPOT, value=IS_SPOT),
    "a spot type and an on-demand": at(TYPES, "gpu_on_demand", "node_config", SPOT, value=IS_SPOT),
    "higher priority": at(TYPES, "gpu_on_demand", "priority", value=10),
}


@pytest.mark.parametrize("rule", BROKEN_ANYWHERE)
@pytest.mark.parametrize("name", FILES)
def test_each_rule_notices_a_broken_file(name: str, rule: str) -> None:
    config = copy.deepcopy(load(name))
    BROKEN_ANYWHERE[rule](config)
    assert any(rule in finding for finding in lint.findings(config))


@pytest.mark.parametrize("rule", BROKEN_AWS)
def test_each_rule_for_aws_notices_a_broken_file(rule: str) -> None:
    # Through text, so that parts which YAML's anchors share are separate here.
    config = json.loads(json.dumps(load("cluster.yaml")))
    BROKEN_AWS[rule](config)
    assert any(rule in finding for finding in lint.findings(config))


def test_spot_machines_come_first_and_on_demand_ones_when_spot_is_refused() -> None:
    assert launched(spot_availability=1.0) == {"gpu_spot": 2}
    assert launched(spot_availability=0.0) == {"gpu_on_demand": 2}


def launched(spot_availability: float) -> dict[str, int]:
    """What Ray's autoscaler launches for two trials with the GPU each."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = AutoscalingConfig(load("cluster.yaml"), skip_content_hash=True)
    demand = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"GPU": 1})] * 2)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            node_type_configs=config.get_node_type_configs(),
            disable_launch_config_check=True,
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=demand,
            cloud_resource_availabilities={"gpu_spot": spot_availability},
            recoverable_resource_availabilities={"gpu_spot": spot_availability},
        )
    )
    assert not reply.infeasible_resource_requests
    return {launch.instance_type: launch.count for launch in reply.to_launch}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_valid_bash_and_stops_at_errors(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()


def test_every_script_and_file_that_a_cluster_file_names_exists() -> None:
    for name in FILES:
        config = load(name)
        for remote, local in config["file_mounts"].items():
            assert local == remote or (ROOT / local).exists()
        for key in ("setup", "head_setup", "head_start_ray", "worker_start_ray"):
            for command in config[f"{key}_commands"]:
                if "cluster/" in command:
                    script = command.split("~/wsss-sweeps/")[1].split()[0]
                    assert (ROOT / script).is_file()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**ONPREM, "HEAD": "x"}, "HEAD does not occur"),
        ({"HEAD_HOST": "node0"}, "no value for SSH_KEY, SSH_USER, STORE"),
        ({**ONPREM, "STORE": "/shared; rm -rf ~"}, "only letters"),
        ({**ONPREM, "STORE": "$(id)"}, "only letters"),
        ({**ONPREM, "SSH_USER": "me\nprovider: x"}, "only letters"),
        ({**ONPREM, "HEAD_HOST": "-oProxyCommand=x"}, "only letters"),
    ],
)
def test_filling_refuses_what_would_not_stay_a_value(values: dict[str, str], message: str) -> None:
    with pytest.raises(fill.FillError, match=message):
        fill.fill((ROOT / "cluster.onprem.yaml").read_text(), values)


def test_a_file_is_named_whether_it_is_right_or_cannot_be_read_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, said in (("a: [b", "expected"), ("a: b", "KeyError('provider')"), ("", "NoneType")):
        (tmp_path / "edited.yaml").write_text(text)
        assert lint.main([str(tmp_path / "edited.yaml")]) == 2
        assert said in capsys.readouterr().err
    assert lint.main([str(ROOT / "cluster.yaml")]) == 0
    assert capsys.readouterr().out == f"{ROOT / 'cluster.yaml'}: follows all rules\n"
    values = [f"{name}={value}" for name, value in ONPREM.items()]
    words = [str(ROOT / "cluster.onprem.yaml"), "--output", str(tmp_path / "none" / "x.yaml")]
    assert fill.main([*words, *values]) == 2
    assert "none/x.yaml" in capsys.readouterr().err


def test_secrets_are_made_once_with_mode_600_and_never_printed(tmp_path: Path) -> None:
    def run(*words: str, home: Path = tmp_path, code: int = 0) -> str:
        command = [sys.executable, "-m", "sweeps.cluster.secrets", *words]
        changed = {**os.environ, "HOME": str(home)}
        done = subprocess.run(
            command, env=changed, cwd=ROOT, check=False, capture_output=True, text=True
        )
        assert done.returncode == code
        return done.stdout + done.stderr

    assert "usage:" in run("--help")
    assert "error: ~: no home folder is known" in run(home=Path("/nonexistent"), code=2)
    assert list(tmp_path.iterdir()) == []
    first = run()
    files = [tmp_path / ".ray/auth_token", tmp_path / ".config/wsss/mlflow_password"]
    contents = [file.read_text() for file in files]
    assert all(len(content) >= 48 for content in contents)
    assert contents[0] != contents[1]
    files[0].chmod(0o644)  # as Ray itself leaves it
    second = run()
    assert [file.read_text() for file in files] == contents
    for file in [*files, tmp_path / ".config/wsss/node.env"]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "mode set to 600" in second
    assert not any(content in first + second for content in contents)
    assert sorted(path.name for path in (tmp_path / ".ray").iterdir()) == ["auth_token"]


def test_an_empty_or_linked_secret_is_refused(tmp_path: Path) -> None:
    token = tmp_path / ".ray/auth_token"
    token.parent.mkdir()
    for nothing in ("", "\n"):
        token.write_text(nothing)
        with pytest.raises(SecretError, match="is empty"):
            ensure_secrets(tmp_path)
    token.unlink()
    token.symlink_to("/etc/hostname")
    with pytest.raises(SecretError, match="not a plain file"):
        ensure_secrets(tmp_path)


def node(script: str, *options: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    command = ["bash", str(ROOT / "cluster" / script), *options]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_node_exports_the_store_and_demands_the_token(tmp_path: Path) -> None:
    store = "s3://bucket/it's here"
    written = node("node_env.sh", "--store", store, "--tmp", str(tmp_path / "t"), home=tmp_path)
    assert written.returncode == 0, written.stderr
    (tmp_path / ".config/wsss").mkdir(parents=True)
    (tmp_path / ".config/wsss/node.env").write_text("AWS_ENDPOINT_URL=http://127.0.0.1:9\n")
    show = '. ~/.wsss/env.sh; env -0 | grep -z -E "^(WSSS|RAY|AWS|OMP)_" | sort -z | tr "\\0" "\\n"'
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    shown = subprocess.run(
        ["bash", "-c", show], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == [
        "AWS_ENDPOINT_URL=http://127.0.0.1:9",
        "RAY_AUTH_MODE=token",
        f"RAY_TMPDIR={tmp_path}/t",
        "RAY_USAGE_STATS_ENABLED=0",
        f"WSSS_STORE={store}",
    ]
    assert stat.S_IMODE((tmp_path / ".wsss/env.sh").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o700


def test_stopping_ray_on_a_host_ends_this_cluster_and_no_other(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    assert node("node_env.sh", "--store", "x", "--tmp", str(ours), home=tmp_path).returncode == 0

    def process(folder: Path, argument: str) -> subprocess.Popen[bytes]:
        wait = "import time; time.sleep(120)"
        environment = {**os.environ, "RAY_TMPDIR": str(folder)}
        return subprocess.Popen([sys.executable, "-c", wait, argument], env=environment)

    client = "ray.util.client.server"  # the one which does not name its session
    mine = [process(ours, f"--dir={ours}/ray/session_1/logs"), process(ours, client)]
    foreign = [process(others, f"--dir={others}/ray/session_1/logs"), process(others, client)]
    foreign.append(process(ours, "mlflow"))
    try:
        stopped = node("stop_ray.sh", home=tmp_path)
        assert stopped.returncode == 0, stopped.stderr
        assert [ended.wait(timeout=10) for ended in mine] == [-15, -15]  # SIGTERM
        assert [kept.poll() for kept in foreign] == [None, None, None]
    finally:
        for started in [*mine, *foreign]:
            started.kill()
            started.wait()


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (2, 0), (3, 1)])
def test_a_command_that_fails_is_tried_three_times(
    tmp_path: Path, failures: int, code: int
) -> None:
    tried = tmp_path / "tried"
    command = f'echo x >> "{tried}"; [ "$(wc -l < "{tried}")" -gt {failures} ]'
    assert node("try_thrice.sh", "bash", "-c", command, home=tmp_path).returncode == code
    assert len(tried.read_text().split()) == min(failures + 1, 3)


@pytest.mark.skipif(not BIN, reason="PostgreSQL is not installed")
def test_a_database_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # open to PostgreSQL's user, and short
    folder.chmod(0o755)
    assert node("node_env.sh", "--store", "x", "--tmp", str(folder / "t"), home=tmp_path)
    (tmp_path / ".config/wsss").mkdir(parents=True)
    variables = f"WSSS_PG_DIR={folder}/pg\nPATH={folder}:$PATH\n"
    (tmp_path / ".config/wsss/node.env").write_text(variables)
    (folder / "tee").write_text("#!/bin/sh\nexit 1\n")  # in place of its settings
    (folder / "tee").chmod(0o755)
    try:
        assert node("start_postgres.sh", home=tmp_path).returncode == 1
        (folder / "tee").unlink()
        started = node("start_postgres.sh", home=tmp_path)
        assert started.returncode == 0, started.stderr
        assert f"PostgreSQL: {folder}/pg/socket" in started.stdout
    finally:
        stop = [f"{BIN[-1]}/pg_ctl", "stop", "-m", "fast", "-D", f"{folder}/pg/data"]
        as_owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run([*as_owner, *stop], capture_output=True, cwd="/", check=False)
        shutil.rmtree(folder)


def test_mlflow_is_not_started_without_a_password(tmp_path: Path) -> None:
    assert node("node_env.sh", "--store", "x", "--tmp", str(tmp_path / "t"), home=tmp_path)
    refused = node("start_mlflow.sh", home=tmp_path)
    assert refused.returncode == 2
    assert "python -m sweeps.cluster.secrets" in refused.stderr
