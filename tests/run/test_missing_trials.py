"""A training with several scores as one target of the driver: what listeners hear, whose fault."""

from pathlib import Path

import pytest
from made_up import targets
from made_up.finished import finished_sweep

from sweeps.run.faults import MAX_RESTARTS
from sweeps.run.ray.tune import break_of
from sweeps.run.subjects.tables import MissingTrials
from sweeps.store.errors import StoreError
from sweeps.store.failures import note_of, write_note
from sweeps.store.store import Store
from wsss.basics.errors import ForeseenError

SCORES = tuple(
    trial
    for trial in finished_sweep(("background-score",), 1).plan.trials
    if trial.cells[0].startswith("background-score[B0")
)[:3]
"""Three scores of one training."""
KEY = SCORES[0].cam_id


IDS = [score.run_id for score in SCORES]


class Scene(targets.Scene):
    """A driver of these scores, as Tune would tell it of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, MissingTrials(Store(root), list(SCORES)))

    def told(self) -> list[str]:
        """Which score, its status, and the epoch of its record."""
        told = ((IDS.index(run_id), status, epoch) for run_id, status, epoch in self.heard)
        return [" ".join(str(part) for part in each if part is not None) for each in told]

    def report(self, number: int, epoch: float, **more: float | str) -> None:
        self.dispatch.reported(KEY, {"run": IDS[number], "epoch": epoch, **more})

    def finish(self, number: int, *, here: bool = True) -> None:
        """here: whether the result is on the driver's machine already, not only in the bucket."""
        if here:
            self.store.run(IDS[number]).finish({"miou_fixed": 1.0})
        self.report(number, 2, miou_fixed=1.0)

    def fail(self, number: int, kind: str) -> None:
        self.store.run(IDS[number]).fail(kind, "too fast", "trace")
        self.report(number, 3, failed=f"{kind}: too fast")


def test_listeners_hear_of_each_score_as_of_a_trial_of_its_own(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.start() == KEY
    assert scene.dispatch.next() is None, "one training, one target"
    scene.report(0, 1)
    scene.finish(0, here=False)
    scene.report(1, 3)
    scene.fail(1, "diverged")
    scene.report(2, 4)
    assert scene.told() == [
        *("0 running", "0 running 1", "0 done 2"),
        *("1 running", "1 running 3", "1 failed 3"),
        *("2 running", "2 running 4"),
    ]
    assert scene.said == [f"{SCORES[1].name}: diverged: too fast"]
    scene.store.run(IDS[0]).finish({"miou_fixed": 1.0})  # downloaded at the end
    scene.dispatch.ended(KEY)
    assert scene.told()[8:] == ["0 done", "1 failed", "2 started"]
    assert len(scene.said) == 1


def test_a_restart_goes_on_with_the_first_score_that_is_missing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    scene.finish(0)
    scene.report(1, 3)
    scene.breaks(KEY)
    assert scene.ends == [(KEY, "killed")]
    scene.start()
    assert scene.told()[-1] == "1 running"


def test_the_error_of_a_later_score_is_looked_for_in_its_own_folder(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    scene.finish(0)
    scene.report(1, 3)
    folder = scene.store.run(IDS[1]).path
    write_note(folder, note_of(KeyError("gallery")))
    scene.breaks(KEY)
    assert scene.ends == [(KEY, "failed")]
    assert scene.said[-1].startswith(f"{SCORES[1].name}: KeyError: 'gallery'")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_hang_of_a_later_score_is_told_from_a_death(tmp_path: Path, is_restarted: bool) -> None:
    scene = Scene(tmp_path)
    folder = scene.store.run(IDS[1]).path
    folder.mkdir(parents=True)
    (folder / "stack.txt").write_text("Timeout (0:30:00)!\n")  # of an earlier sweep
    scene.start()
    scene.finish(0)
    if is_restarted:
        scene.breaks(KEY)
        scene.start()
    scene.report(1, 3)
    assert not any("made no progress" in line for line in scene.said), "that was long ago"
    with (folder / "stack.txt").open("a") as file:
        file.write("Timeout (0:30:00)!\n")
    scene.breaks(KEY)
    assert scene.ends[-1] == (KEY, "hang")
    assert f"see {folder}/stack.txt" in scene.said[-1]


@pytest.mark.parametrize("here", [True, False])
def test_giving_up_fails_the_scores_that_are_missing_and_no_other(
    tmp_path: Path, here: bool
) -> None:
    scene = Scene(tmp_path)
    for attempt in range(3):
        scene.start()
        if attempt == 0:
            scene.finish(0, here=here)
        scene.breaks(KEY)
    failures = [scene.store.run(score.run_id).failure() for score in SCORES]
    assert [failure and failure["kind"] for failure in failures] == [None, "died", "died"]
    assert scene.told()[-2:] == ["1 failed", "2 failed"]


class RaisedError(Exception):
    """As Ray passes an error of a trial's process on."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Traceback ...\n{type(cause).__module__}.{type(cause).__name__}: {cause}")
        self.cause = cause


def test_while_the_store_is_away_no_score_fails_and_the_next_start_tries_them_again(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    away = break_of(KEY, RaisedError(StoreError("s3://b/x: no answer")))
    broken = break_of(KEY, RaisedError(ForeseenError("a.jpg: broken")))
    assert (away.cause, broken.cause, broken.note.comes_again) == ("killed", "failed", True)
    for _ in range(MAX_RESTARTS + 1):
        scene.start()
        scene.dispatch.broke(away)
    assert scene.said == [
        *(
            f"{SCORES[0].name}: s3://b/x: no answer; restart {number} of {MAX_RESTARTS}, from its "
            "last checkpoint"
            for number in range(1, MAX_RESTARTS + 1)
        ),
        f"{SCORES[0].name}: StoreError: s3://b/x: no answer",
    ]
    assert scene.dispatch.next() is None
    assert [scene.store.run(run_id).failure() for run_id in IDS] == [None] * 3
