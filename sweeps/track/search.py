"""A search in MLflow: an experiment of its own, a parent run, a child run per trial.

Everything logged is read from the search's history, and runs are found by tag, so whatever a
server missed is logged by the next sync. Nothing here raises into a search; `problem` says what
went wrong last.
"""

import math
import time
from collections.abc import Iterable
from typing import Any

from mlflow.entities import Metric, Param, Run
from mlflow.tracking import MlflowClient

from sweeps.plan.search import Search
from sweeps.plan.search_history import History, SearchTrial, best_trials
from sweeps.report.live.search_render import render_search
from sweeps.store.store import Store
from sweeps.track.client import experiment_of, find_run, open_client, reason, tracking_uri
from sweeps.track.tracker import MAX_PARAM_LENGTH, PARENT, WARNING
from wsss.identity import cam_id

EXPERIMENT = "wsss-search"
SEARCH, TRIAL, ROLE = "wsss.search", "wsss.search_trial", "wsss.role"
OBJECTIVE, HELD_OUT, BEST = "objective/search_half", "objective/held_out", "objective/best_so_far"
EPOCH = "train/epoch"
REFERENCE = "reference"
"""The paper's setting, which is trained and scored like a trial but not drawn."""

STATUSES = {
    "finished": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "not learning": "FAILED",
    "error": "FAILED",
}  # fmt: skip


