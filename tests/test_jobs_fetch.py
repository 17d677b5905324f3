"""Results are fetched from a bucket without a cluster, or packed on the head out of the bucket."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_server import BUCKET, client, moto_server

from sweeps.cluster.export import pack
from sweeps.cluster.fetch import fetch_from_bucket
from sweeps.store.store import Store, StoreError, open_store

URL = f"s3://{BUCKET}/lab"
FILES = {
    "cams/c/epochs/0001.json": '{"epoch": 1}\n',
    "cams/c/checkpoints/epoch_0001.pt": "weights",
    "cams/c/done.json": "{}",
    "runs/a/done.json": '{"from": "bucket"}',
    "runs/b/done.json": '{"from": "bucket"}',
    "sweeps/n/sweep.json": "{}",
}


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bucket with FILES, which another machine's mirror has uploaded; give that mirror."""
    with moto_server():
        monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "mirror"))
        store = open_store(URL)
        for name, content in FILES.items():
            (store.root / name).parent.mkdir(parents=True, exist_ok=True)
            (store.root / name).write_text(content)
        for folder in ("cams", "runs", "sweeps"):
            store.push_folder(store.root / folder)
        yield store.root


def test_a_bucket_is_fetched_without_weights_and_finished_results_stay(
    filled: Path, tmp_path: Path
) -> None:
    target = tmp_path / "here"
    (target / "runs" / "a").mkdir(parents=True)
    (target / "runs" / "a" / "done.json").write_text('{"from": "here"}')
    fetched = fetch_from_bucket(URL, target, checkpoints=False)
    assert Store(target).run("a").metrics() == {"from": "here"}
    assert Store(target).run("b").metrics() == {"from": "bucket"}
    assert Store(target).cam("c").epochs() == [{"epoch": 1}]
    assert Store(target).sweep_names() == ["n"]
    assert not (target / "cams/c/checkpoints").exists()
    # an epoch, done.json, run b, sweep.json; run a was here
    assert (fetched.num_files, fetched.num_kept) == (4, 1)
    assert fetched.num_bytes == 13 + 2 + 18 + 2


def test_weights_come_from_a_bucket_only_if_asked_for(filled: Path, tmp_path: Path) -> None:
    fetch_from_bucket(URL, tmp_path / "here", checkpoints=True)
    assert (tmp_path / "here/cams/c/checkpoints/epoch_0001.pt").read_text() == "weights"


def test_fetching_again_brings_only_what_is_new(filled: Path, tmp_path: Path) -> None:
    fetch_from_bucket(URL, tmp_path / "here", checkpoints=False)
    client(_port()).put_object(Bucket=BUCKET, Key="lab/leases/x", Body=b"no result")
    assert fetch_from_bucket(URL, tmp_path / "here", checkpoints=False).num_files == 0


def test_a_bucket_without_results_is_an_error(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no results in it"):
        fetch_from_bucket(f"s3://{BUCKET}/elsewhere", tmp_path / "here", checkpoints=False)
    assert not (tmp_path / "here").exists()


def test_the_notes_of_a_mirror_are_not_packed(filled: Path, tmp_path: Path) -> None:
    assert (filled / ".synced").is_dir()
    assert pack(filled, tmp_path / "a.tar.gz", checkpoints=True) == len(FILES)
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert sorted(tar.getnames()) == sorted(FILES)


def _port() -> int:
    return int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
