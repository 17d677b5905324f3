"""The folder of one training from the command line, as a store whose stages lie at known places.

    RUN/run.json  stage.json  config.json  epochs/  checkpoints/  done.json    the training
    RUN/cams/<image>.npz                                                       its CAMs
    RUN/random_walk/<id>/   RUN/pseudo_labels/<refinement>/png/<image>.png

Each folder's stage.json says what it holds, so that nothing else gets mixed with it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.plan.chain import ChainConfig
from sweeps.stages.stage import Conduct, Crew, Here, Place
from sweeps.store.store import Store, write_json
from wsss.config import RunConfig
from wsss.identity import cam_id, canonical_json
from wsss.overrides import ConfigError, validate
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig
from wsss.training.execution import Execution


@dataclass(frozen=True)
class Run:
    """A training's folder, and what it is."""

    folder: Path
    config: RunConfig
    data: Path
    weights_file: Path | None

    def chain(self, labels: PseudoLabelConfig, split: str | None = None) -> ChainConfig:
        """Return the way to these labels of a split's images; None: the images trained on."""
        own = self.config.data.train_split
        return ChainConfig(
            run=self.config, labels=labels, segmentation=DeepLabConfig(),
            labelled_split=None if split in (None, own) else split,
        )  # fmt: skip

    def place(
        self, chain: ChainConfig, *, crew: Crew | None = None, conduct: Conduct | None = None,
        execution: Execution | None = None, cams: Path | None = None, labels: Path | None = None,
    ) -> Place:  # fmt: skip
        """Return where the stages of a chain are done.

        cams, labels: folders in place of RUN/cams and RUN/labels/<id>.
        """
        from wsss.training.process import Process, pick_device

        folder = self.folder.absolute()
        named = {
            f"cams/{cam_id(self.config)}": folder,
            f"maps/{chain.maps_id}": (cams or folder / "cams").absolute(),
            f"walks/{chain.walk_id}": folder / "random_walk" / chain.walk_id,
        }
        if labels:
            named[f"labels/{chain.labels_id}"] = labels.absolute()
        return Place(
            Store(folder, named=named), self.data, self.weights_file, execution or Execution(),
            conduct or Conduct(accept_changes=True), crew or Here(),
            Process(device=pick_device()),
        )  # fmt: skip

    def remember(self) -> None:
        """Write what the folder holds. Raises ConfigError for one that holds another training."""
        path, saved = self.folder / "run.json", self._saved()
        if path.exists() and _read(path) != saved:
            raise ConfigError(
                f"{self.folder}: holds a training with other settings; choose another --run"
            )
        try:
            write_json(path, saved)
        except OSError as error:
            raise ConfigError(f"{self.folder}: {error.strerror}; choose another --run") from None

    def _saved(self) -> dict[str, Any]:
        return {
            "config": json.loads(canonical_json(self.config)),
            "data": str(self.data),
            "weights_file": str(self.weights_file) if self.weights_file else None,
        }


def recall(folder: Path) -> Run:
    """Return what a training's folder holds. Raises ConfigError if there is none."""
    path = folder / "run.json"
    if not path.exists():
        raise ConfigError(f"{path}: missing; train first with: wsss train-cam --run {folder}")
    saved = _read(path)
    weights = saved["weights_file"]
    return Run(
        folder, validate(saved["config"]), Path(saved["data"]), Path(weights) if weights else None
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {key: saved[key] for key in ("config", "data", "weights_file")}
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path}: damaged; delete it and train again") from None