class SearchTracker:
    """Logs one search; its `sync` is what a TrackingThread calls."""

    def __init__(self, store: Store, search: Search) -> None:
        self.store, self.search = store, search
        self.history = History(search.folder(store))
        self.uri = tracking_uri(store)
        self.problem: str | None = None
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""
        self._best_step = 0

    def sync(self, trials: Iterable[SearchTrial], *, running: frozenset[str] = frozenset()) -> bool:
        """Log what MLflow lacks of these trials, and the best so far.

        `running` holds the `run_id`s now at work. Returns whether MLflow is up to date; if not,
        `problem` says why.
        """
        try:
            self._connect()
            known = {trial.run_id: trial for trial in self.history.trials()}
            for key in {trial.run_id for trial in trials} & known.keys():
                self._sync_trial(known[key], running=key in running)
            self._log_best(list(known.values()))
        except Exception as error:  # whatever a tracking server does, the search goes on
            return self._failed(error)
        self.problem = None
        return True

    def finish(self, *, status: str) -> bool:
        """Log the closing scores and the table, and end the parent run with an MLflow status."""
        try:
            client = self._connect()
            held_out = self.history.held_out()
            for trial in self.history.trials():
                if row := held_out.get(trial.cam_id):
                    run = self._child(f"{trial.number}", trial.settings)
                    self._log(run.info.run_id, {HELD_OUT: row["held_out"]}, step=0)
            if row := held_out.get(cam_id(self.search.base)):
                self._log_reference(row)
            if (best := best_trials(self.history.trials(), 1)) and best[0].cam_id in held_out:
                figure = held_out[best[0].cam_id]["held_out"]
                self._log(self._parent_id, {"objective/held_out_best": figure}, step=0)
            table = render_search(self.search, self.history)
            client.log_text(self._parent_id, table, "search.txt")
            client.set_terminated(self._parent_id, status)
        except Exception as error:
            return self._failed(error)
        return True

    def _failed(self, error: Exception) -> bool:
        self.problem = reason(error)
        self._client = None
        return False

    def _connect(self) -> MlflowClient:
        """Return the client, with the experiment and the search's parent run in place."""
        if self._client is not None:
            return self._client
        client = open_client(self.uri)
        self._experiment_id = experiment_of(client, EXPERIMENT, self.store)
        self._client = client
        parent = self._find({SEARCH: self.search.name, ROLE: "search"})
        if parent is None:
            tags = {**self._tags("search"), "mlflow.source.name": "sweeps search"}
            name = f"search {self.search.name}"
            parent = client.create_run(self._experiment_id, run_name=name, tags=tags)
            params: dict[str, Any] = {"rng_seed": self.search.rng_seed}
            params |= {"objective": self.search.objective}
            params |= {f"space.{r.key}": str(r).split("=")[1] for r in self.search.space.ranges}
            self._log_params(parent.info.run_id, params)
        else:
            client.update_run(parent.info.run_id, status="RUNNING")
        self._parent_id = parent.info.run_id
        return client

    def _tags(self, role: str) -> dict[str, str]:
        data = self.search.base.data
        return {
            SEARCH: self.search.name,
            ROLE: role,
            "wsss.preset": self.search.preset,
            "wsss.data": f"{data.name}:{data.fingerprint}",
            "mlflow.source.type": "LOCAL",
            "mlflow.note.content": self.search.describe(),
        }

    def _find(self, tags: dict[str, str]) -> Run | None:
        assert self._client is not None
        return find_run(self._client, self._experiment_id, tags)

    def _child(self, key: str, settings: dict[str, float]) -> Run:
        """Return the run of a trial (or of the reference), made if there is none yet."""
        client = self._connect()
        run = self._find({SEARCH: self.search.name, TRIAL: key})
        if run is not None:
            return run
        config = self.search.config(settings)
        role = REFERENCE if key == REFERENCE else "trial"
        drawn = " ".join(f"{name.split('.')[-1]}={value:g}" for name, value in settings.items())
        run = client.create_run(
            self._experiment_id,
            run_name=f"{key} {drawn}" if drawn else "reference: the paper's setting",
            tags={
                **self._tags(role),
                TRIAL: key,
                PARENT: self._parent_id,
                "wsss.cam_id": cam_id(config),
            },
        )
        self._log_params(run.info.run_id, config.flat())
        return run

    def _sync_trial(self, trial: SearchTrial, *, running: bool) -> None:
        client = self._connect()
        run = self._child(f"{trial.number}", trial.settings)
        run_id, logged = run.info.run_id, run.data.metrics.get(EPOCH, 0)
        losses = {record["epoch"]: record for record in self.store.cam(trial.cam_id).epochs()}
        for record in trial.epochs:
            if record["epoch"] > logged:
                values = {
                    OBJECTIVE: record["objective"],
                    "objective/threshold": record["threshold"],
                }
                values |= _train_metrics(losses.get(int(record["epoch"]), {}))
                # The epoch goes last: a run that has it has all of the epoch.
                self._log(run_id, values | {EPOCH: record["epoch"]}, step=int(record["epoch"]))
        if trial.ended:
            client.set_tag(run_id, "wsss.stopped_early", str(trial.status == "stopped").lower())
        if trial.warning:
            client.set_tag(run_id, WARNING, trial.warning[:400])
        elif WARNING in run.data.tags:
            client.delete_tag(run_id, WARNING)
        if trial.message:
            client.set_tag(run_id, "wsss.failure", trial.message[:400])
        status = STATUSES.get(trial.status, "RUNNING" if running else "KILLED")
        if status == "RUNNING":
            if run.info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
        elif run.info.status != status:
            client.set_terminated(run_id, status)

    def _log_reference(self, row: dict[str, float]) -> None:
        client = self._connect()
        run_id = self._child(REFERENCE, {}).info.run_id
        values = {OBJECTIVE: row["objective"], HELD_OUT: row["held_out"]}
        self._log(run_id, values | {"objective/threshold": row["threshold"]}, step=0)
        client.set_terminated(run_id, "FINISHED")
        self._log(self._parent_id, {"objective/held_out_paper_setting": row["held_out"]}, step=0)

    def _log_best(self, trials: list[SearchTrial]) -> None:
        """Log the best finished trial so far on the parent; the step counts ended trials."""
        ended = [trial for trial in trials if trial.ended]
        finished = best_trials(ended, 1)
        if not finished or len(ended) == self._best_step:
            return
        best = finished[0]
        values = {BEST: best.objective or 0.0}
        self._log(self._parent_id, values, step=len(ended))
        self._best_step = len(ended)
        self._connect().set_tag(self._parent_id, "wsss.best_trial", f"{best.number}")

    def _log(self, run_id: str, values: dict[str, float], *, step: int) -> None:
        now = int(time.time() * 1000)
        batch = [
            Metric(key, float(value), now, step)
            for key, value in values.items()
            if math.isfinite(value)
        ]
        self._connect().log_batch(run_id, metrics=batch)

    def _log_params(self, run_id: str, values: dict[str, Any]) -> None:
        params = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in values.items()]
        self._connect().log_batch(run_id, params=params)


def _train_metrics(record: dict[str, Any]) -> dict[str, float]:
    """Return an epoch's losses from the store's record of the training."""
    return {
        f"train/{key}": float(value)
        for key, value in record.items()
        if key.startswith("loss") and value is not None
    }
