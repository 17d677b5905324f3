"""All checks of `sweeps doctor`: of this machine, and of a cluster if an address is given."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sweeps.cluster.doctor import machine
from sweeps.cluster.doctor.check import Check, from_json
from sweeps.run.ray.address import check_address
from sweeps.run.ray.resources import Resources
from wsss.basics.errors import ForeseenError
from wsss.weights import NAMES

# Ray is imported where a cluster is asked: it takes seconds, and has to be reached first.


def examine(
    address: str | None,
    files: Mapping[str, str],
    *,
    root: Path,
    lock: Path,
    mlflow: str,
    python: str,
) -> list[Check]:
    """Check this machine, and the cluster at an address of Ray or of a job server (http://...).

    files: the store, data and weights to check, as far as named; paths are the cluster's if one is
    asked. root: the project's folder; lock: the versions to compare with; mlflow: address of the
    tracking server; python: the interpreter on the head. Raises ForeseenError for what is no
    address.
    """
    server = address if address and address.startswith("http") else None
    if address is not None and not server:
        check_address(address)
    checks = _this_machine(lock, mlflow)
    checks += [machine.check_job_server(server.rstrip("/"))] if server else _check_files(files)
    try:
        if server:
            is_silent = checks[-1].found.endswith(machine.NO_ANSWER)  # the job server
            checks += [] if is_silent else _from_the_head(server, files, root, python)
        elif address is not None:
            checks += _check_nodes(address, lock, files)
    except ForeseenError as error:
        checks.append(Check.of(error, "cluster"))
    return checks


def _this_machine(lock: Path, mlflow: str) -> list[Check]:
    if lock.exists():
        checks = machine.check_versions(machine.locked_versions(lock))
    else:
        checks = [Check("packages", "warning", f"{lock}: missing", "name the file with --lock")]
    checks += [*machine.check_token(os.environ), *machine.check_limits(), machine.check_gpus()]
    checks += [machine.check_checkout(), machine.check_mlflow(mlflow)]
    return checks + machine.check_ports(machine.listening())


def _check_files(files: Mapping[str, str]) -> list[Check]:
    checks = machine.check_store(files.get("store", "results"))
    if "data" in files:
        checks.append(machine.check_data(Path(files["data"]), ["train", "train_aug"]))
    if files.get("weights", "none") not in NAMES:
        checks.append(machine.check_weights(Path(files["weights"])))
    return checks


def _check_nodes(address: str, lock: Path, files: Mapping[str, str]) -> list[Check]:
    resources = Resources(address)
    resources.require_cluster()
    from sweeps.cluster.doctor.nodes import check_nodes
    from sweeps.run.ray.start import running_ray

    locked = machine.locked_versions(lock) if lock.exists() else {}
    store, weights = files.get("store", ""), files.get("weights", "")
    bucket = store if "://" in store else ""
    with running_ray(resources):
        checks = check_nodes(
            locked,
            files.get("data", ""),
            "" if weights in NAMES else weights,
            "" if bucket else store,
        )
    return checks + (machine.check_store(bucket) if bucket else [])


def _from_the_head(address: str, files: Mapping[str, str], root: Path, python: str) -> list[Check]:
    """Run this command on the head, which reaches all nodes, and mark its checks as the head's."""
    from sweeps.cluster.job_server import JobServer
    from sweeps.cluster.jobs import run_tool

    words = ["sweeps", "doctor", "--address", "auto", "--json"]
    words += [word for name, value in files.items() for word in (f"--{name}", value)]
    server, store = JobServer(address), files.get("store")
    _, said = run_tool(server, words, root=root, store=store, python=python)
    lines = [line for line in said.splitlines() if line.startswith("[{")]
    if not lines:
        text = f"no report from the head: {said.strip()[-500:]}"
        remedy = f"is the project's environment there, at {python} (--python)?"
        return [Check("cluster", "problem", text, remedy)]
    return [check if check.node else replace(check, node="head") for check in from_json(lines[-1])]
