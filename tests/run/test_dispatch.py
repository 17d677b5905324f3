"""What a driver does with its targets when they begin, report, end and break off; without Ray."""

from pathlib import Path
from typing import Any

import pytest
from made_up import targets
from made_up.targets import Piece, Pieces

from sweeps.run.dispatch import End
from sweeps.run.faults import Break
from sweeps.store.errors import StoreError
from sweeps.store.failures import ErrorNote, note_of, write_note


class Scene(targets.Scene):
    """A dispatch of pieces called `a` and so on."""

    def __init__(self, root: Path, names: str, kind: type[Pieces] = Pieces) -> None:
        self.source = kind(root, list(names))
        super().__init__(root, self.source)

    def told(self) -> list[str]:
        return [f"{name} {status}" for name, status, _ in self.heard]

    def fail(self, run_id: str, message: str) -> None:
        """End a process by an unforeseen error, of which it leaves a note."""
        try:
            raise IndexError(message)
        except IndexError as error:
            write_note(self.source.folder(Piece(run_id)), note_of(error))
        self.breaks(run_id)

    def hang(self, run_id: str) -> None:
        """Write what a watchdog writes."""
        with (self.source.folder(Piece(run_id)) / "stack.txt").open("a") as file:
            file.write("Timeout (0:30:00)!\n")


def test_a_warning_is_said_once_and_again_after_an_epoch_without_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "a")
    scene.start()
    dead = {"dead_maps": "the maps are empty", "collapsed": 0.0}
    prior = {"warning": "at the label prior"}
    told = []
    for record in (prior, dead | prior, dead, {"progress": 0.5}, {"collapsed": 0.0}, dead, prior):
        scene.dispatch.reported("a", {"epoch": 1.0} | record)
        told.append(len(scene.said))
    assert told == [1, 2, 2, 2, 2, 3, 4]
    assert scene.said[0] == "warning: trial a: at the label prior"
    assert scene.said[1] == "warning: trial a: the maps are empty"


def test_each_target_is_handed_out_once_and_all_is_over_when_none_is_out(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "ab")
    scene.source.stopped_at = 2.0
    assert [scene.start(), scene.start()] == ["a", "b"]
    assert scene.dispatch.next() is None
    assert set(scene.dispatch.out) == {"a", "b"}
    told_to_end = [scene.dispatch.reported("a", {"epoch": float(e)}) for e in (1, 2)]
    assert told_to_end == [False, True]
    scene.dispatch.ended("a")
    scene.dispatch.ended("b")
    assert not scene.dispatch.out
    assert not scene.dispatch.has_ended()
    assert scene.told() == [*["a running", "b running"], *["a running"] * 2, "a done", "b done"]
    assert scene.said == []


def test_one_that_breaks_off_comes_before_the_others_twice_and_then_has_failed(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, "ab")
    for attempt in range(3):
        assert scene.start() == "a", attempt
        scene.fail("a", "out of range")
    assert scene.start() == "b"
    assert all(line.startswith("trial a: IndexError: out of range") for line in scene.said)
    assert [line.partition("; ")[2] for line in scene.said] == [
        "restart 1 of 2, from its last checkpoint",
        "restart 2 of 2, from its last checkpoint",
        "",
    ]
    (note,) = scene.source.given_up
    assert (note.kind, note.message) == ("IndexError", "out of range")
    assert "Traceback" in note.traceback
    assert scene.told() == ["a running"] * 3 + ["a failed", "b running"]
    assert scene.ends == [("cam-a", "failed")] * 3


def test_a_lost_node_costs_no_restart_and_a_death_without_a_note_has_the_words_of_ray(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, "a")
    for _ in range(5):
        scene.start()
        scene.breaks("a", "preempted", "its node was lost")
    assert scene.said == ["trial a: its node was lost; it resumes on another node"] * 5
    for _ in range(3):
        scene.start()
        scene.breaks("a")
    assert "restart 1 of 2" in scene.said[5]
    (note,) = scene.source.given_up
    assert (note.kind, note.message) == ("died", "The actor died")
    assert scene.ends == [("cam-a", "preempted")] * 5 + [("cam-a", "killed")] * 3


