"""How trainings are carried out: from the options of each command to each training."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from commands import sweeps, wsss
from ray.train.torch import TorchConfig

from sweeps.cli.method.run_folder import Run
from sweeps.cli.options import execution
from sweeps.plan.chains.chain import ChainConfig
from sweeps.run.ray.crew import Cluster
from sweeps.run.ray.resources import Resources
from sweeps.run.ray.train import fit
from sweeps.stages.labels import LearnAffinity
from sweeps.stages.segmentation import TrainDeepLab
from sweeps.stages.stage import Place
from sweeps.stages.train_cam import TrainCam
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.labels.sources import sources_of
from wsss.overrides import ConfigError
from wsss.training.execution import Execution
from wsss.training.process import Process

OPTIONS = ("--loader-workers", "2", "--micro-batch", "4", "--checkpoint-minutes", "1.5")
ASKED = Execution(num_loader_workers=2, micro_batch=4, checkpoint_minutes=1.5)
COMMANDS = {
    "run": ("run", "VI"),
    "probe": ("run", "VI", "--probe", "10"),
    "calibrate": ("calibrate",),
    "search": ("search",),
    "headline": ("headline",),
}


def sweeps_command(name: str, data: Path, store: Path, *more: str) -> Result:
    words = [*COMMANDS[name], "--preset", "tiny", "--data", str(data), "--store", str(store)]
    return sweeps(*words, *more)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """Replace a function, whose calls are no-ops then: their arguments and options in a row."""

    def watch(name: str) -> list[Any]:
        calls: list[Any] = []
        monkeypatch.setattr(name, lambda *words, **options: calls.append((*words, options)) or 0)
        return calls

    return watch


def test_what_is_left_out_is_the_default_of_a_training() -> None:
    assert execution(None, "auto", 10.0) == Execution()
    assert execution(0, "8", 0.0) == Execution(0, 8, 0.0)


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "2.5", "", "1" * 5000])
def test_a_micro_batch_that_is_no_number_of_images_is_refused(wrong: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--micro-batch .*: give the number of images .* or auto"
    ):
        execution(None, wrong, 10.0)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_refuses_a_wrong_micro_batch_before_anything_else(
    name: str, tmp_path: Path
) -> None:
    done = sweeps_command(name, tmp_path / "no-data", tmp_path / "store", "--micro-batch", "none")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --micro-batch 'none': give the number of images")


@pytest.mark.parametrize("name", ["run", "calibrate", "search", "headline"])
def test_each_command_hands_them_to_the_driver(
    given: Callable[[str], list[Any]], drawn: Path, tmp_path: Path, name: str
) -> None:
    calls = given("sweeps.run.driver.drive")
    sweeps_command(name, drawn, tmp_path, *OPTIONS, "--gpus", "0.5")
    ((_, resources, _),) = calls
    assert resources.execution == Execution(2, 4, 1.5, gpu_share=0.5)
    assert resources.num_workers == (0 if name == "search" else 1)


def test_a_probe_trains_as_the_sweep_would(
    given: Callable[[str], list[Any]], drawn: Path, tmp_path: Path
) -> None:
    calls = given("sweeps.run.probe.probe_sweep")
    sweeps_command("probe", drawn, tmp_path, *OPTIONS)
    ((_, _, resources, probe, _),) = calls
    assert resources.execution == probe.execution == Execution(2, 4, 1.5)


def test_a_submitted_sweep_gets_the_words_that_were_given(
    given: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    given("sweeps.cli.service.cluster.connect")
    calls = given("sweeps.cluster.jobs.submit")
    table = tmp_path / "mine.yaml"
    table.write_text("{name: mine, title: t, row_names: [a], rows: [{labels: [b]}]}")
    more = (
        *("--table", str(table), "--grid", "transfer.lambda_s=0,1", "--workers", "2"),
        *(*OPTIONS, "--budget", "8.0", "--hang-after", "60.0", "--accept-changes"),
    )
    project = ("--working-dir", str(tmp_path))
    for words in ((), more):
        sweeps("submit", "VI", "--gpus", 1, *project, *words)
    plain, asked = (call[1] for call in calls)
    assert plain.words == ["VI", "--gpus", "1.0"]
    there = ["VI", "--gpus", "1.0", "--table", "mine.yaml", *more[2:]]
    assert sorted(asked.words) == sorted(there)
    assert asked.files == ["mine.yaml"]
    assert asked.name == "VI-mine-grid-lambda_s-tiny"
    elsewhere = ("--working-dir", str(tmp_path / "x"))
    done = sweeps("submit", *more, *elsewhere)
    assert (done.exit_code, "only files in it are uploaded" in done.output) == (2, True)


def test_one_training_on_the_command_line_is_carried_out_so(
    given: Callable[[str], list[Any]], drawn: Path, tmp_path: Path
) -> None:
    calls = given("sweeps.stages.train_cam.train_cam")
    wsss("train-cam", "--run", tmp_path / "run", "--data", drawn, "--preset", "tiny", *OPTIONS)
    assert calls[0][-1]["process"].execution == ASKED


def test_pseudo_labels_learn_their_affinities_so_and_their_images_are_shared_as_asked(
    given: Callable[[str], list[Any]],
    drawn: Path,
    tmp_path: Path,
    small: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = VocDataset(drawn)
    trained_on = sources_of(dataset, dataset.image_ids(small.data.train_split))
    run = Run(
        folder=tmp_path,
        config=small,
        data=drawn,
        weights_file=None,
        classes=dataset.classes,
        trained_on=trained_on,
    )
    monkeypatch.setattr("sweeps.cli.method.run_folder.recall", lambda folder: run)
    monkeypatch.setattr("sweeps.run.ray.start.running_ray", nullcontext)
    given("sweeps.cli.method.work.require_trained")
    calls = given("sweeps.cli.method.work.complete_shown")
    wsss("pseudo-label", "--run", tmp_path, *OPTIONS)
    wsss("pseudo-label", "--run", tmp_path, "--address", "local", "--cpus", "0.5", *OPTIONS)
    here, on_ray = (call[1] for call in calls)
    assert here.execution == on_ray.execution == ASKED
    assert not isinstance(here.crew, Cluster)
    assert on_ray.crew.resources == Resources(workers=0, cpus=0.5)


def test_every_training_of_a_chain_is_carried_out_alike(
    monkeypatch: pytest.MonkeyPatch, drawn: Path, tmp_path: Path, tiny_chain: ChainConfig
) -> None:
    given: list[Execution] = []

    def train_cam(*_: Any, process: Process, **__: Any) -> list[Any]:
        given.append(process.execution)
        return []

    def training(*_: Any, process: Process, **__: Any) -> Any:
        given.append(process.execution)
        return SimpleNamespace(epochs=list)

    monkeypatch.setattr("sweeps.stages.train_cam.train_cam", train_cam)
    for name in ("labels.affinity_training", "segmentation.segmentation_training"):
        monkeypatch.setattr(f"sweeps.stages.{name}", training)
    place = Place(Store(tmp_path), drawn, execution=ASKED)
    for stage in (TrainCam(tiny_chain.run), LearnAffinity(tiny_chain), TrainDeepLab(tiny_chain)):
        assert list(stage.run(place, place.store.folder(stage.rel))) == []
    assert given == [ASKED] * 3


@pytest.mark.parametrize(
    ("workers", "gpus", "num_workers", "share"),
    [
        (None, 0.0, 0, 1.0),
        (None, 0.25, 1, 0.25),
        (None, 2.0, 1, 1.0),
        (0, 1.0, 0, 1.0),
        (3, 0.0, 3, 1.0),
        (1, 0.0, 1, 1.0),
    ],
)
def test_a_trial_on_gpus_has_one_train_worker_unless_asked_otherwise_which_may_fill_its_share(
    workers: int | None, gpus: float, num_workers: int, share: float
) -> None:
    resources = Resources(workers=workers, gpus=gpus, execution=ASKED)
    assert resources.num_workers == num_workers
    assert resources.inline == (num_workers == 0)
    assert resources.execution == Execution(2, 4, 1.5, gpu_share=share)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_on_a_machine_without_one_are_refused_with_the_remedy_before_any_work(
    drawn: Path, tmp_path: Path, name: str
) -> None:
    done = sweeps_command(name, drawn, tmp_path, "--gpus", "1")
    assert done.exit_code == 2
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: --gpus 1: torch {torch.__version__} finds no GPU on this")
    assert "leave out --gpus (GPUS=0 with make)" in error
    assert "--address" in error
    assert not list(tmp_path.glob("cams/*"))


@pytest.mark.parametrize(
    ("gpus", "see_a_device", "backend"),
    [
        (1.0, [True, True], "nccl"),
        (1.0, [True, False], "gloo"),
        (0.5, [True, True], "gloo"),
        (0.0, [False, False], "gloo"),
    ],
)
def test_workers_talk_by_nccl_only_where_each_of_them_sees_a_whole_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: float,
    see_a_device: list[bool],
    backend: str,
) -> None:
    started: list[str] = []

    def trainer(loop: Any, *, torch_config: Any, **others: Any) -> Any:
        """Start the process group as Ray Train does, of made-up workers."""
        group = SimpleNamespace(execute=lambda function: see_a_device)
        torch_config.backend_cls().on_start(group, torch_config)
        return SimpleNamespace(fit=lambda: None)

    monkeypatch.setattr(
        TorchConfig().backend_cls,
        "on_start",
        lambda self, group, config: started.append(config.backend),
    )
    monkeypatch.setattr("ray.train.torch.TorchTrainer", trainer)
    fit(
        lambda item, process: iter(()),
        None,
        Resources(workers=2, gpus=gpus),
        folder=tmp_path / "r" / "k",
    )
    assert started == [backend]
