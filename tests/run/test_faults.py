"""Hangs, signals, what follows a failure, and changed code: the parts, without Ray."""

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from made_up.finished import fill, finished_sweep
from torch import nn

from sweeps.cli.method.predict import read_network
from sweeps.evidence.image_counts import load_image_counts
from sweeps.plan.states import DRIVER_FILE
from sweeps.plan.sweep import Sweep
from sweeps.run.driver import DrivenError, driving
from sweeps.run.faults import Break, Decision, decide, unexplained
from sweeps.stages import guard
from sweeps.stages.guard import (
    ChangedError,
    check_half_trained,
    claim,
    mixture_notes,
    num_hangs,
    origins,
    watchdog,
)
from sweeps.store.code_version import ROOT, code_version, commit, source_digest, sources_of
from sweeps.store.errors import StoreError
from sweeps.store.failures import ErrorNote, note_of, take_note, write_note
from sweeps.store.rooms import DRIVER_LOCK, Driven
from sweeps.store.store import Folder, Store
from wsss.data.errors import DataError
from wsss.labels.cam_files import read_cams
from wsss.labels.sources import source_in
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.checkpoint_names import checkpoint_name

HANGS = """
import os, sys, time
from pathlib import Path
import torch
from sweeps.stages.guard import watchdog
folder, what, limit = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def forever():
    os.mkfifo(folder / "pipe")
    open(folder / "pipe").read()

def steps(seconds):
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        weight.grad = torch.ones(1)
        optimizer.step()
        time.sleep(0.01)

steps(0.05)  # the first step imports half of torch, which takes long on a busy machine
with watchdog(folder / "stack.txt", limit):
    if what == "hang":
        forever()
    elif what == "steps":
        steps(2 * limit)
print("came to its end")
"""