def test_a_hang_is_told_from_its_stack_file_and_said(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "a")
    scene.hang("a")  # before this start
    for count in (1, 2):
        scene.start()
        scene.hang("a")
        scene.breaks("a")
        assert "made no progress; its process was ended" in scene.said[-1]
        assert f"restart {count} of 2" in scene.said[-1]
    scene.start()
    (scene.source.folder(Piece("a")) / "stack.txt").unlink()
    scene.breaks("a")
    assert scene.ends == [("cam-a", "hang")] * 2 + [("cam-a", "killed")]


def test_a_worker_of_ray_train_that_hung_is_said_with_its_next_report(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "a")
    scene.start()
    scene.hang("a")
    for epoch in (1.0, 2.0):
        scene.dispatch.reported("a", {"epoch": epoch})
    (line,) = scene.said
    assert "made no progress" in line


def test_an_error_of_three_trials_stops_all_and_is_kept_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "abcd")
    names = [scene.start() for _ in range(4)]
    for name in names[:3]:
        scene.fail(name, "no such row")
    assert scene.dispatch.is_ending()
    assert not scene.dispatch.has_ended(), "the fourth saves what it has"
    found = scene.dispatch.common_error
    assert found.note.message == "no such row"
    assert "IndexError: no such row" in found.traceback_file.read_text()
    said = list(scene.said)
    scene.fail("d", "no such row")  # as all are being ended
    assert (scene.said, scene.source.given_up) == (said, [])


def test_after_a_signal_nothing_starts_and_what_breaks_off_waits_for_the_next_start(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, "abc")
    scene.start()
    scene.start()
    assert not scene.dispatch.is_ending()
    scene.why_end = "SIGINT"
    assert scene.dispatch.is_ending()
    assert scene.dispatch.next() is None
    (line,) = scene.said
    assert "SIGINT: starting no more trials. Those running, if any, save a checkpoint" in line
    scene.breaks("a")
    assert scene.said[-1] == "trial a: The actor died; it resumes at the next start"
    assert scene.told()[-1] == "a started"
    assert scene.dispatch.next() is None
    assert not scene.dispatch.has_ended()
    scene.dispatch.ended("b")
    assert scene.dispatch.has_ended()


@pytest.mark.parametrize("status", ["done", "failed", "started"])
def test_what_came_of_a_target_is_heard_and_of_a_failure_said_once(
    tmp_path: Path, status: Any
) -> None:
    scene = Scene(tmp_path, "a")
    scene.source.status = status
    scene.start()
    scene.dispatch.ended("a")
    scene.dispatch.ended("a")  # as Tune may say twice
    assert scene.told() == ["a running", f"a {status}"]
    assert scene.said == (["trial a: diverged: too fast"] if status == "failed" else [])


class Away(Pieces):
    """A source whose bucket does not answer."""

    def ended(self, target: Piece) -> End:
        raise StoreError("s3://b/x: no answer")

    def gave_up(self, target: Piece, note: ErrorNote) -> None:
        raise StoreError("s3://b/x: no answer")


def test_a_bucket_that_is_away_when_a_target_ends_ends_no_other(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "ab", Away)
    assert [scene.start(), scene.start()] == ["a", "b"]
    scene.dispatch.ended("a")
    broken = ErrorNote("DataError", "a.jpg: broken", "", "", comes_again=True)
    scene.dispatch.broke(Break("b", "failed", broken))
    assert scene.said == [
        "trial a: s3://b/x: no answer",
        "trial b: s3://b/x: no answer",
        "trial b: DataError: a.jpg: broken",
    ]
    assert scene.told() == ["a running", "b running", "a started", "b failed"]
    scene.why_end = "SIGINT"
    assert scene.dispatch.has_ended(), "none is left to wait for"
