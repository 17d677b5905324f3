"""The command `sweeps doctor`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.errors import explained

if TYPE_CHECKING:
    from sweeps.cluster.doctor import Check

JSON_LINE = "[sweeps] checks "


def doctor(
    address: Annotated[
        str | None,
        typer.Option(help="http://... of a job server, or a Ray address: check all its nodes too"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="store to check; of a cluster: absolute path; default: results here"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="data set to check")] = None,
    weights: Annotated[str | None, typer.Option(help="file of initial weights to check")] = None,
    mlflow: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="tracking server to check")
    ] = "",
    lock: Annotated[Path, typer.Option(help="versions to compare with")] = Path(
        "requirements.lock"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="print the checks as JSON")] = False,
    working_dir: Annotated[
        Path, typer.Option("--working-dir", help="the project's folder")
    ] = Path(),
    python: Annotated[
        str, typer.Option(envvar="WSSS_CLUSTER_PYTHON", help="Python interpreter on the head")
    ] = "python",
) -> None:
    """Say what is open, missing, unreachable or mismatched, with a remedy each.

    Without --address: this machine. With it, --store, --data and --weights are the cluster's.
    The exit code is 1 if there is any problem.
    """
    from rich.console import Console

    from sweeps.cluster import doctor as shown

    with explained():
        root = working_dir.absolute()
        checks = _local(root, root / lock, mlflow, address)
        if address is None:
            checks += _files(store, data, weights)
        elif address.startswith("http"):
            checks += _through_job_server(address, store, data, weights, root, python, checks)
        else:
            checks += _files(store, data, weights) + _nodes(address, root / lock, store, data)
        print(shown.as_json(checks)) if as_json else shown.print_checks(Console(), checks)
        raise typer.Exit(shown.exit_code(checks))


def _local(root: Path, lock: Path, mlflow: str, address: str | None) -> "list[Check]":
    from sweeps.cluster import doctor_checks as machine
    from sweeps.cluster import doctor_network as network
    from sweeps.cluster.doctor import Check

    if lock.exists():
        checks = machine.check_versions(machine.locked_versions(lock))
    else:
        checks = [Check("packages", "warning", f"{lock}: missing", "name the file with --lock")]
    checks += [*machine.check_token(os.environ), *machine.check_limits(), machine.check_gpus()]
    checks += [machine.check_checkout(root), network.check_mlflow(mlflow)]
    checks += network.check_ports(network.listening())
    if address and address.startswith("http"):
        checks += network.check_job_server(address.rstrip("/"))
    return checks


def _files(store: str | None, data: str | None, weights: str | None) -> "list[Check]":
    from sweeps.cluster import doctor_checks as machine
    from sweeps.cluster.doctor import Check

    checks: list[Check] = []
    if store and "://" in store:
        checks.append(machine.check_bucket(store))
    else:
        checks += machine.check_store(Path(store or "results").absolute())
    if data:
        checks.append(machine.check_data(Path(data), ["train", "train_aug"]))
    from wsss.weights import NAMES

    if weights and weights not in NAMES:
        checks.append(machine.check_weights(Path(weights)))
    return checks


def _nodes(address: str, lock: Path, store: str | None, data: str | None) -> "list[Check]":
    from sweeps.cluster.doctor_checks import locked_versions
    from sweeps.cluster.doctor_nodes import check_nodes
    from sweeps.run.shards import joined

    locked = locked_versions(lock) if lock.exists() else {}
    with joined(address):
        shared = Path(store) if store and "://" not in store else None
        return check_nodes(locked, Path(data) if data else None, shared)


def _through_job_server(
    address: str,
    store: str | None,
    data: str | None,
    weights: str | None,
    root: Path,
    python: str,
    before: "list[Check]",
) -> "list[Check]":
    """Run this command on the head, which reaches all nodes, and mark its checks as the head's."""
    from dataclasses import replace

    from sweeps.cluster.connection import Connection
    from sweeps.cluster.doctor import Check, from_json
    from sweeps.cluster.tool import run_tool

    if any(check.name == "job server" and check.state == "problem" for check in before):
        return []
    words = ["sweeps.cli.doctor", "--address", "auto", "--json"]
    for option, value in (("--store", store), ("--data", data), ("--weights", weights)):
        words += [option, value] if value else []
    done = run_tool(Connection(address), words, root=root, store=store, python=python)
    lines = [line for line in done.text.splitlines() if line.startswith("[{")]
    if not lines:
        text = f"no report from the head: {done.text.strip()[-500:]}"
        return [Check("cluster", "problem", text, "see `sweeps logs`; is the environment there?")]
    return [check if check.node else replace(check, node="head") for check in from_json(lines[-1])]


if __name__ == "__main__":
    typer.run(doctor)
