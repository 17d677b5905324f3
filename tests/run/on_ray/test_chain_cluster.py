"""A chain on Ray gives what it gives in one process: images as tasks, DeepLab by Ray Train.

So it does on nodes which share nothing but a bucket.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from made_up.bucket_server import BUCKET
from outcomes import CHAIN, ChainFolders, pictures, stages_in

from sweeps.plan.chains.chain import ChainConfig
from sweeps.run.ray.crew import Cluster, map_shards, split_shards
from sweeps.run.ray.ending import AskedToEnd, ask_to_end
from sweeps.run.ray.resources import Resources
from sweeps.run.ray.start import start_ray
from sweeps.stages.segmentation import Predict
from sweeps.stages.stage import Crew, EndedEarlyError, Place, complete
from sweeps.stages.train_cam import TrainCam
from sweeps.store.store import Store, open_store
from wsss.basics.errors import ForeseenError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # Ray Train's own imports
]


def run(chain: ChainConfig, store: Store, data: Path, crew: Crew) -> list[str]:
    """Run a chain; return the stages that did something, in order."""
    return stages_in(complete(Predict(chain), Place(store, data, crew=crew)))


@pytest.fixture(scope="module")
def cluster(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray whose tasks have the mirror `node` in this folder, the driver `driver`: two machines."""
    mirrors = tmp_path_factory.mktemp("mirrors")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WSSS_MIRROR", str(mirrors / "node"))
        start_ray(Resources(workers=2))
        patched.setenv("WSSS_MIRROR", str(mirrors / "driver"))
        # Workers cannot import tests.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield mirrors
        ray.shutdown()


def test_nodes_find_the_inputs_of_their_stages_in_the_bucket(
    cluster: Path, drawn: Path, tiny_chain: ChainConfig, finished_chain: Path
) -> None:
    store, crew = open_store(f"s3://{BUCKET}/cluster"), Cluster(Resources(cpus=1))
    assert run(tiny_chain, store, drawn, crew) == CHAIN
    assert len(list((cluster / "node" / "maps").rglob("*.npz"))) == 16
    driver = cluster / "driver"
    kept = {path.name for path in driver.rglob("*.npz")}
    assert kept == {"image_counts.npz"}  # of the maps it needs none
    for root, kind in ((driver, "predictions"), (cluster / "node", "labels")):
        assert pictures(root, tiny_chain, kind) == pictures(finished_chain, tiny_chain, kind)
    one, other = (
        json.loads((ChainFolders(root, tiny_chain).predictions / "done.json").read_text())
        for root in (driver, finished_chain)
    )
    assert (one["miou"], one["labels_score"]) == (other["miou"], other["labels_score"])
    assert one["train_seconds"] > 0
    assert run(tiny_chain, store, drawn, crew) == []


@pytest.mark.usefixtures("cluster")
def test_on_a_store_without_a_bucket_tasks_and_two_workers_do_what_one_process_does(
    tmp_path: Path, drawn: Path, tiny_chain: ChainConfig, finished_chain: Path
) -> None:
    shutil.copytree(finished_chain, tmp_path, dirs_exist_ok=True)
    for kind in ("labels", "segmentations", "predictions"):
        shutil.rmtree(tmp_path / kind)
    crew = Cluster(Resources(workers=2))
    assert run(tiny_chain, Store(tmp_path), drawn, crew) == CHAIN[-3:]
    folders = [ChainFolders(root, tiny_chain) for root in (tmp_path, finished_chain)]
    assert pictures(tmp_path, tiny_chain, "labels") == pictures(
        finished_chain, tiny_chain, "labels"
    )
    assert run(tiny_chain, Store(tmp_path), drawn, crew) == []
    newest = (max((each.segmentation / "checkpoints").glob("*.pt")) for each in folders)
    ours, theirs = (torch.load(path, weights_only=True)["model"] for path in newest)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)


IDS = [f"picture{number}" for number in range(40)]


def note(folder: str, image_ids: list[str]) -> Iterator[str]:
    for image_id in image_ids:
        (Path(folder) / image_id).write_text(str(os.getpid()))
        yield image_id


def die_once(folder: str, image_ids: list[str]) -> Iterator[str]:
    """End the process by force in the middle of the first shard, the first time."""
    for image_id in image_ids:
        flag = Path(folder) / "died"
        if image_id == "picture4" and not flag.exists():
            flag.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        yield from note(folder, [image_id])


def refuse(folder: str, image_ids: list[str]) -> Iterator[str]:
    yield image_ids[0]
    raise ForeseenError(f"{image_ids[1]}: broken; replace it")


@pytest.mark.usefixtures("cluster")
def test_a_killed_task_is_run_again_and_no_image_is_told_twice(tmp_path: Path) -> None:
    done = list(map_shards(die_once, str(tmp_path), IDS, Resources()))
    assert (tmp_path / "died").exists()
    assert sorted(done) == sorted(IDS)


def stay_until_asked(folder: str, image_ids: list[str]) -> Iterator[str]:
    """Do one image, and wait until the end is asked for."""
    yield image_ids[0]
    asked = AskedToEnd()
    while not asked():
        time.sleep(0.1)


@pytest.mark.usefixtures("cluster")
def test_tasks_that_are_asked_to_end_are_waited_for_and_what_they_did_is_told(
    tmp_path: Path,
) -> None:
    words: list[Any] = []

    def ask() -> None:
        if not words:
            words.append(ask_to_end())

    done = list(map_shards(stay_until_asked, str(tmp_path), IDS, Resources(), ask))
    assert sorted(done) == sorted(IDS[::8]), "the first image of each shard"


@pytest.mark.usefixtures("cluster")
def test_a_task_for_which_there_is_no_node_is_not_waited_for_once_the_end_is_asked_for(
    store: Store, drawn: Path, tiny_chain: ChainConfig
) -> None:
    place = Place(store, drawn, is_ending=lambda: True)
    with pytest.raises(EndedEarlyError):
        list(Cluster(Resources(cpus=1000)).work(TrainCam(tiny_chain.run), place))


@pytest.mark.usefixtures("cluster")
def test_the_error_of_a_task_reaches_the_caller_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ForeseenError, match="broken; replace it"):
        list(map_shards(refuse, str(tmp_path), IDS, Resources()))


def test_shards_hold_each_image_once_in_order_and_none_is_tiny() -> None:
    shards = split_shards(IDS, num_slots=2)
    assert [image for shard in shards for image in shard] == IDS
    assert [len(shard) for shard in shards] == [8, 8, 8, 8, 8]
    assert [len(shard) for shard in split_shards(IDS * 10, num_slots=2)] == [50] * 8
    assert split_shards([], num_slots=2) == []
