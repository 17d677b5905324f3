"""The store: records that survive a crash, and files that are whole or absent."""

import errno
import json
import math
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from sweeps.archive.verify import verify
from sweeps.evidence.image_counts import load_image_counts
from sweeps.store.errors import StoreError
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import LABEL, Folder, Store, open_store, read_json, write_json
from wsss.basics.errors import ForeseenError
from wsss.evaluation.confusion import ThresholdCounts
from wsss.labels.cam_files import read_cams
from wsss.labels.sources import source_in
from wsss.training.checkpoint import CheckpointFolder


@pytest.fixture
def cam(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "cams" / "abc")


def test_epochs_come_back_in_order_and_a_repeated_one_replaces_the_first(cam: Folder) -> None:
    assert cam.epochs() == []
    for epoch, loss in ((1, 0.9), (2, 0.8), (2, 0.7), (4, math.inf)):
        cam.add_epoch({"epoch": epoch, "loss": loss})
    assert [record["epoch"] for record in cam.epochs()] == [1, 2, 4]
    there = Folder(cam.path, Remote("s3://bucket/x", cam.path.parent.parent))
    assert len(there.epochs()) == 2, "what comes before the fourth is still on its way"
    cam.add_epoch({"epoch": 3, "loss": None})
    found = [(r["epoch"], r["loss"]) for r in cam.epochs()]
    assert found == [(1, 0.9), (2, 0.7), (3, None), (4, math.inf)]
    (cam.path / "epochs" / "0005.json.partial7").write_text('{"epoch": 5, "lo')  # of a killed one
    assert len(cam.epochs()) == 4


def test_attempts_are_kept_one_after_the_other(cam: Folder) -> None:
    for host in ("a", "b"):
        cam.add_attempt({"host": host})
    assert [attempt["host"] for attempt in cam.attempts()] == ["a", "b"]
    (cam.path / "attempts" / "0001.json").unlink()  # as it was damaged
    cam.add_attempt({"host": "c"})
    assert [attempt["host"] for attempt in cam.attempts()] == ["b", "c"]


def test_a_zip_is_whole_or_it_does_not_count(cam: Folder) -> None:
    path = cam.path / "counts.npz"
    path.parent.mkdir(parents=True)
    assert not cam.has_whole(path.name)
    np.savez(path, a=np.arange(1000))
    assert cam.has_whole(path.name)
    content = path.read_bytes()
    one_bit = content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]
    for harmed in (content[:2000], one_bit):
        path.write_bytes(harmed)
        assert not cam.has_whole(path.name)


def test_folders_that_cannot_be_read_do_not_count_as_empty(
    cam: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(cam.path.parent.parent)
    cam.add_epoch({"epoch": 1})
    cam.add_attempt({"host": "a"})
    write_json(store.sweep("s") / "sweep.json", {})

    def refuse(path: Any = ".") -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    for read in (
        *(cam.epochs, cam.attempts, cam.checkpoint_names, cam.file_names, store.sweep_names),
        lambda: CheckpointFolder(cam.checkpoints).restore(nn.Linear(1, 1)),
    ):
        with pytest.raises(PermissionError):
            read()


def test_a_stage_at_a_path_of_its_own_is_refused_by_name_if_it_is_another(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", named={"maps/aa": tmp_path / "out"})
    assert store.folder("maps/aa").path == tmp_path / "out"
    assert store.folder("maps/aa/png").path == tmp_path / "out" / "png"
    assert store.folder("labels/bb").path == tmp_path / "run" / "labels" / "bb"
    write_json(tmp_path / "out" / LABEL, {"stage": "maps/aa"})
    assert store.folder("maps/aa/png")
    with pytest.raises(
        StoreError, match=r"out: holds maps with other settings \(maps/aa, not maps/c"
    ):
        Store(tmp_path, named={"maps/cc": tmp_path / "out"}).folder("maps/cc")


def test_a_store_that_travels_is_opened_where_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"maps/aa": tmp_path / "out"}
    here = pickle.loads(pickle.dumps(Store(tmp_path, named=named)))
    assert (here.root, here.named) == (tmp_path, named)
    monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "driver"))
    sent = pickle.dumps(open_store("s3://bucket/prefix"))
    monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "node"))
    there = pickle.loads(sent)
    assert there.root == there.remote.mirror == tmp_path / "node"
    assert there.remote.url == "s3://bucket/prefix"


def test_a_crash_while_writing_json_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def half(value: Any, file: Any, **options: Any) -> None:
        file.write('{"ne')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(json, "dump", half)
        with pytest.raises(StoreError, match=r"a\.json: cannot be written \(No space left on dev"):
            write_json(path, {"new": 1})
    assert read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_result_of_another_stage_than_its_folder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", named={"maps/aa": tmp_path / "out"})
    for rel in ("cams/aa", "maps/aa", "walks/aa/maps"):
        folder, own = store.folder(rel), rel.partition("/")[2]
        write_json(folder.path / "done.json", {"id": own, "miou": 1.0})
        assert folder.result() == {"id": own, "miou": 1.0}
        write_json(folder.path / "done.json", {"miou": 1.0})  # as earlier versions wrote it
        assert folder.result() == {"miou": 1.0}
        write_json(folder.path / "done.json", {"id": "bb", "miou": 1.0})
        with pytest.raises(StoreError, match=rf"\.json: holds no record of {own}; delete .*'bb'"):
            folder.is_finished()


