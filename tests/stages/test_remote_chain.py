"""A chain in a bucket: its machine lost after, and in the middle of, stages.

Refused uploads and checkpoints of a lost machine are in test_remote_trial.py.
"""

import json
import shutil
import threading
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from commands import options, sweeps
from made_up.bucket_server import BUCKET, client, keys
from outcomes import CHAIN, EXPLANATORY, ChainFolders, pictures

from sweeps.plan.chains.chain import ChainConfig
from sweeps.run.subjects.headline import bring_results
from sweeps.stages.labels import InferCams
from sweeps.stages.segmentation import Predict, TrainDeepLab
from sweeps.stages.stage import Conduct, Place, Record, Steps, attempt, complete
from sweeps.stages.train_cam import trained
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import Folder, Store, open_store
from wsss.data.voc import VocDataset
from wsss.training.checkpoint_names import checkpoint_name
from wsss.training.process import Process

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, finished_chain: Path) -> Path:
    return Path(shutil.copytree(finished_chain, tmp_path_factory.mktemp("unbroken") / "store"))


@pytest.fixture(scope="module")
def in_bucket(port: int, unbroken: Path) -> str:
    """The same store in the bucket, for tests that copy it."""
    for room in ("cams", "maps", "walks", "labels", "segmentations", "predictions"):
        Remote(f"s3://{BUCKET}/unbroken", unbroken).push_folder(room)
    return "unbroken"


def place_in(data: Path, prefix: str) -> Place:
    return Place(open_store(f"s3://{BUCKET}/{prefix}"), data)


def predicted(chain: ChainConfig, place: Place) -> Generator[Record, None, None]:
    """Run a chain to its end."""
    for record in complete(Predict(chain), place):
        if record.progress:  # not that a stage begins
            yield record


def copied(port: int, source: str, prefix: str, *, without: tuple[str, ...]) -> None:
    """Copy objects within the bucket, but for some of the store's folders."""
    s3 = client(port)
    for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{source}/")["Contents"]:
        rel = item["Key"].removeprefix(f"{source}/")
        if not rel.startswith(without):
            s3.copy_object(
                Bucket=BUCKET, Key=f"{prefix}/{rel}", CopySource=f"{BUCKET}/{item['Key']}"
            )


def outcome(root: Path, chain: ChainConfig) -> dict[str, Any]:
    """Return what a chain came to: label maps, predictions, figures."""
    found = json.loads((ChainFolders(root, chain).predictions / "done.json").read_text())
    figures = {key: value for key, value in found.items() if key not in EXPLANATORY}
    return figures | pictures(root, chain, "labels", "predictions")


def test_a_chain_whose_machine_is_lost_after_every_stage_does_none_twice(
    port: int, drawn: Path, tiny_chain: ChainConfig, mirror: Path, unbroken: Path
) -> None:
    place, done = place_in(drawn, "lost"), list[str]()
    while True:
        loop = predicted(tiny_chain, place)
        own = list[str]()
        for record in loop:
            if own and record.stage.title != own[-1]:
                break
            own.append(record.stage.title)
        loop.close()  # a stage later, of which nothing was uploaded yet
        if not own:
            break
        done.append(own[0])
        shutil.rmtree(mirror)
        if own[0] == CHAIN[-1]:
            break
    assert done == CHAIN
    assert list(predicted(tiny_chain, place)) == []  # the last machine only looks at it
    bring_results(place.store, tiny_chain)
    place.store.folder(f"labels/{tiny_chain.labels_id}").pull()
    assert outcome(mirror, tiny_chain) == outcome(unbroken, tiny_chain)
    local = {p.relative_to(unbroken).as_posix() for p in unbroken.rglob("*") if p.is_file()}
    assert {name for name in keys(port, "lost") if "/attempts/" not in name} == {
        name for name in local if not name.endswith(".lock") and "/attempts/" not in name
    }


