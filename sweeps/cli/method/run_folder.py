"""The folder of one training from the command line, as a store with its stages at known paths.

    RUN/run.json  stage.json  config.json  epochs/  checkpoints/  done.json    the training
    RUN/cams/<image>.npz                                                       its CAMs
    RUN/random_walk/<id>/   RUN/pseudo_labels/<refinement>/png/<image>.png

Each folder's stage.json says what it holds, and each file from which picture and labels it was
made, so that nothing is mixed up.
"""

from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from filelock import Timeout
from pydantic import BaseModel, ConfigDict, Field

from sweeps.plan.chains.chain import ChainConfig
from sweeps.stages.stage import Conduct, Crew, Place
from sweeps.store.store import LABEL, Folder, Store, read_written, write_config, write_json
from wsss.basics.printable import command, first_of
from wsss.config import RunConfig
from wsss.data.classes import CLASS_LIST
from wsss.identity import cam_id, canonical
from wsss.overrides import ConfigError
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig
from wsss.training.execution import Execution


class Run(BaseModel):
    """A training and its folder; run.json holds all but `folder` and `sources`."""

    model_config = ConfigDict(frozen=True)

    folder: Path = Field(Path(), exclude=True)
    config: RunConfig
    data: Path
    weights_file: Path | None
    classes: tuple[str, ...]
    """Those of the data set at the time of training, in order."""
    trained_on: dict[str, str]
    """Training image -> digest of its picture and labels (wsss.labels.sources)."""
    sources: dict[str, str] = Field({}, exclude=True)
    """The same, as they are now, for the images that a command works on."""

    def difference(self, asked: "Run") -> str:
        """Say how this training differs from another, apart from the data set's path; "" if not."""

        def settings(run: Run) -> object:
            contents = {"fingerprint": "unknown", "train_fingerprint": "unknown"}
            data = run.config.data.model_copy(update=contents)
            return run.config.model_copy(update={"data": data}), run.weights_file

        if settings(self) != settings(asked):
            return "with other settings"
        if self.config.data.train_fingerprint != asked.config.data.train_fingerprint:
            return "from before its classes, images or labels changed"
        return ""

    def with_images(self, split: str) -> "Run":
        """Return this training with the sources of a split's images.

        Raises ConfigError if its classes or training images have changed since.
        """
        from wsss.data.voc import VocDataset
        from wsss.labels.sources import sources_of

        if not self.data.is_dir():
            elsewhere = self.model_copy(update={"data": Path("FOLDER")}).training_command()
            raise ConfigError(
                f"{self.data}: missing, and {self.folder} was trained on it; put it back, or give "
                f"its new path, with the same folder name, by: {elsewhere}"
            )
        dataset, own = VocDataset(self.data), self.config.data.train_split
        if dataset.classes != self.classes:
            raise ConfigError(
                f"{self.data}: its classes have changed since {self.folder} was trained; restore "
                f"in {CLASS_LIST} those of {self.folder / 'run.json'}, or train with another --run"
            )
        now = sources_of(dataset, dataset.image_ids(own))
        both = [*now, *(self.trained_on.keys() - now.keys())]
        changed = [name for name in both if now.get(name) != self.trained_on.get(name)]
        if changed:
            raise ConfigError(
                f"{self.data}: images or labels of {own} have changed since {self.folder} was "
                f"trained ({first_of(changed, 3)}); put them back, or train with another --run"
            )
        others = set(dataset.image_ids(split)) - now.keys()
        now |= sources_of(dataset, sorted(others))
        sources = {name: now[name] for name in dataset.image_ids(split)}
        return self.model_copy(update={"sources": sources})

    def chain(self, labels: PseudoLabelConfig, split: str | None = None) -> ChainConfig:
        """Return the chain to these labels for a split; None: the images trained on."""
        own = self.config.data.train_split
        return ChainConfig(
            run=self.config,
            labels=labels,
            segmentation=DeepLabConfig(),
            labelled_split=None if split in (None, own) else split,
        )

    def place(
        self,
        chain: ChainConfig,
        *,
        crew: Crew | None = None,
        conduct: Conduct | None = None,
        execution: Execution | None = None,
        cams: Path | None = None,
        labels: Path | None = None,
    ) -> Place:
        """Return the place of a chain's stages.

        cams, labels: folders instead of RUN/cams and RUN/labels/<id>.
        """
        from wsss.labels.sources import digest_of
        from wsss.training.process import Process, pick_device

        folder = self.folder.absolute()
        named = {
            f"cams/{cam_id(self.config)}": folder,
            f"maps/{chain.maps_id}": (cams or folder / "cams").absolute(),
        }
        # Its id names the split that the affinity network is trained on, not the split's content.
        data = f"-{digest_of(self.sources)}" if chain.labelled_split else ""
        named[f"walks/{chain.walk_id}"] = folder / "random_walk" / f"{chain.walk_id}{data}"
        if labels:
            named[f"labels/{chain.labels_id}"] = labels.absolute()
        return Place(
            Store(folder, named=named),
            self.data,
            self.weights_file,
            execution or Execution(),
            conduct or Conduct(accept_changes=True),
            crew or Crew(),
            Process(device=pick_device()),
            sources=self.sources,
        )

    def remember(self) -> None:
        """Write what the folder holds. Raises ConfigError if it holds another training."""
        path = self.folder / "run.json"
        asked = self.model_copy(update={"config": canonical(self.config)})
        if path.exists() and (difference := recall(self.folder).difference(asked)):
            self._clear_refused_start(difference)
        write_json(path, asked.model_dump(mode="json"))
        write_config(self.folder / "config.json", self.config)

    def training_command(self) -> str:
        """Return the command that resumes this training."""
        words = ["--run", self.folder, "--data", self.data, "--config", self.folder / "config.json"]
        words += ["--weights", self.weights_file] if self.weights_file else []
        return command("wsss", "train-cam", *words)

    def _clear_refused_start(self, difference: str) -> None:
        """Remove the traces of another training that was refused when it started.

        difference: in words. Raises ConfigError if that training has made progress, or is running.
        """
        folder = Folder(self.folder)
        with suppress(Timeout), folder.lock().acquire(timeout=0):
            if not (folder.checkpoint_names() or folder.epochs() or folder.result()):
                (self.folder / LABEL).unlink(missing_ok=True)
                rmtree(self.folder / "attempts", ignore_errors=True)
                return
        raise ConfigError(f"{self.folder}: holds a training {difference}; choose another --run")


def recall(folder: Path) -> Run:
    """Return the training in a folder. Raises ConfigError for none, StoreError if it is damaged."""
    path, train = folder / "run.json", command("wsss", "train-cam", "--run", folder)
    if not path.exists():
        raise ConfigError(f"{path}: missing; train first with: {train} --data FOLDER")
    again = f"the command that trained it again: {train} --data FOLDER and its other options"
    remedy = f"delete it, and run {again}"
    saved = read_written(path, "wsss train-cam", Run.model_validate, remedy)
    return saved.model_copy(update={"folder": folder})
