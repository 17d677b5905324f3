"""The command `sweeps doctor`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.errors import explained

if TYPE_CHECKING:
    from sweeps.cluster.doctor.check import Check


@dataclass(frozen=True)
class Files:
    """What to check beside the machine itself; paths are the cluster's if one is asked."""

    store: str | None
    data: str | None
    weights: str | None

    @property
    def folder(self) -> Path | None:
        """The store if it is a folder that was named."""
        return Path(self.store) if self.store and "://" not in self.store else None


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

    from sweeps.cluster.doctor.check import exit_code, print_checks, to_json

    with explained():
        root, files = working_dir.absolute(), Files(store, data, weights)
        checks = _this_machine(root, root / lock, mlflow, address)
        if address is None:
            checks += _check_files(files)
        elif not address.startswith("http"):
            checks += _check_files(files) + _check_nodes(address, root / lock, files)
        elif not any(check.name == "job server" and check.state == "problem" for check in checks):
            checks += _from_the_head(address, files, root, python)
        print(to_json(checks)) if as_json else print_checks(Console(), checks)
        raise typer.Exit(exit_code(checks))


def _this_machine(root: Path, lock: Path, mlflow: str, address: str | None) -> "list[Check]":
    from sweeps.cluster.doctor import machine
    from sweeps.cluster.doctor.check import Check

    if lock.exists():
        checks = machine.check_versions(machine.locked_versions(lock))
    else:
        checks = [Check("packages", "warning", f"{lock}: missing", "name the file with --lock")]
    checks += [*machine.check_token(os.environ), *machine.check_limits(), machine.check_gpus()]
    checks += [machine.check_checkout(root), machine.check_mlflow(mlflow)]
    checks += machine.check_ports(machine.listening())
    if address and address.startswith("http"):
        checks += machine.check_job_server(address.rstrip("/"))
    return checks


def _check_files(files: Files) -> "list[Check]":
    from sweeps.cluster.doctor import machine
    from wsss.weights import NAMES

    if files.store and "://" in files.store:
        checks = [machine.check_bucket(files.store)]
    else:
        checks = machine.check_store((files.folder or Path("results")).absolute())
    if files.data:
        checks.append(machine.check_data(Path(files.data), ["train", "train_aug"]))
    if files.weights and files.weights not in NAMES:
        checks.append(machine.check_weights(Path(files.weights)))
    return checks


def _check_nodes(address: str, lock: Path, files: Files) -> "list[Check]":
    from sweeps.cluster.doctor.machine import locked_versions
    from sweeps.cluster.doctor.nodes import check_nodes
    from sweeps.run.resources import Resources
    from sweeps.run.start_ray import running_ray

    locked = locked_versions(lock) if lock.exists() else {}
    with running_ray(Resources(address)):
        return check_nodes(locked, Path(files.data) if files.data else None, files.folder)


def _from_the_head(address: str, files: Files, root: Path, python: str) -> "list[Check]":
    """Run this command on the head, which reaches all nodes, and mark its checks as the head's."""
    from dataclasses import replace

    from sweeps.cluster.doctor.check import Check, from_json
    from sweeps.cluster.job_server import JobServer
    from sweeps.cluster.jobs import run_tool

    words = ["sweeps", "doctor", "--address", "auto", "--json"]
    named = {"--store": files.store, "--data": files.data, "--weights": files.weights}
    words += [word for option, value in named.items() if value for word in (option, value)]
    done = run_tool(JobServer(address), words, root=root, store=files.store, python=python)
    lines = [line for line in done.text.splitlines() if line.startswith("[{")]
    if not lines:
        text = f"no report from the head: {done.text.strip()[-500:]}"
        remedy = f"is the project's environment there, at {python} (--python)?"
        return [Check("cluster", "problem", text, remedy)]
    return [check if check.node else replace(check, node="head") for check in from_json(lines[-1])]
