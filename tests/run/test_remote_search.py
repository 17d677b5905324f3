"""A search in a bucket: what of its history goes up when, and who may drive it.

How a trial goes on elsewhere is in test_remote_trial.py, a whole search in test_search_whole.py.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_up.bucket_server import BUCKET, client, faulty_proxy, keys
from made_up.planned import SEARCH, search_trial

from sweeps.plan.search import load_search
from sweeps.run.driver import driving
from sweeps.run.subjects.search import DrivenSearch
from sweeps.store.errors import StoreError
from sweeps.store.remote.bucket import Times
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import Store, open_store
from wsss.training.diagnosis.learning import PriorLimits


@contextmanager
def driven(store: Store) -> Iterator[DrivenSearch]:
    """A search as its driver holds it."""
    subject = DrivenSearch(SEARCH, store, 3, PriorLimits())
    with driving(store, subject.what, "wait for it or end it") as lease:
        subject.begin_alone(lease.check)
        yield subject


def test_the_history_goes_up_with_every_epoch_and_to_the_next_machine(
    port: int, mirror: Path
) -> None:
    store = open_store(f"s3://{BUCKET}/history")
    with driven(store) as subject:
        for known in (search_trial(0, "running", 10.0), search_trial(0, "running", 10.0, 20.0)):
            subject.history.save(known)
            subject.share(known)
            key = f"history/searches/{SEARCH.name}/trials/0000.json"
            file = client(port).get_object(Bucket=BUCKET, Key=key)["Body"]
            assert json.load(file)["epochs"] == known.epochs
        row = {"objective": 20.0, "threshold": 0.3, "held_out": 19.0}
        subject.history.add_held_out("cam0", row)
        subject.share(None)
    shutil.rmtree(mirror)
    with driven(store) as subject:
        assert subject.history.trials() == [search_trial(0, "running", 10.0, 20.0)]
        assert set(subject.history.held_out()) == {"cam0"}
        subject.write_down()
        assert load_search(store, SEARCH.name).samples == 3


def test_the_losses_of_an_ended_trial_come_from_where_it_ran(
    port: int, mirror: Path, tmp_path: Path
) -> None:
    url, there = f"s3://{BUCKET}/losses", tmp_path / "there"
    store, known = open_store(url), search_trial(0, "running", 10.0)
    with driven(store) as subject:
        cam = Store(there, Remote(url, there)).cam(known.cam_id)
        cam.add_epoch({"epoch": 1, "loss": 0.5})
        cam.push()
        found = []
        for status in ("running", "finished"):
            subject.share(search_trial(0, status, 10.0))
            found.append([record["loss"] for record in store.cam(known.cam_id).epochs()])
    assert found == [[], [0.5]]


def test_a_bucket_that_is_away_does_not_end_the_search(
    port: int, mirror: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Remote(f"s3://{BUCKET}/refusing", mirror, Times(retry_delays=(0.01,), beat=1000.0))
    store, known = Store(mirror, remote), search_trial(0, "running", 10.0)
    key = f"searches/{SEARCH.name}/trials/0000.json"
    with faulty_proxy(port) as proxy, driven(store) as subject:
        subject.history.save(known)
        proxy.faults = [("PUT", "cut")] * 2
        with caplog.at_level(logging.WARNING):
            subject.share(known)
        assert "nothing is lost on this machine" in caplog.text
        assert "the search continues" in caplog.text
        assert key not in keys(port, "refusing")
        subject.share(known)
        assert key in keys(port, "refusing")


def test_what_is_driven_is_driven_from_one_machine_at_a_time(
    port: int, mirror: Path, tmp_path: Path
) -> None:
    url, other = f"s3://{BUCKET}/twice", tmp_path / "other"
    with driven(open_store(url)):
        there = Store(other, Remote(url, other))
        with (
            pytest.raises(StoreError, match=rf"runs search {SEARCH.name} \(s3.*held by process"),
            driven(there),
        ):
            pass
    with driven(there):
        pass


def test_who_lost_the_lease_uploads_nothing_and_ends_with_the_reason(
    port: int, mirror: Path
) -> None:
    store, known = open_store(f"s3://{BUCKET}/lost"), search_trial(0, "running", 10.0)

    def lose() -> None:
        subject = DrivenSearch(SEARCH, store, 3, PriorLimits())
        with driving(store, subject.what, "wait") as lease:
            subject.begin_alone(lease.check)
            subject.history.save(known)
            lease.lost = True
            subject.share(known)

    with pytest.raises(StoreError, match="taken over by another process"):
        lose()
    assert f"searches/{SEARCH.name}/trials/0000.json" not in keys(port, "lost")
