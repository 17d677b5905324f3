"""A search in a bucket: killed, resumed on an empty machine, refused, and what goes up when."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BUCKET, client, faulty_proxy, moto_server

from sweeps.plan.search import Search, SearchTrial, make_search, parse_space
from sweeps.run.driver import driving
from sweeps.run.subjects.search import Draws, DrivenSearch
from sweeps.stages.stage import Place
from sweeps.stages.trial import held_out_trial, search_trial
from sweeps.store import bucket as remote_bucket
from sweeps.store import lease as lease_module
from sweeps.store.lease import Lease
from sweeps.store.remote import Remote
from sweeps.store.store import Store, StoreError, open_store
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.data.drawn import draw_voc
from wsss.identity import cam_id
from wsss.overrides import apply_overrides, parse_assignments
from wsss.training.prior import PriorLimits
from wsss.training.process import Process

REPO = Path(__file__).parents[1]
ONE = Process()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        yield port


@pytest.fixture(scope="module")
def full(small: RunConfig) -> RunConfig:
    return apply_overrides(small, F3)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's mirror; a test which deletes it has another machine."""
    monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 2.0)
    return tmp_path / "mirror"


@pytest.fixture(scope="module")
def search(drawn: Path) -> Search:
    return make_search(
        parse_space([]), preset="tiny", data=drawn, weights=None, overrides={"train.epochs": 3}
    )[0]


Task = tuple[RunConfig, str, Place]


def task_of(config: RunConfig, data: Path, store: Store) -> Task:
    return config, "best", Place(store, data, rank=ONE)


def remote_task(config: RunConfig, data: Path, prefix: str) -> Task:
    return task_of(config, data, open_store(f"s3://{BUCKET}/{prefix}"))


def keys(port: int, prefix: str) -> set[str]:
    found = client(port).list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
    return {item["Key"][len(prefix) + 1 :] for item in found}


def content(port: int, key: str) -> str:
    body: bytes = client(port).get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body.decode()


# One trial


def test_a_trial_goes_on_on_an_empty_machine_as_if_it_had_never_stopped(
    port: int, drawn: Path, full: RunConfig, mirror: Path, tmp_path: Path
) -> None:
    local = task_of(full, drawn, Store(tmp_path / "local"))
    whole = list(held_out_trial(*local))
    task, cam = remote_task(full, drawn, "trial"), f"cams/{cam_id(full)}"
    begun = search_trial(*task)
    seen = [next(begun), next(begun)]
    held = keys(port, "trial")
    begun.close()
    assert {f"{cam}/checkpoints/epoch_0001.pt", f"{cam}/epochs/0001.json", f"leases/{cam}"} <= held
    shutil.rmtree(mirror)
    # The checkpoint of the epoch that was just reported is written with the next: it is repeated.
    seen += list(held_out_trial(*task))
    assert [record["epoch"] for record in seen] == [1, 2, 2, 3]
    plain = [{key: row[key] for key in ("epoch", "objective", "threshold")} for row in whole]
    assert [*seen[:2], seen[3]] == [*plain[:2], whole[2]]
    ours, theirs = (s.cam(cam_id(full)) for s in (task[2].store, Store(tmp_path / "local")))
    assert [e["step_losses"] for e in ours.epochs()] == [e["step_losses"] for e in theirs.epochs()]
    assert keys(port, "trial") == {
        f"{cam}/{name}"
        for name in (
            "config.json", "attempts/0001.json", "attempts/0002.json",
            "epochs/0001.json", "epochs/0002.json", "epochs/0003.json",
            "checkpoints/epoch_0002.pt", "checkpoints/epoch_0003.pt", "done.json",
        )
    }  # fmt: skip
    shutil.rmtree(mirror)  # a third machine finds it trained
    assert list(held_out_trial(*task)) == whole[-1:]


