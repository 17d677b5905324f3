"""Trials in a bucket: killed, resumed on an empty machine, broken checkpoints, full disk."""

import errno
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up.bucket_server import BUCKET, client, faulty_proxy, keys
from outcomes import figures, step_losses

from sweeps.stages.stage import Conduct, Place
from sweeps.stages.trial import run_trial
from sweeps.store.errors import StoreError, disk_errors
from sweeps.store.remote.bucket import Times
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import Store, open_store
from wsss.config import RunConfig
from wsss.identity import cam_id, run_id
from wsss.overrides import apply_overrides
from wsss.training.checkpoint_names import checkpoint_name
from wsss.training.diagnosis.learning import PriorLimits

IN_A_PROCESS = """
import pickle, sys, torch
from sweeps.stages.trial import run_trial
torch.set_num_threads(1)
for record in run_trial(*pickle.load(sys.stdin.buffer)):
    print(int(record["epoch"]), flush=True)
    if record["epoch"] == 3:
        import time; time.sleep(60)
"""
"""Prints each record's epoch; stops at the third, whose checkpoint is then not yet written."""


@pytest.fixture(scope="module")
def config(small: RunConfig) -> RunConfig:
    return apply_overrides(small, {"views.enhanced": True})


@pytest.fixture(scope="module")
def unbroken(config: RunConfig, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A local store with the trial done in one go."""
    store = Store(tmp_path_factory.mktemp("unbroken"))
    list(run_trial(config, Place(store, drawn)))
    return store


def outcome(store: Store, config: RunConfig) -> tuple[object, object]:
    return figures(store, config), step_losses(store, config)


def place(drawn: Path, prefix: str, limits: PriorLimits | None = None) -> Place:
    conduct = Conduct(limits=limits or PriorLimits())
    return Place(open_store(f"s3://{BUCKET}/{prefix}"), drawn, conduct=conduct)


def stopped_after(config: RunConfig, drawn: Path, prefix: str, *, epochs: int) -> None:
    """Run a trial until its first checkpoints are written, then leave it."""
    loop = run_trial(config, place(drawn, prefix))
    for _ in range(epochs + 1):  # a checkpoint comes with the record after its own
        next(loop)
    loop.close()  # type: ignore[attr-defined]


def objects_of(root: Path) -> set[str]:
    """Return the files of a store that a bucket has as objects, but for attempts."""
    files = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name for name in files if not name.endswith(".lock") and "/attempts/" not in name}


def test_a_trial_killed_on_one_machine_ends_on_another_as_an_unbroken_one(
    port: int, config: RunConfig, drawn: Path, mirror: Path, unbroken: Store
) -> None:
    asked = place(drawn, "killed")
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        pickle.dump((config, asked), process.stdin)
        process.stdin.close()
        seen = [process.stdout.readline() for _ in range(3)]
        assert seen == [b"1\n", b"2\n", b"3\n"]
        process.send_signal(signal.SIGKILL)
    cam = f"cams/{cam_id(config)}"
    there = keys(port, "killed")
    assert {f"{cam}/checkpoints/epoch_0001.pt", f"{cam}/checkpoints/epoch_0002.pt"} <= set(there)
    assert f"leases/{cam}" in there  # it could not give the lease back
    assert f"runs/{run_id(config)}/done.json" not in there
    shutil.rmtree(mirror)
    records = list(run_trial(config, asked))
    assert [record["epoch"] for record in records if "loss" in record] == [3]
    store = asked.store
    assert store.root == mirror
    assert outcome(store, config) == outcome(unbroken, config)
    before = keys(port, "killed")
    assert {key for key in before if "/attempts/" not in key} == objects_of(unbroken.root)
    assert [attempt["resumed"] for attempt in store.cam(cam_id(config)).attempts()] == [False, True]
    shutil.rmtree(mirror)  # a third machine finds it done
    assert list(run_trial(config, asked)) == []
    assert outcome(store, config)[0] == outcome(unbroken, config)[0]
    assert keys(port, "killed") == before


def test_a_damaged_checkpoint_in_the_bucket_is_passed_over_with_a_warning(
    port: int,
    config: RunConfig,
    drawn: Path,
    mirror: Path,
    unbroken: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopped_after(config, drawn, "damaged", epochs=2)
    s3, key = client(port), f"damaged/cams/{cam_id(config)}/checkpoints/epoch_0002.pt"
    found = s3.get_object(Bucket=BUCKET, Key=key)
    half = found["Body"].read()[: found["ContentLength"] // 2]
    s3.put_object(Bucket=BUCKET, Key=key, Body=half, Metadata=found["Metadata"])
    shutil.rmtree(mirror)
    with caplog.at_level(logging.WARNING):
        records = list(run_trial(config, place(drawn, "damaged")))
    assert [r["epoch"] for r in records if "loss" in r] == [2, 3]
    assert f"s3://{BUCKET}/{key}: altered or cut" in caplog.text
    assert "falling back to the checkpoint before it" in caplog.text
    store = open_store(f"s3://{BUCKET}/damaged")
    assert outcome(store, config) == outcome(unbroken, config)


def test_a_trial_whose_uploads_fail_says_so_and_the_next_attempt_makes_up_for_it(
    port: int, config: RunConfig, drawn: Path, mirror: Path, unbroken: Store
) -> None:
    remote = Remote(f"s3://{BUCKET}/away", mirror, Times(retry_delays=(0.01,), beat=1000.0))
    with faulty_proxy(port) as proxy:
        loop = run_trial(config, Place(Store(mirror, remote), drawn))
        for _ in range(2):
            next(loop)
        proxy.faults = [("PUT", "cut")] * 2  # the second epoch's records
        with pytest.raises(StoreError, match=rf"cannot upload s3://{BUCKET}/away/cams/.*2 times"):
            next(loop)
    checkpoints = f"cams/{cam_id(config)}/checkpoints"
    assert (mirror / checkpoints / "epoch_0002.pt").exists()
    assert f"{checkpoints}/epoch_0002.pt" not in keys(port, "away")
    loop = run_trial(config, place(drawn, "away"))
    assert next(loop)["epoch"] == 3  # from the local checkpoint, which is newer than the bucket's
    assert f"{checkpoints}/epoch_0002.pt" in keys(port, "away")
    list(loop)
    store = open_store(f"s3://{BUCKET}/away")
    assert outcome(store, config) == outcome(unbroken, config)


def test_of_checkpoints_between_and_within_epochs_the_bucket_keeps_the_last_two(
    port: int, tmp_path: Path
) -> None:
    def machine(name: str) -> tuple[Remote, Path]:
        remote = Remote(f"s3://{BUCKET}/within", tmp_path / name)
        (remote.mirror / "cams/c/checkpoints").mkdir(parents=True)
        return remote, remote.mirror / "cams/c/checkpoints"

    progress = [(1, None), (1, 40), (1, 80), (2, None), (2, 90)]
    names = [checkpoint_name(*point) for point in progress]
    (first, here), (second, there), (third, older) = map(machine, "abc")
    for number, name in enumerate(names):
        (here / name).write_text(name)
        for old in sorted(here.iterdir())[:-2]:
            old.unlink()
        first.push_folder("cams/c")
        assert [Path(key).name for key in keys(port, "within")] == names[: number + 1][-2:]
    second.pull_training("cams/c")  # another machine, after this one was lost
    assert {path.name: path.read_text() for path in there.iterdir()} == {n: n for n in names[-2:]}
    newer = there / checkpoint_name(3)
    newer.touch()
    (there / names[-1]).unlink()
    second.pull_training("cams/c")  # ours is the newer: nothing comes
    assert sorted(path.name for path in there.iterdir()) == [names[-2], newer.name]
    (older / names[0]).touch()
    third.pull_training("cams/c")  # the bucket's are newer
    assert {path.name for path in older.iterdir()} == {names[0], *names[-2:]}
    with pytest.raises(StoreError, match=f"{newer.name} cannot be downloaded"):
        Store(third.mirror, third).cam("c").take_over([names[-1], newer.name])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB: a checkpoint here takes 3.7."""
    if sys.platform != "linux" or not shutil.which("mount"):
        pytest.skip("no tmpfs here")
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs may not be mounted here: needs root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk but for some bytes; return the file to delete."""
    path, free = disk / "filler", shutil.disk_usage(disk).free
    path.write_bytes(b"\0" * max(0, free - leave))
    return path


def test_a_full_disk_is_named_with_the_remedy_and_the_same_command_goes_on(
    config: RunConfig, drawn: Path, small_disk: Path, unbroken: Store
) -> None:
    store = Store(small_disk / "store")
    asked = Place(store, drawn)
    loop = run_trial(config, asked)
    next(loop)
    next(loop)
    filler = fill(small_disk, 65536)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); free"):
        list(loop)
    checkpoints = sorted(path.name for path in store.cam(cam_id(config)).checkpoints.iterdir())
    assert checkpoints == ["epoch_0001.pt"]
    assert store.run(run_id(config)).result() is None
    filler.unlink()
    assert [r["epoch"] for r in run_trial(config, asked) if "loss" in r] == [2, 3]
    assert outcome(store, config) == outcome(unbroken, config)


def test_other_errors_of_a_disk_are_passed_on_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^\[Errno 5\]"), disk_errors(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "x")
    with pytest.raises(StoreError, match=r"^/some/file: cannot be written"), disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")


def test_a_warning_is_in_the_bucket_at_once_and_goes_when_the_training_starts_anew(
    mirror: Path, port: int, config: RunConfig, drawn: Path
) -> None:
    stuck = apply_overrides(config, {"train.lr": 1e-12})
    loop = run_trial(stuck, place(drawn, "warned", PriorLimits(2, 0)))
    assert "after 2 iterations" in next(loop)["warning"]
    loop.close()  # type: ignore[attr-defined]
    key = f"cams/{cam_id(stuck)}/warning.json"
    assert key in keys(port, "warned")
    shutil.rmtree(mirror)
    loop = run_trial(stuck, place(drawn, "warned", PriorLimits(0, 0)))
    assert next(loop)["epoch"] == 1
    loop.close()  # type: ignore[attr-defined]
    assert key not in keys(port, "warned")
