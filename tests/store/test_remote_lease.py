"""A lease holds on all machines, ends with its holder, and is never held by two."""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout
from made_up.bucket_server import BUCKET, client, faulty_proxy
from waiting import wait_for

from sweeps.store.errors import StoreError
from sweeps.store.remote.bucket import Times
from sweeps.store.remote.lease import Lease, LeaseHeldError
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import Store

KEY = "x/leases/sweeps/s"


QUICK = Times(retry_delays=(0.01,), beat=0.1, poll=0.1)


@pytest.fixture(autouse=True)
def fresh(port: int) -> None:
    client(port).delete_object(Bucket=BUCKET, Key=KEY)


def lease(machine: Path, times: Times = QUICK) -> Lease:
    return Remote(f"s3://{BUCKET}/x", machine, times).lock("sweeps/s", machine / "driver.lock")


def content(port: int) -> dict[str, Any]:
    return json.loads(client(port).get_object(Bucket=BUCKET, Key=KEY)["Body"].read())


def test_a_lease_excludes_other_machines_until_it_is_released(port: int, tmp_path: Path) -> None:
    with lease(tmp_path / "a").acquire(timeout=0):
        with pytest.raises(LeaseHeldError) as caught:
            lease(tmp_path / "b").acquire(timeout=0.3)
        text = str(caught.value)
        assert text.startswith(f"s3://{BUCKET}/{KEY}: held by process {os.getpid()} on ")
        assert "s ago; it is free 60 s after the last one" in text
    with lease(tmp_path / "b").acquire(timeout=0) as held:
        held.check()
    assert "Contents" not in client(port).list_objects_v2(Bucket=BUCKET, Prefix=KEY)


def test_a_process_of_the_same_machine_is_refused_as_with_a_local_store(tmp_path: Path) -> None:
    with lease(tmp_path / "a").acquire(timeout=0), pytest.raises(Timeout) as caught:
        lease(tmp_path / "a").acquire(timeout=0)
    assert not isinstance(caught.value, LeaseHeldError)


def test_of_many_machines_at_once_one_gets_the_lease(tmp_path: Path) -> None:
    start, won, refused = threading.Barrier(6), [], []

    def race(number: int) -> None:
        own = lease(tmp_path / str(number))
        start.wait()
        try:
            won.append(own.acquire(timeout=0))
        except LeaseHeldError:
            refused.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 5)
    won[0].release()


def abandon(machine: Path) -> Lease:
    """Hold a lease, and die: no heartbeat and no file lock any more."""
    dead = lease(machine).acquire(timeout=0)
    dead._stop.set()
    dead._thread.join()
    dead.file_lock.release()
    return dead


def test_the_lease_of_a_dead_process_is_taken_over_once_it_is_old(tmp_path: Path) -> None:
    abandon(tmp_path / "a")
    with pytest.raises(LeaseHeldError):
        lease(tmp_path / "b").acquire(timeout=0)
    started = time.monotonic()
    with lease(tmp_path / "b", replace(QUICK, stale=1.5)).acquire(timeout=20):
        assert time.monotonic() - started < 15


def test_on_the_same_machine_a_dead_process_is_followed_at_once(tmp_path: Path) -> None:
    abandon(tmp_path / "a")
    with lease(tmp_path / "a").acquire(timeout=0) as held:
        held.check()
        assert not held.lost


def test_a_lease_that_lives_is_not_taken_over(port: int, tmp_path: Path) -> None:
    times = replace(QUICK, stale=3.0)
    with lease(tmp_path / "a", times).acquire(timeout=0) as held:
        first = content(port)["beat"]
        with pytest.raises(LeaseHeldError):
            lease(tmp_path / "b", times).acquire(timeout=5)
        assert content(port)["beat"] > first
        assert not held.lost


def test_a_holder_that_slept_notices_that_it_was_replaced_and_leaves_the_new_one_alone(
    port: int, tmp_path: Path
) -> None:
    told = threading.Event()
    sleeper = lease(tmp_path / "a").acquire(timeout=0)
    sleeper.on_lost = told.set
    s3 = client(port)
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=json.dumps({"token": "another"}))
    assert told.wait(20)
    with pytest.raises(StoreError, match=r"taken over by another process.*leave the work to"):
        sleeper.check()
    sleeper.release()
    assert content(port) == {"token": "another"}


def test_a_damaged_lease_is_held_by_a_process_that_is_not_known(port: int, tmp_path: Path) -> None:
    client(port).put_object(Bucket=BUCKET, Key=KEY, Body=b"")
    with pytest.raises(LeaseHeldError, match=r"held by an unknown process, .* damaged, last sign"):
        lease(tmp_path).acquire(timeout=0)


def test_who_has_lost_the_lease_of_a_folder_neither_finishes_nor_shares_it(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Remote(f"s3://{BUCKET}/x", tmp_path, QUICK)
    folder = Store(remote.mirror, remote).cam("c")
    with folder.hold():
        taken = json.dumps({"token": "another"})
        client(port).put_object(Bucket=BUCKET, Key="x/leases/cams/c", Body=taken)
        wait_for(lambda: f"{remote.url}/leases/cams/c: taken over" in caplog.text)
        for act in (folder.share, lambda: folder.finish({"epochs": 3})):
            with pytest.raises(StoreError, match="taken over by another process"):
                act()
    assert not (folder.path / "done.json").exists()


def test_no_error_ends_the_heartbeats_and_each_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with lease(tmp_path / "a").acquire(timeout=0) as held:
        bucket, held.bucket = held.bucket, None  # type: ignore[assignment]
        said = f"{KEY}: AttributeError: 'NoneType' object has no attribute 'put_bytes'; the lease"
        wait_for(lambda: caplog.text.count(f"{said} is not renewed") >= 3)
        first, held.bucket = held._beats, bucket
        wait_for(lambda: held._beats > first)
        held.bucket = None  # type: ignore[assignment]  # the work is done by then
    assert "; it ends by itself in 60 s" in caplog.text
    assert not held.file_lock.is_locked


def test_a_lease_whose_creation_or_renewal_was_answered_by_a_hang_up_is_ours(
    port: int, tmp_path: Path
) -> None:
    with faulty_proxy(port) as proxy:
        proxy.faults = [("PUT", "mute")]
        with lease(tmp_path / "a").acquire(timeout=0) as held:
            assert not proxy.faults
            held.check()
            before, proxy.faults = held._beats, [("PUT", "mute")]
            wait_for(lambda: not proxy.faults and held._beats > before + 2)
            held.check()
