"""A search in a bucket: trials on an empty machine, and what of its history goes up when."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BUCKET, client, faulty_proxy, keys

from sweeps.plan.search import Search, SearchTrial, make_search, parse_space
from sweeps.run.driver import driving
from sweeps.run.subjects.search import DrivenSearch
from sweeps.stages.stage import Place
from sweeps.stages.trial import held_out_trial, search_trial
from sweeps.store import bucket as remote_bucket
from sweeps.store import lease as lease_module
from sweeps.store.lease import Lease
from sweeps.store.remote import Remote
from sweeps.store.store import Store, StoreError, open_store
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.overrides import apply_overrides
from wsss.training.prior import PriorLimits
from wsss.training.process import Process

REPO = Path(__file__).parents[1]
ONE = Process()


@pytest.fixture(scope="module")
def full(small: RunConfig) -> RunConfig:
    return apply_overrides(small, F3)


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
    first = {f"{cam}/checkpoints/epoch_0001.pt", f"{cam}/epochs/0001.json", f"leases/{cam}"}
    assert first <= held.keys()
    shutil.rmtree(mirror)
    # The checkpoint of the epoch that was just reported is written with the next: it is repeated.
    seen += list(held_out_trial(*task))
    assert [record["epoch"] for record in seen] == [1, 2, 2, 3]
    plain = [{key: row[key] for key in ("epoch", "objective", "threshold")} for row in whole]
    assert [*seen[:2], seen[3]] == [*plain[:2], whole[2]]
    ours, theirs = (s.cam(cam_id(full)) for s in (task[2].store, Store(tmp_path / "local")))
    assert [e["step_losses"] for e in ours.epochs()] == [e["step_losses"] for e in theirs.epochs()]
    assert keys(port, "trial").keys() == {
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