def test_a_trial_whose_uploads_fail_says_so_and_the_next_attempt_makes_up_for_it(
    port: int, drawn: Path, full: RunConfig, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_bucket, "RETRY_DELAYS", (0.01,))
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 1000.0)
    task, checkpoint = remote_task(full, drawn, "away"), "checkpoints/epoch_0001.pt"
    with faulty_proxy(port) as proxy:
        begun = search_trial(*task)
        next(begun)
        proxy.faults = [("PUT", "cut")] * 2
        with pytest.raises(StoreError, match=rf"cannot upload s3://{BUCKET}/away/cams/.*2 times"):
            next(begun)
    assert not [key for key in keys(port, "away") if key.endswith(checkpoint)]
    assert next(search_trial(*task))["epoch"] == 2  # from the local checkpoint
    assert [key for key in keys(port, "away") if key.endswith(checkpoint)]


# The history


def trial(number: int, status: Any, *objectives: float) -> SearchTrial:
    epochs = [{"epoch": float(e), "objective": v, "threshold": 0.3}
              for e, v in enumerate(objectives, 1)]  # fmt: skip
    return SearchTrial(number, f"cam{number}", {"a": 0.5}, status, epochs)


WHAT = "wait for it or end it"


@contextmanager
def driven(search: Search, store: Store) -> Iterator[DrivenSearch]:
    """A search as its driver holds it."""
    subject = DrivenSearch(search, store, 3, PriorLimits())
    with driving(store, subject.path, subject.title, WHAT) as lease:
        subject.held(lease)
        yield subject


def test_the_history_goes_up_with_every_epoch_and_to_the_next_machine(
    port: int, search: Search, mirror: Path
) -> None:
    store = open_store(f"s3://{BUCKET}/history")
    with driven(search, store) as subject:
        for known in (trial(0, "running", 10.0), trial(0, "running", 10.0, 20.0)):
            subject.history.save(known)
            subject.share(known)
            file = content(port, f"history/searches/{search.name}/trials/0000.json")
            assert json.loads(file)["epochs"] == known.epochs
        row = {"objective": 20.0, "threshold": 0.3, "held_out": 19.0}
        subject.history.add_held_out("cam0", row)
        subject.share(None)
    shutil.rmtree(mirror)
    with driven(search, store) as subject:
        assert subject.history.trials() == [trial(0, "running", 10.0, 20.0)]
        assert set(subject.history.held_out()) == {"cam0"}


def test_a_bucket_that_is_away_does_not_end_the_search(
    port: int, search: Search, mirror: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(remote_bucket, "RETRY_DELAYS", (0.01,))
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 1000.0)
    store, known = open_store(f"s3://{BUCKET}/refusing"), trial(0, "running", 10.0)
    key = f"searches/{search.name}/trials/0000.json"
    with faulty_proxy(port) as proxy, driven(search, store) as subject:
        subject.history.save(known)
        proxy.faults = [("PUT", "cut")] * 2
        with caplog.at_level(logging.WARNING):
            subject.share(known)
        assert "nothing is lost on this machine" in caplog.text
        assert "the search goes on" in caplog.text
        assert key not in keys(port, "refusing")
        subject.share(known)
        assert key in keys(port, "refusing")


def test_what_is_driven_is_driven_from_one_machine_at_a_time(
    port: int, search: Search, mirror: Path, tmp_path: Path
) -> None:
    url, other = f"s3://{BUCKET}/twice", tmp_path / "other"
    with driven(search, open_store(url)):
        there = Store(other, Remote(url, other))
        with (
            pytest.raises(StoreError, match=rf"runs search {search.name} \(s3.*held by process"),
            driven(search, there),
        ):
            pass
    with driven(search, there):
        pass


def test_who_lost_the_lease_uploads_nothing_and_ends_with_the_reason(
    port: int, search: Search, mirror: Path
) -> None:
    store, known = open_store(f"s3://{BUCKET}/lost"), trial(0, "running", 10.0)

    def lose() -> None:
        with driven(search, store) as subject:
            assert isinstance(subject.lock, Lease)
            subject.history.save(known)
            subject.lock.lost = True
            subject.share(known)

    with pytest.raises(StoreError, match="taken over by another process"):
        lose()
    assert f"searches/{search.name}/trials/0000.json" not in keys(port, "lost")


# The command

