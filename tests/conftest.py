"""Data that several test files share: a small drawn tree, and the real pictures where they are."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from sweeps.plan.chains.chain import ChainConfig
from sweeps.run.ray.start import TOKEN
from sweeps.stages.segmentation import Predict
from sweeps.stages.stage import Place, complete
from sweeps.store.store import Store
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.data.drawn.folder import draw_voc
from wsss.data.voc import Sample, VocDataset
from wsss.overrides import apply_overrides
from wsss.presets import TINY, TINY_DEEPLAB
from wsss.segmentation_config import PseudoLabelConfig

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` in a script ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as `nohup make test` ignores this
os.fsync = lambda fd: None  # thousands of small files, and no power cut: minutes on a slow disk
os.sync = lambda: None
os.environ["WSSS_CACHE"] = tempfile.mkdtemp(prefix="wsss-cache-")  # also for commands run by tests
atexit.register(shutil.rmtree, os.environ["WSSS_CACHE"], ignore_errors=True)
os.environ.setdefault("RAY_AUTH_TOKEN", TOKEN)  # Ray reads it once in a process, whoever starts it

SHARED = Path(__file__).parents[2] / "shared"
"""Beside the checkout: pictures and weights that may not be copied into the project."""


LONG = (
    "test_known_answer.py",
    "test_host_sync.py",
    "test_headline.py",
    "test_remote_chain.py",
    "test_wsss_cli.py",
)
"""Files that start no Ray and take half a minute all the same."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first: they would leave one of two workers idle at the end."""
    long = {item.path for item in items if item.get_closest_marker("cluster")}
    items.sort(key=lambda item: item.path not in long and item.path.name not in LONG)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn tree to read: train 10, train_aug 16, val 3 images. Copy it before you change it."""
    return draw_voc(tmp_path_factory.mktemp("data") / "voc", num_train=10, num_extra=6, num_val=3)


@pytest.fixture(scope="session")
def samples(drawn: Path) -> list[Sample]:
    """The 16 images of train_aug."""
    return VocDataset(drawn).samples("train_aug")


@pytest.fixture(scope="session")
def small() -> RunConfig:
    """The tiny preset shrunk further: an epoch over the drawn tree takes about a fifth second."""
    return apply_overrides(
        TINY,
        {
            "network.fpn_channels": 16,
            "network.atrous_channels": 16,
            "network.batch_norm": "train",
            "train.epochs": 3,
            "train.batch_size": 4,
            "train.crop_size": 48,
            "train.min_long_side": 48,
            "train.max_long_side": 80,
            "train.lr": 0.2,
            "train.head_lr_multiplier": 1.0,
            "train.momentum": "standard",
            "train.clip_norm": 1.0,
            "labels.scales": (0.5,),
        },
    )


@pytest.fixture(scope="session")
def wild(small: RunConfig) -> RunConfig:
    """`small` at rates at which it diverges in its first steps."""
    return apply_overrides(
        small,
        {
            "train.lr": 10,
            "train.head_lr_multiplier": 1e6,
            "train.pyramid_lr_multiplier": 1e6,
            "train.clip_norm": None,
            "network.batch_norm": "frozen",
        },
    )


@pytest.fixture(scope="session")
def stuck(small: RunConfig) -> RunConfig:
    """`small` at a rate so small that nothing is learnt."""
    return apply_overrides(small, {"train.lr": 1e-12})


@pytest.fixture(scope="session")
def tiny_chain(small: RunConfig) -> ChainConfig:
    """Return a chain of all stages that takes a quarter of a minute on the drawn tree.

    Two workers train its DeepLab as one does: statistics of a batch would differ.
    """
    run = apply_overrides(small, F3 | {"train.epochs": 1})
    walk = {
        "epochs": 1,
        "batch_size": 4,
        "crop_size": 64,
        "min_long_side": 64,
        "max_long_side": 96,
        "log_steps": 2,
    }
    labels = {"refinement": "random_walk"} | {f"random_walk.{k}": v for k, v in walk.items()}
    segmentation = {
        "iterations": 8,
        "batch_size": 4,
        "crop_size": 49,
        "test_scales": (0.5,),
        "test_flip": False,
        "batch_norm": "frozen",
    }
    return ChainConfig(
        run=run,
        labels=apply_overrides(PseudoLabelConfig(), labels),
        segmentation=apply_overrides(TINY_DEEPLAB, segmentation),
    )


@pytest.fixture(scope="session")
def finished_chain(
    tmp_path_factory: pytest.TempPathFactory, drawn: Path, tiny_chain: ChainConfig
) -> Path:
    """A store with the chain done in one go, once for all processes of the tests. To read."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished_chain"
    with FileLock(f"{root}.lock"):
        stage, place = Predict(tiny_chain), Place(Store(root), drawn)
        if not stage.is_done(place):
            list(complete(stage, place))
    return root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of an empty object store, to which AWS_ENDPOINT_URL points."""
    from made_up.bucket_server import moto_server

    with moto_server() as port:
        yield port


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow, which takes seconds to make one. To copy."""
    from sweeps.track.tracker import open_client

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's mirror of a bucket; a test which deletes it has another machine."""
    monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture(scope="session")
def shared_voc() -> Path:
    """A real part of PASCAL VOC 2012."""
    return _found(SHARED / "voc" / "VOC2012")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """ImageNet weights of a MobileNetV2, without its classifier."""
    return _found(SHARED / "weights" / "mobilenet_v2-imagenet-features.pt")


def _found(path: Path) -> Path:
    if path.exists():
        return path
    name = path.relative_to(SHARED.parent)
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing beside the checkout, and CI=true forbids to skip it")
    pytest.skip(f"{name} is not beside the checkout")