NOT_JSON = [b"", b'{"a": 1', b"\xff\xfe\x00"]
RECORDS = ("done.json", "epochs/0001.json", "attempts/0001.json", "failure.json")
OF_ONE = "holds no record of epoch 1"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        *(("done.json", each, "not JSON") for each in NOT_JSON),
        *((name, each, "holds no record") for name in RECORDS for each in (b"{}", b"[]")),
        *(("epochs/0001.json", e, OF_ONE) for e in (b'{"loss": 1}', b'{"epoch": 2}')),
        ("done.json", b'{"miou_fixed": "x"}', "miou_fixed: must be a valid number"),
        ("done.json", b'{"miou_fixed": NaN}', "miou_fixed: must be a finite number"),
        ("done.json", b'{"curve": [[0.1, Infinity]]}', "curve.0.1: must be a finite"),
        ("done.json", b'{"miou_fixed": 1e3}', "miou_fixed: must be less than or equal to"),
        ("done.json", b'{"curve": [[0.1]]}', "curve.0: must have at least 2 items"),
        ("done.json", b'{"classes": ["cat"], "iou_best": [1.0]}', "1 IoUs for background"),
        ("epochs/0001.json", b'{"epoch": 1, "dead": {"enhanced": "x"}}', "dead.enhanced: must be"),
        ("attempts/0001.json", b'{"resumed": 3}', "resumed: must be a valid boolean"),
        ("failure.json", b'{"kind": 3}', "kind: must be a valid string"),
        ("failure.json", b'{"other": 1}', "has no kind"),
        ("warning.json", b'{"iteration": "9"}', "iteration: must be a valid number"),
        ("warning.json", b'{"other": 1}', "has no message"),
    ],
)
def test_a_record_that_we_never_write_is_refused_by_file_and_key(
    name: str, content: bytes, told: str, cam: Folder
) -> None:
    (cam.path / name).parent.mkdir(parents=True, exist_ok=True)
    (cam.path / name).write_bytes(content)
    with pytest.raises(StoreError, match=rf"abc/{name}: {re.escape(told)}.*; delete "):
        (cam.result(), cam.why_failed(), cam.warning(), cam.epochs(), cam.attempts())


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for_and_a_folder_told(cam: Folder) -> None:
    (cam.path / "failure.json").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"failure\.json: a folder in the place of a file; delete"):
        cam.failure()
    for name in ("done.json", "counts.npz", "image_counts.npz", "0001.npz", "V.zip"):
        os.mkfifo(cam.path / name)
    with pytest.raises(StoreError, match=r"done\.json: a pipe"):
        cam.result()
    assert not cam.has_whole("counts.npz")
    assert source_in(cam.path / "0001.npz") == ""
    for read in (
        lambda: load_image_counts(cam, "fixed"),
        lambda: ThresholdCounts.load(cam.path / "counts.npz"),
        lambda: read_cams(cam.path / "0001.npz"),
        lambda: next(verify(cam.path / "V.zip", None)),
    ):
        with pytest.raises(ForeseenError, match="a pipe"):
            read()


def test_a_store_is_writable_where_no_file_is_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:  # before it can remove anything
        killed.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        Store(tmp_path / "new" / "store").check_writable()
    assert list((tmp_path / "new" / "store").iterdir()) == []
    (tmp_path / "taken").write_text("a file")
    for root in (tmp_path / "taken", tmp_path / "taken" / "results"):
        with pytest.raises(
            StoreError, match=r"not writable \(.+\); give another folder with --store"
        ):
            Store(root).check_writable()
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_failure_shows_until_it_is_cleared_or_the_run_is_finished(cam: Folder) -> None:
    assert cam.failure() is None
    cam.fail("diverged", "at iteration 3", "")
    assert (cam.why_failed(), cam.is_finished()) == ("diverged: at iteration 3", False)
    write_json(cam.path / "done.json", {"miou_fixed": 12.5})
    assert (cam.failure(), cam.result()) == (None, {"miou_fixed": 12.5})
    (cam.path / "done.json").unlink()
    cam.clear_failure()
    cam.clear_failure()
    assert cam.failure() is None
    cam.fail("died", "", "")
    cam.finish({"epochs": 3})
    assert (cam.is_finished(), cam.result()) == (True, {"epochs": 3})
    assert not (cam.path / "failure.json").exists()


def test_sweeps_are_named_the_newest_first(store: Store) -> None:
    assert store.sweep_names() == []
    for age, name in ((30, "b"), (10, "a"), (20, "c")):
        write_json(store.sweep(name) / "sweep.json", {})
        os.utime(store.sweep(name) / "sweep.json", (1e9 - age, 1e9 - age))
    (store.root / "sweeps" / "empty").mkdir()
    assert store.sweep_names() == ["b", "c", "a"]


def test_a_relative_root_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "results"


def test_a_drive_without_locks_is_refused_with_the_remedy(
    cam: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(StoreError, match=r"stage\.lock: .*no locks.*mounted with flock"),
        cam.hold(),
    ):
        pass
