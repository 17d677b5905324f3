"""The runs of a search: a parent, a child per trial, and one for the base."""

from collections.abc import Collection, Iterator, Mapping

from sweeps.plan.search import History, Search, SearchTrial, best_trials
from sweeps.report.formats.write import as_text
from sweeps.report.search import search_document
from sweeps.store.store import Store
from sweeps.track import view
from sweeps.track.view import CAM_ID, ROLE, RunView, Summary, Tracked
from wsss.training.diagnosis.learning import find_dead_maps

SEARCH, TRIAL = "wsss.search", "wsss.search_trial"
OBJECTIVE, HELD_OUT, BEST = "objective/search_half", "objective/held_out", "objective/best_so_far"
THRESHOLD = "objective/threshold"
REFERENCE = "reference"
"""Role and id of the search's base, which is trained and scored like a trial."""

STATUSES = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "not learning": "FAILED",
    "error": "FAILED",
}


NOTE = """\
Searches: a run with the tag `wsss.role` = `trial` is one draw of settings, `reference` the base,
which has nothing drawn, `search` the run above those of one `sweeps search`.

`objective/...` is mIoU of pseudo-labels in percent, at one scale unless the search says otherwise:
not comparable with a table's.

- `objective/search_half`: on the half of the scored images whose pixel masks the search sees, per
  epoch
- `objective/held_out`: on the other half, of the best trials and the base
- `objective/threshold`: the threshold between object and background, from 0 to 1

`search.txt` among the artifacts of the search's run is the table of its trials.
"""


class SearchRuns(Tracked):
    """Describes the runs of one search."""

    kind, experiment, note = "search", "wsss-search", NOTE
    role, id_tag, shown = "trial", TRIAL, (OBJECTIVE, HELD_OUT, THRESHOLD)

    def __init__(self, store: Store, search: Search) -> None:
        super().__init__(store, search.name, search, search.describe(), "search")
        self.search = search
        self.params = {
            "rng_seed": search.rng_seed,
            "objective": search.objective,
            **{f"space.{r.key}": str(r).split("=")[1] for r in search.space},
        }
        self.history = History(search, store)

    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterator[RunView]:
        """Yield the runs of these trials, or of all trials and the reference."""
        held_out = self.history.held_out()
        for trial in self.history.trials():
            if wanted is None or trial.run_id in wanted:
                closing = held_out.get(trial.cam_id)
                yield self._trial(trial, closing, running=trial.run_id in running)
        if wanted is None and (row := held_out.get(self.history.base)):
            yield self._reference(row)

    @property
    def size(self) -> int:
        """The number of trials, and the reference."""
        return len(self.history.trials()) + 1

    def left(self) -> list[str | None]:
        """Return why drawn trials failed that have not ended.

        None for those still to be drawn, and for missing held-out scores.
        """
        trials = self.history.trials()
        left = [trial.message or None for trial in trials if not trial.ended]
        undrawn = range(len(trials), self.search.samples)
        return [*left, *(None for _ in (*undrawn, *self.history.missing_held_out()))]

    def progress(self) -> Summary | None:
        """Return the best finished trial so far; the step counts ended trials."""
        ended = [trial for trial in self.history.trials() if trial.ended]
        best = best_trials(ended, 1)
        if not best:
            return None
        return Summary(
            values={BEST: best[0].objective},
            step=len(ended),
            tags={"wsss.best_trial": f"{best[0].number}"},
        )

    def closing(self) -> Summary:
        """Return the held-out scores of the best trial and the base, and the table."""
        held_out = self.history.held_out()
        best = best_trials(self.history.trials(), 1)
        compared = {
            "objective/held_out_best": best[0].cam_id if best else "",
            "objective/held_out_base": self.history.base,
        }
        return Summary(
            values={
                name: held_out[cam]["held_out"] for name, cam in compared.items() if cam in held_out
            },
            texts={"search.txt": as_text(search_document(self.search, self.store), width=200)},
        )

    def _trial(
        self, trial: SearchTrial, closing: Mapping[str, float] | None, *, running: bool
    ) -> RunView:
        """Return a trial's run, with the epochs whose losses are here: each is logged once.

        Those of another machine come when the trial ends. They are not waited for after that.
        """
        drawn = " ".join(f"{key.split('.')[-1]}={v:g}" for key, v in trial.settings.items())
        config = self.search.config(trial.settings)
        records = self.store.cam(trial.cam_id).epochs()
        warnings = (trial.warning, find_dead_maps(records, config))
        tags = view.message_tags(warnings, trial.message)
        if trial.ended:
            tags["wsss.stopped_early"] = str(trial.status == "stopped").lower()
        losses = {
            record["epoch"]: {f"train/{k}": v for k, v in record.items() if k.startswith("loss")}
            for record in records
        }
        return self.run(
            id=trial.run_id,
            key={SEARCH: self.search.name, TRIAL: trial.run_id},
            name=f"{trial.number} {drawn}",
            status=STATUSES.get(trial.status, "RUNNING" if running else "KILLED"),
            tags={ROLE: "trial", CAM_ID: trial.cam_id},
            current_tags=tags,
            params=config.flat(),
            epochs={
                int(judged["epoch"]): {
                    OBJECTIVE: judged["objective"],
                    THRESHOLD: judged["threshold"],
                    **losses.get(judged["epoch"], {}),
                }
                for judged in trial.epochs
                if judged["epoch"] in losses or (trial.ended and not running)
            },
            at_end=view.AtEnd(HELD_OUT, {HELD_OUT: closing["held_out"]}) if closing else None,
        )

    def _reference(self, closing: Mapping[str, float]) -> RunView:
        values = {
            OBJECTIVE: closing["objective"],
            THRESHOLD: closing["threshold"],
            HELD_OUT: closing["held_out"],
        }
        return self.run(
            id=REFERENCE,
            key={SEARCH: self.search.name, TRIAL: REFERENCE},
            name="base: nothing drawn",
            status="FINISHED",
            tags={ROLE: REFERENCE, CAM_ID: self.history.base},
            params=self.search.base.flat(),
            at_end=view.AtEnd(HELD_OUT, values),
        )