def watched(folder: Path, what: str, *, limit: float) -> "subprocess.Popen[str]":
    folder.mkdir()
    command = [sys.executable, "-c", HANGS, str(folder), what, str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_process_without_progress_ends_and_steps_of_an_optimiser_are_progress(
    tmp_path: Path,
) -> None:
    idle, busy = tmp_path / "idle", tmp_path / "busy"
    at_work, hanging = watched(busy, "steps", limit=6), watched(idle, "hang", limit=1)
    output, _ = hanging.communicate(timeout=120)
    assert (hanging.returncode, output, num_hangs(idle)) == (1, "", 1)
    assert "in forever" in (idle / "stack.txt").read_text()
    output, _ = at_work.communicate(timeout=120)
    assert (at_work.returncode, output, num_hangs(busy)) == (0, "came to its end\n", 0)
    assert not (busy / "stack.txt").exists(), "an empty file stays"


def test_a_limit_of_zero_watches_nothing(tmp_path: Path) -> None:
    with watchdog(tmp_path / "stack.txt", 0) as beat:
        beat()
    assert not list(tmp_path.iterdir())


def raised(message: str) -> ErrorNote:
    try:
        if message.endswith("elsewhere"):
            raise ValueError(message.removesuffix(" elsewhere"))
        raise ValueError(message)
    except ValueError as error:
        return note_of(error)


FORESEEN = {"DataError": DataError("broken"), "StoreError": StoreError("full")}


def break_of(words: str) -> Break:
    """`a killed`: trial a died, or hung, or lost its node; `a DataError`, `a ...`: an error."""
    run_id, _, how = words.partition(" ")
    if how in ("killed", "hang", "preempted"):
        return unexplained(run_id, how, "Ray's words")
    return Break(run_id, "failed", note_of(FORESEEN[how]) if how in FORESEEN else raised(how))


@pytest.mark.parametrize(
    ("history", "broke", "decision"),
    [
        ([], "a killed", Decision.RESTART),
        (["a killed"], "a hang", Decision.RESTART),
        (["a killed", "a hang"], "a no", Decision.GIVE_UP),
        # Others' failures are not its own.
        (["b killed", "b killed", "c killed"], "a killed", Decision.RESTART),
        # A node that goes away is nobody's failure, and has a limit of its own.
        (["a killed", "a killed"], "a preempted", Decision.GO_ON),
        (["a preempted"] * 3, "a killed", Decision.RESTART),
        (["a preempted"] * 49, "a preempted", Decision.GO_ON),
        (["a preempted"] * 50, "a preempted", Decision.GIVE_UP),
        (["b preempted"] * 50, "a preempted", Decision.GO_ON),
        # Three trials with one error are enough, whatever numbers and addresses it names ...
        (["a 3 rows at 0x7f01", "b 4 rows at 0x99ab"], "c 5 rows at 0x12", Decision.STOP_ALL),
        (["a no", "b killed"], "c no", Decision.RESTART),
        (["a no", "b never", "c no"], "d no", Decision.STOP_ALL),
        # ... but one trial that meets it again and again is not all trials,
        (["a no", "a no"], "a no", Decision.GIVE_UP),
        (["a no", "a no"], "b no", Decision.RESTART),
        # and equal messages from other lines, or other messages, are other errors.
        (["a no", "b no elsewhere"], "c no", Decision.RESTART),
        (["a no", "b never"], "c no", Decision.RESTART),
        # A broken picture would be met again, by this trial; a disk may have room by then.
        ([], "a DataError", Decision.GIVE_UP),
        (["a DataError", "b DataError", "c DataError"], "d killed", Decision.RESTART),
        ([], "a StoreError", Decision.RESTART),
    ],
)
def test_what_follows_when_an_attempt_breaks_off(
    history: list[str], broke: str, decision: Decision
) -> None:
    assert decide(tuple(map(break_of, history)), break_of(broke)) is decision


def test_a_note_is_taken_once_and_one_that_cannot_be_read_is_no_death_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = raised("no")
    assert "in raised" in note.where
    write_note(tmp_path, note)

    def refuse(path: Path, **_: object) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        told = take_note(tmp_path)
    assert told.kind == "OSError"
    assert str(tmp_path / "error.json") in told.message
    assert take_note(tmp_path) == note
    assert take_note(tmp_path) is None
    (tmp_path / "error.json").write_text('{"kind": ')
    assert take_note(tmp_path) is None


def read_counts(path: Path) -> object:
    return load_image_counts(Folder(path.parent), "fixed")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("counts.npz", lambda path: Folder(path.parent).has_whole(path.name)),
        ("epoch_0001.pt", lambda path: CheckpointFolder(path.parent).restore(nn.Linear(1, 1))),
        ("a.npz", read_cams),
        ("a.npz", source_in),
        ("a.png", source_in),
        ("image_counts.npz", read_counts),
        ("config.json", read_network),
    ],
)
def test_no_reader_takes_an_error_of_the_drive_for_broken_content(
    name: str, read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"whole")

    def refuse(*_: object, **__: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for place in (io, builtins):
        monkeypatch.setattr(place, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        read(path)
    assert caught.value.filename == str(path)
    assert path.exists()


def test_the_code_version_follows_the_contents_of_the_sources(tmp_path: Path) -> None:
    digest = source_digest()
    assert code_version().endswith(f".s{digest}") or code_version().endswith(f"+s{digest}")
    assert sources_of(code_version()) == digest
    assert sources_of("0.1.0+2039d67-dirty") == "0.1.0+2039d67-dirty"
    source = tmp_path / "wsss" / "a.py"
    source.parent.mkdir()

    def digest_now() -> str:
        return source_digest.__wrapped__("wsss", root=tmp_path)

    source.write_text("x = 1\n")
    first = digest_now()
    (tmp_path / "wsss" / "notes.txt").write_text("no source")
    assert digest_now() == first
    source.write_text("x = 2\n")
    second = digest_now()
    source.rename(source.with_name("b.py"))
    assert len({first, second, digest_now()}) == 3


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git, which the programs do without")
def test_a_repository_that_does_not_track_the_sources_names_no_commit_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "a.py").touch()
    monkeypatch.delenv("WSSS_COMMIT", raising=False)
    assert commit(tmp_path) == ""
    subprocess.run([*git, "add", "sweeps"], check=True)
    assert commit(tmp_path).endswith("-dirty")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # as in a container
    assert commit(tmp_path).endswith("-dirty")


@pytest.fixture
def sweep() -> Sweep:
    return finished_sweep(("VI",), 1)


def test_a_half_trained_network_of_other_packages_needs_a_persons_word(
    store: Store, sweep: Sweep
) -> None:
    trial = sweep.plan.trials[0]
    cam, now = store.cam(trial.cam_id), guard.here()

    def check(*, accept_changes: bool) -> list[str]:
        return check_half_trained(sweep.plan.trials, store, accept_changes=accept_changes)

    older, old = now | {"torch": "98.0"}, now | {"torch": "99.0"}
    cam.add_attempt({"origin": older, "resumed": False})
    assert origins(cam) == [older]
    claim(cam, accept_changes=False)  # nothing trained yet: nothing mixed
    assert origins(cam) == [now]
    cam.add_attempt({"origin": old, "resumed": False})
    cam.checkpoints.mkdir(parents=True)
    (cam.checkpoints / "epoch_0001.pt").write_bytes(b"")
    with pytest.raises(ChangedError, match=rf"torch 99\.0 -> {now['torch']} since; .*--accept-c"):
        check(accept_changes=False)
    with pytest.raises(ChangedError):
        claim(cam, accept_changes=False)
    (warning,) = check(accept_changes=True)
    assert warning.startswith(trial.name)
    claim(cam, accept_changes=True)
    assert check(accept_changes=False) == []
    claim(cam, accept_changes=False)  # accepted once is enough
    assert origins(cam) == [old, now]
    cam = store.cam(sweep.plan.trials[1].cam_id)  # of an older release
    cam.checkpoints.mkdir(parents=True)
    (cam.checkpoints / checkpoint_name(0, 40)).write_bytes(b"")
    with pytest.raises(ChangedError, match="not recorded"):
        check(accept_changes=False)


def test_a_table_of_two_code_versions_or_packages_is_marked(store: Store, sweep: Sweep) -> None:
    fill(store, sweep, lambda trial: 0.5)
    for number, trial in enumerate(sweep.plan.trials):  # other commits of the same sources
        change_environment(store, trial.run_id, code_version=f"0.1.0+abc{number}.s0123456789")
    assert mixture_notes(sweep, store) == []
    first, second = sweep.plan.trials[:2]
    change_environment(store, first.run_id, torch="1.0")
    (note,) = mixture_notes(sweep, store)
    assert note.startswith("MIXED")
    assert f"torch 1.0: {first.name}" in note
    assert "pillow" not in note
    for torch, resumed in (("1", False), ("2", True)):
        attempt = {"origin": {"torch": torch}, "resumed": resumed}
        store.cam(second.cam_id).add_attempt(attempt)
    assert mixture_notes(sweep, store)[1].endswith(f": {second.name}")


def change_environment(store: Store, run_id: str, **values: str) -> None:
    path = store.run(run_id).path / "done.json"
    metrics = json.loads(path.read_text())
    metrics["environment"] |= values
    path.write_text(json.dumps(metrics))


def test_what_is_driven_is_refused_by_name_of_its_driver(store: Store) -> None:
    what = Driven("sweep", "V-tiny"), "wait for it"
    match = rf"another process runs sweep V-tiny \(process {os.getpid()} on .*\); wait for it"
    with driving(store, *what), pytest.raises(StoreError, match=match):
        driving(store, *what).__enter__()
    with driving(store, *what), driving(store, Driven("sweep", "VI-tiny"), "wait for it"):
        for damaged in ('{"pid": 1}', "[1]", '{"pid'):
            (store.sweep("V-tiny") / DRIVER_FILE).write_text(damaged)
            with pytest.raises(DrivenError, match=r"\(.*driver\.lock.*\); wait for it"):
                driving(store, *what).__enter__()


def test_a_start_is_not_refused_for_a_download_that_looks_at_its_lock(store: Store) -> None:
    what = Driven("sweep", "V-tiny")
    store.sweep("V-tiny").mkdir(parents=True)
    look = FileLock(store.sweep("V-tiny") / DRIVER_LOCK, thread_local=False)
    look.acquire()
    threading.Timer(0.2, look.release).start()
    with driving(store, what, "wait for it"):
        assert not look.is_locked