def test_images_of_a_stage_that_were_uploaded_are_not_done_again(
    port: int, in_bucket: str, drawn: Path, tiny_chain: ChainConfig, mirror: Path, unbroken: Path
) -> None:
    later = ("labels", "segmentations", "predictions", "walks")
    copied(port, in_bucket, "images", without=("maps", *later))
    place, folder = replace(place_in(drawn, "images"), share_every=5), f"maps/{tiny_chain.maps_id}"

    def in_bucket_now() -> int:
        return len([key for key in keys(port, "images") if key.startswith(folder)])

    loop, done = predicted(tiny_chain, place), list[float]()
    while len(done) < 7:
        record = next(loop)
        assert record.stage.title == "infer CAMs"
        done.append(record.progress)
    assert done[-1] == 7 / 16
    loop.close()
    assert in_bucket_now() == 5
    assert next(predicted(tiny_chain, place)).progress == 1 / 9  # here are seven: two go up now
    assert in_bucket_now() == 7
    shutil.rmtree(mirror)
    assert next(predicted(tiny_chain, place)).progress == 1 / 9
    list(complete(InferCams(tiny_chain), place))
    place.store.folder(folder).pull()
    for path in ChainFolders(unbroken, tiny_chain).maps.glob("*.npz"):
        assert (mirror / folder / path.name).read_bytes() == path.read_bytes()


class Ranks:
    """Two ranks as threads, whose `gather` exchanges items through a list."""

    def __init__(self) -> None:
        self.items: list[Any] = [None, None]
        self.barrier = threading.Barrier(2, timeout=60)

    def rank(self, number: int) -> Process:
        ranks = self

        class Rank(Process):
            def gather(self, item: Any) -> list[Any]:
                ranks.items[number] = item
                ranks.barrier.wait()
                found = list(ranks.items)
                ranks.barrier.wait()
                return found

        return Rank(number, 2)


@dataclass(frozen=True)
class _Started(TrainDeepLab):
    """A training that is done as soon as it has brought what it starts from."""

    def run(self, place: Place, folder: Folder) -> Steps:
        self.label_maps(place, VocDataset(place.data).image_ids("train_aug"))
        yield from ()
        return trained(folder, place)


def test_ranks_on_two_machines_start_deeplab_with_the_same_checkpoints_and_labels(
    port: int, in_bucket: str, drawn: Path, tiny_chain: ChainConfig, tmp_path: Path
) -> None:
    copied(port, in_bucket, "ranks", without=("segmentations", "predictions"))
    rel = f"segmentations/{tiny_chain.segmentation_id}/checkpoints"
    mirrors, ranks = [tmp_path / "first", tmp_path / "second"], Ranks()
    held = [
        {checkpoint_name(3): b"3", checkpoint_name(3, 70): b"3 and a part"},
        {checkpoint_name(3, 80): b"never uploaded"},
    ]
    for mirror, files in zip(mirrors, held, strict=True):
        (mirror / rel).mkdir(parents=True)
        for name, content in files.items():
            (mirror / rel / name).write_bytes(content)

    def start(number: int) -> None:
        root = mirrors[number]
        store = Store(root, Remote(f"s3://{BUCKET}/ranks", root))
        conduct = Conduct(accept_changes=True)
        own = Place(store, drawn, conduct=conduct, rank=ranks.rank(number))
        with pytest.raises(StopIteration):
            next(attempt(_Started(tiny_chain), own))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mirror in mirrors:
        assert {p.name: p.read_bytes() for p in (mirror / rel).iterdir()} == held[0]
        assert len(list((ChainFolders(mirror, tiny_chain).labels / "png").iterdir())) == 16


def headline(data: Path, mirror: Path, database: Path) -> str:
    mirror.mkdir()
    shutil.copy(database, mirror)
    settings = {"iterations": 8, "batch_size": 4, "crop_size": 49, "test_scales": "[0.5]"}
    where = ("--preset", "tiny", "--data", data, "--store", f"s3://{BUCKET}/headline")
    words = ("masks", "--export", "train")
    words += (*where, *options(settings, "--set-segmentation"))
    done = sweeps("headline", *words, COLUMNS="160", WSSS_MIRROR=str(mirror))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_leaves_report_archive_and_network_in_the_bucket_for_any_machine(
    port: int, drawn: Path, tmp_path: Path, mlflow_database: Path
) -> None:
    first = headline(drawn, tmp_path / "first", mlflow_database)
    assert "train DeepLab 100 %" in first
    there = keys(port, "headline")
    names = {key.split("/")[0] + "/" + key.rpartition("/")[2] for key in there}
    assert names > {
        "headline/headline.html",
        "headline/headline.csv",
        "predictions/comp6_test_cls.tar",
        "predictions/done.json",
        "segmentations/done.json",
    }
    assert [key for key in there if key.startswith("mlartifacts/")]
    assert not [key for key in there if key.startswith("leases/")]
    assert "100 %" not in headline(drawn, tmp_path / "second", mlflow_database)
    one, other = (
        next((tmp_path / name / "headline").glob("*/report/headline.csv"))
        for name in ("first", "second")
    )
    assert one.read_text() == other.read_text()
