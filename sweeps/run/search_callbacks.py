"""Writes what Tune tells of a search's trials into its history, and passes it on."""

from typing import Any

from ray import tune

from sweeps.plan.search import Search
from sweeps.plan.search_history import History, Listen, SearchTrial
from sweeps.stages.training_warnings import from_record
from wsss.identity import cam_id


def _ignore(trial: SearchTrial | None) -> None:
    """Listen to nothing: what is left of a listener in Tune's own files."""


class DrawnCallback(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Keeps the history of drawn trials. Only this object, in the driver, writes it."""

    def __init__(self, search: Search, history: History, listen: Listen) -> None:
        self.search, self.history, self.listen = search, history, listen
        self.trials = history.trials()
        self.by_tune_id: dict[str, SearchTrial] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; listeners hold terminals and threads."""
        return self.__dict__ | {"listen": _ignore}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A drawn trial, or an interrupted one, is at work."""
        known = self._of(trial)
        known.status, known.message = "running", ""
        self._note(known)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch was judged, or the training diverged or did not learn."""
        known = self._of(trial)
        if "failed" in result:
            known.status, known.message, known.warning = result["failed"], result["message"], ""
        else:
            known.add_epoch(result)
            known.warning = str(from_record(result) or "")
        self._note(known)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial came to its end or the scheduler stopped it; Tune is silent on Ctrl-C."""
        known = self._of(trial)
        if known.status == "running":
            finished = known.last_epoch == self.search.base.train.epochs
            known.status = "finished" if finished else "stopped"
        self._note(known)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial failed in a way that its restarts did not mend."""
        known = self._of(trial)
        known.status, known.message = "error", last_line(trial.get_error())
        self._note(known)

    def _of(self, trial: Any) -> SearchTrial:
        """Return the history's trial: an interrupted one with these settings, or a new one."""
        if trial.trial_id not in self.by_tune_id:
            settings = self.search.space.round(trial.config)
            taken = {known.number for known in self.by_tune_id.values()}
            waiting = [t for t in self.trials if not t.ended and t.number not in taken]
            known = next((t for t in waiting if t.settings == settings), None)
            if known is None:
                key = cam_id(self.search.config(settings))
                known = SearchTrial(len(self.trials), key, settings)
                self.trials.append(known)
            self.by_tune_id[trial.trial_id] = known
        return self.by_tune_id[trial.trial_id]

    def _note(self, known: SearchTrial) -> None:
        self.history.save(self.trials)
        self.listen(known)


class ClosingCallback(tune.Callback):  # type: ignore[misc]
    """Keeps the closing scores."""

    def __init__(self, history: History, listen: Listen) -> None:
        self.history, self.listen = history, listen

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; listeners hold terminals and threads."""
        return self.__dict__ | {"listen": _ignore}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A configuration was judged; the last record of it has the closing score."""
        if "held_out" in result:
            self.history.add_held_out(trial.config["cam_id"], result)
            self.listen(None)


def last_line(error: BaseException | None) -> str:
    """Return what a trial's error says, in one line."""
    text = str(error).strip() if error else ""
    return text.splitlines()[-1] if text else "the trial's process ended without a word"
