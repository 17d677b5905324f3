"""Commands of both programs: in this process, which has loaded torch anyway, or in a new one."""

import os
import sys
from collections.abc import Mapping

from click.testing import Result
from typer.testing import CliRunner

from sweeps.cli import app, method

APPS = {"sweeps": app, "wsss": method.app}
SHRUNK = {
    "train.epochs": 1,
    "train.crop_size": 48,
    "train.min_long_side": 48,
    "train.max_long_side": 80,
    "train.batch_size": 4,
    "labels.scales": "[0.5]",
}
"""Laid over `tiny`: an epoch over the drawn tree takes a fifth second."""
NARROW = {"network.fpn_channels": 16, "network.atrous_channels": 16}


def sweeps(*words: object, **variables: str | None) -> Result:
    """Run a command of `sweeps` in this process; variables: of its environment, None: without.

    Without MLFLOW_TRACKING_URI, unless it is named: MLflow's runs are in the store.
    """
    return program("sweeps", *words, **variables)


def wsss(*words: object) -> Result:
    """Run a command of `wsss` in this process."""
    return program("wsss", *words)


def program(name: object, *words: object, **variables: str | None) -> Result:
    """Run a command of either program in this process."""
    return CliRunner(env={"MLFLOW_TRACKING_URI": None} | variables).invoke(
        APPS[str(name)], [str(word) for word in words]
    )


def options(settings: Mapping[str, object], option: str = "--set") -> list[str]:
    """Return the words that give these settings."""
    return [word for key, value in settings.items() for word in (option, f"{key}={value}")]


def process(*words: object) -> list[str]:
    """Return the words of a command of `sweeps` in a process of its own."""
    return [sys.executable, "-m", "sweeps", *map(str, words)]


def environment(**changes: str) -> dict[str, str]:
    """Return ours for such a process, with one thread, and MLflow's runs in its store."""
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | changes