COMMAND = (
    "import typer; from sweeps.cli.search import search;"
    "app = typer.Typer(pretty_exceptions_enable=False); app.command()(search); app()"
)
DRAWS = "2"
"""A seed of which the second draw is better than the first, so that nothing stops it early."""
SHRUNK = (
    "train.epochs=3", "train.crop_size=48", "train.min_long_side=48", "train.max_long_side=80",
    "train.batch_size=4", "network.fpn_channels=16", "network.atrous_channels=16",
)  # fmt: skip


def start(data: Path, store: str, mirror: Path) -> subprocess.Popen[str]:
    settings = [word for setting in SHRUNK for word in ("--set", setting)]
    words = [
        sys.executable, "-c", COMMAND, "--preset", "tiny", "--data", str(data), "--store", store,
        "--samples", "2", "--max-concurrent", "1", "--rng-seed", DRAWS, *settings,
    ]  # fmt: skip
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment = clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "160", "WSSS_MIRROR": str(mirror)}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        cwd=REPO,
    )  # fmt: skip


def finish(driver: subprocess.Popen[str]) -> str:
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    return output


def unbroken(data: Path, store: Path) -> tuple[list[Any], Any]:
    """Return what this search comes to in one process, without Ray: draw, train, score."""
    search, _ = make_search(
        parse_space([]), preset="tiny", data=data, weights=None,
        overrides=parse_assignments(list(SHRUNK)), rng_seed=int(DRAWS),
    )  # fmt: skip
    draws, trials, held_out = Draws(search, Store(store), 2, lambda known: None), [], {}
    for _ in range(3):
        known = draws.next()  # None: and the paper's own
        config = search.config(known.settings if known else {})
        task = task_of(config, data, Store(store))
        *_, last = records = list(held_out_trial(*task))
        held_out[cam_id(config)] = {k: last[k] for k in ("objective", "threshold", "held_out")}
        if known:
            for record in records:
                assert not draws.told(known, record), "stopped: take another seed"
            trials.append(asdict(known))
    return trials, held_out


def results(root: Path) -> tuple[list[Any], Any]:
    (folder,) = (root / "searches").iterdir()
    trials = [json.loads(path.read_text()) for path in sorted((folder / "trials").glob("*.json"))]
    return trials, json.loads((folder / "held_out.json").read_text())


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_killed_search_on_a_lost_machine_comes_to_what_an_unbroken_one_does(
    port: int, tmp_path: Path
) -> None:
    data = draw_voc(tmp_path / "pictures", num_train=12, num_extra=4, num_val=1)
    with start(data, f"s3://{BUCKET}/whole", tmp_path / "first") as driver:
        deadline = time.monotonic() + 300
        while not any(key.endswith("epoch_0001.pt") for key in second_training(port)):
            assert driver.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for pid in [*descendants(driver.pid), driver.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.communicate()
    left = [key for key in keys(port, "whole") if key.startswith("leases/")]
    assert len(left) == 2  # of the search and of its training
    for key in left:  # a minute later
        client(port).delete_object(Bucket=BUCKET, Key=f"whole/{key}")
    output = finish(start(data, f"s3://{BUCKET}/whole", tmp_path / "second"))
    assert "1 of 2 trials done, 1 to run" in output
    trials, held_out = results(tmp_path / "second")
    assert (trials, held_out) == unbroken(data, tmp_path / "unbroken")
    remote = open_store(f"s3://{BUCKET}/whole").remote
    assert remote
    Remote(remote.url, tmp_path / "third").pull_folder("searches")
    assert results(tmp_path / "third") == (trials, held_out)
    assert not [key for key in keys(port, "whole") if key.startswith("leases/")]


def descendants(pid: int) -> list[int]:
    """Return the processes that this one started, and those that they did, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def second_training(port: int) -> set[str]:
    """Return the objects of trainings that are not finished, once one is."""
    found = {key for key in keys(port, "whole") if key.startswith("cams/")}
    done = {key.split("/")[1] for key in found if key.endswith("done.json")}
    return {key for key in found if done and key.split("/")[1] not in done}
