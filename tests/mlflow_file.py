"""MLflow's runs, read from its SQLite file: importing MLflow takes seconds, and warns."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class MlflowRun:
    """What a person sees of a run."""

    id: str
    status: str
    artifact_uri: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Step and value, in the order of the steps."""

    def last(self, metric: str) -> float:
        """Return a metric's value at its last step."""
        return self.metrics[metric][-1][1]


def mlflow_runs(path: Path) -> list[MlflowRun]:
    """Read the runs of all experiments."""
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_uuid, status, artifact_uri FROM runs")
        runs = {row[0]: MlflowRun(*row) for row in rows}
        for run_id, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
            runs[run_id].tags[key] = value
        for run_id, key, value in database.execute("SELECT run_uuid, key, value FROM params"):
            runs[run_id].params[key] = value
        steps = "SELECT run_uuid, key, step, value FROM metrics ORDER BY step"
        for run_id, key, step, value in database.execute(steps):
            runs[run_id].metrics.setdefault(key, []).append((step, value))
    return list(runs.values())
