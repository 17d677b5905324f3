"""Compares the cluster's sweep with a local one: results, losses, MLflow."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from hosts import HostError

TESTS = Path(__file__).parents[2] / "tests"
sys.path += [str(TESTS), str(TESTS / "chaos")]

MAX_RUNS = 100
"""Most runs that MLflow takes in one request."""


def equal_stores(ours: Path, theirs: Path) -> str:
    """Compare figures and the losses of every epoch; return how much was compared.

    Raises HostError with the first difference.
    """
    from invariants import figures, losses

    num = 0
    for read in (figures, losses):
        _equal(read(ours), read(theirs), read.__name__)
        num += len(read(ours))
    if not num:
        raise HostError(f"{ours}: nothing in it to compare")
    num_epochs = sum(len(epochs) for epochs in losses(ours).values())
    return f"{len(figures(ours))} results and {num_epochs} epochs"


def tracked(uri: str) -> dict[str, dict[str, Any]]:
    """Run id of ours, or "sweep" -> what MLflow has: status, params, tags, metrics by step."""
    from invariants import is_ours, is_time
    from mlflow.tracking import MlflowClient  # noqa: TID251

    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    found: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for run in client.search_runs(experiments, max_results=MAX_RUNS):
        name = names[run.info.run_id] = run.data.tags.get("wsss.run_id", "sweep")
        if name in found:
            raise HostError(f"{uri}: two runs of {name}")
        found[name] = {
            "status": run.info.status,
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if is_ours(key)},
            "metrics": {key: set() for key in run.data.metrics if not is_time(key)},
        }
    for key in sorted({key for run in found.values() for key in run["metrics"]}):
        having = [id_ for id_, name in names.items() if key in found[name]["metrics"]]
        for id_, step, value in _points(client, uri, having, key):
            found[names[id_]]["metrics"][key].add((step, value))
    for name, run in found.items():
        # The sweep's own count is logged at each end of the command.
        start = -1 if name == "sweep" else 0
        run["metrics"] = {key: sorted(points)[start:] for key, points in run["metrics"].items()}
    return found


def _points(
    client: Any, uri: str, run_ids: list[str], key: str
) -> Iterator[tuple[str, int, float]]:
    """Yield run id, step and value of each point of a metric.

    A server is asked for all runs at once, as by its own pages: with a password to check, a busy
    server takes half a second per request, and there are a thousand pairs of run and key.
    """
    if not uri.startswith("http"):
        for id_ in run_ids:
            yield from ((id_, m.step, m.value) for m in client.get_metric_history(id_, key))
        return
    answer = requests.get(
        f"{uri}/ajax-api/2.0/mlflow/metrics/get-history-bulk",
        params=[("metric_key", key), ("max_results", "25000"), *(("run_id", i) for i in run_ids)],
        auth=(os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]),
        timeout=60,
    )
    answer.raise_for_status()
    for point in answer.json().get("metrics", []):
        yield point["run_id"], int(point.get("step", 0)), float(point["value"])


def equal_tracking(ours: str, theirs: str) -> str:
    """Compare two MLflow servers or databases; return how much was compared.

    Raises HostError with the first difference, or if a run has not ended well.
    """
    here, there = tracked(ours), tracked(theirs)
    _equal(here, there, "MLflow")
    if unfinished := {run["status"] for run in here.values()} - {"FINISHED"}:
        raise HostError(f"{ours}: runs are {', '.join(sorted(unfinished))}")
    num_points = sum(len(points) for run in here.values() for points in run["metrics"].values())
    if len(here) < 2 or not num_points:
        raise HostError(f"{ours}: nothing in it to compare")
    return f"{len(here)} runs and {num_points} points of metrics"


def _equal(ours: Any, theirs: Any, where: str) -> None:
    """Raise HostError naming the first place where two nested dicts differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if extra := sorted(map(str, ours.keys() ^ theirs.keys())):
            raise HostError(f"{where}: only in one of the two: {', '.join(extra[:5])}")
        for key, value in ours.items():
            _equal(value, theirs[key], f"{where}/{key}")
    elif ours != theirs:
        raise HostError(f"{where}: {ours!r} on the cluster, {theirs!r} here")
