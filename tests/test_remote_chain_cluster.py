"""A chain on a Ray cluster whose nodes share nothing but a bucket gives what one process gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from bucket_server import BUCKET, moto_server

from sweeps.chain import ChainConfig, ChainFolders
from sweeps.chain_cluster import Cluster
from sweeps.chain_stages import Here, run_chain
from sweeps.chain_work import ChainTask
from sweeps.resources import Resources
from sweeps.run import start_ray
from wsss.training.process import Process

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # Ray Train's own imports
]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's tasks have this mirror, the driver another one: two machines."""
    with moto_server():
        monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "node"))
        start_ray(Resources(workers=2))
        monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "driver"))
        yield tmp_path / "node"
        ray.shutdown()


def test_nodes_find_the_inputs_of_their_stages_in_the_bucket(
    node: Path, tmp_path: Path, drawn: Path, tiny_chain: ChainConfig
) -> None:
    for _ in run_chain(ChainTask(tiny_chain, tmp_path / "alone", drawn, None), Here(Process())):
        pass
    task = ChainTask(tiny_chain, Path("unused"), drawn, None, remote=f"s3://{BUCKET}/cluster")
    place = Cluster(Resources(cpus=1))
    assert list(dict.fromkeys(stage for stage, _, _ in run_chain(task, place))) == [
        "train CAM", "infer CAMs", "learn affinity", "random walk", "write labels",
        "train DeepLab", "predict",
    ]  # fmt: skip
    assert len(list((node / "maps").rglob("*.npz"))) == 16
    driver = tmp_path / "driver"
    assert not list(driver.rglob("*.npz"))  # it needs none
    ours, theirs = ChainFolders(driver, tiny_chain), ChainFolders(tmp_path / "alone", tiny_chain)
    for kind in ("labels", "predictions"):
        found, expected = (
            {path.name: path.read_bytes() for path in (getattr(folders, kind) / "png").iterdir()}
            for folders in (ours, theirs)
        )
        assert found == expected, kind
    one, other = (
        json.loads((folders.predictions / "metrics.json").read_text()) for folders in (ours, theirs)
    )
    assert (one["miou"], one["labels_score"]) == (other["miou"], other["labels_score"])
    assert one["train_seconds"] > 0
    assert list(run_chain(task, place)) == []
