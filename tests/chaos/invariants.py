"""Whether a broken sweep came to the same as an unbroken one: its store, and its MLflow database.

Times differ between any two runs and are left out; everything else has to be equal to the bit.
"""

from pathlib import Path
from typing import Any

import torch
from mlflow_file import mlflow_runs
from outcomes import results

from sweeps.store.store import Folder

TIMES = ("seconds", "images_per_second", "hours")


def assert_nothing_lost(broken: Path, unbroken: Path) -> None:
    """Compare two stores, and MLflow's files in them."""
    assert_equal_stores(broken, unbroken)
    assert_equal_tracking(broken / "mlflow.db", unbroken / "mlflow.db")


def assert_equal_stores(broken: Path, unbroken: Path) -> None:
    """Compare figures, losses of every epoch and the weights of the last checkpoint."""
    assert figures(broken) == figures(unbroken)
    assert losses(broken) == losses(unbroken)
    ours, theirs = weights(broken), weights(unbroken)
    assert ours.keys() == theirs.keys()
    for name, model in ours.items():
        assert model.keys() == theirs[name].keys()
        assert all(torch.equal(model[key], theirs[name][key]) for key in model), name


def figures(store: Path) -> dict[str, Any]:
    return {name: _timeless(found) for name, found in results(store).items()}


def losses(store: Path) -> dict[str, dict[int, Any]]:
    """Training -> epoch -> its record; of a repeated epoch the last."""
    return {
        path.name: {record["epoch"]: _timeless(record) for record in Folder(path).epochs()}
        for path in (store / "cams").glob("*")
    }


def weights(store: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for folder in (store / "cams").glob("*/checkpoints"):
        last = sorted(folder.glob("epoch_*.pt"))[-1]
        found[folder.parent.name] = torch.load(last, weights_only=True)["model"]
    return found


def assert_equal_tracking(broken: Path, unbroken: Path) -> None:
    """Compare two SQLite files of MLflow: one run per trial, params, metrics by step, tags."""
    ours, theirs = tracked(broken), tracked(unbroken)
    assert ours.keys() == theirs.keys()
    for name, run in ours.items():
        assert {name: run} == {name: theirs[name]}


def tracked(database: Path) -> dict[str, dict[str, Any]]:
    """Run id of ours, or "sweep" -> what MLflow has of it."""
    found: dict[str, dict[str, Any]] = {}
    for run in mlflow_runs(database):
        name = run.tags.get("wsss.run_id", "sweep")
        assert name not in found, f"two runs of {name}"
        kept = {key: values for key, values in run.metrics.items() if not is_time(key)}
        found[name] = {
            "status": run.status,
            "params": run.params,
            # The sweep's own count is logged at each end of the command.
            "metrics": kept if name != "sweep" else {key: run.last(key) for key in kept},
            "tags": {key: value for key, value in run.tags.items() if is_ours(key)},
        }
    return found


def is_ours(tag: str) -> bool:
    if tag == "wsss.store":  # whose runs they are, on a server
        return False
    return tag.startswith("wsss.") or tag in ("mlflow.runName", "mlflow.note.content")


def is_time(key: str) -> bool:
    return any(word in key for word in TIMES)


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not is_time(key)}
