"""A search: which continuous settings are drawn, from which start, and judged by which images.

A search is no table. It has a folder and an MLflow experiment of its own, stops trials early,
trains one seed, and its settings are chosen with pixel ground truth. To keep its result honest, the
scored images are divided once and for all into two halves: the **search half**, whose pixel masks
give the objective, and the **held-out half**, whose pixel masks no trial ever sees. At the end the
best trials and the paper's setting are scored on the held-out half.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from sweeps.plan.search_space import SearchSpace
from sweeps.plan.sweep import data_settings
from sweeps.store.store import Store
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.data.check import DataReport, check_data
from wsss.data.voc import VocDataset
from wsss.overrides import ConfigError, apply_overrides
from wsss.recipes import named_config
from wsss.weights import resolve_weights

Objective = Literal["best", "fixed"]
"""mIoU of the search half at its own best threshold, or at the fixed background score."""

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

CHEAP_LABELS: dict[str, Any] = {"labels.scales": (1.0,), "labels.flip": False}
"""A search infers CAMs after every epoch, so at one scale and unmirrored unless `--set` says else.

The figures of a search are therefore not those of a table, whose CAMs are multi-scale.
"""


class Halves(NamedTuple):
    """The ids of the scored images, divided; each in file order."""

    search: list[str]
    held_out: list[str]


def split_halves(image_ids: Iterable[str]) -> Halves:
    """Divide images by the parity of a hash of their id: about equal, the same everywhere.

    An image stays in its half whatever other images a data set gains or loses.
    """
    halves = Halves([], [])
    for image_id in image_ids:
        digest = hashlib.sha256(f"wsss-search:{image_id}".encode()).digest()
        halves[digest[0] % 2].append(image_id)
    return halves


@dataclass(frozen=True)
class Search:
    """Everything that a search needs to know, and nothing that changes while it runs."""

    preset: str
    base: RunConfig
    """The paper's full method (F3) in a preset with data, weights and the user's settings."""
    space: SearchSpace
    objective: Objective
    rng_seed: int
    """Of the draws; a training's own seed is base.rng_seed, the same in all trials."""
    data: Path
    weights_file: Path | None
    num_train_images: int
    halves: Halves

    @property
    def name(self) -> str:
        """Equal for equal settings, so that the same command finds its search again."""
        settings = {
            "base": self.base.model_dump(mode="json"),
            "space": [str(r) for r in self.space.ranges],
            "objective": self.objective,
            "rng_seed": self.rng_seed,
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.preset}-{self.base.data.name}-{digest}"

    def config(self, settings: dict[str, float]) -> RunConfig:
        """Return the configuration of a trial; no settings give the reference, the paper's own."""
        return apply_overrides(self.base, settings)

    def folder(self, store: Store) -> Path:
        """Return the search's folder in a store."""
        return store.root / "searches" / self.name

    def describe(self) -> str:
        """Return the line under which every figure of the search stands."""
        network, train, data = self.base.network, self.base.train, self.base.data
        at = "best threshold" if self.objective == "best" else "fixed score"
        scales = ", ".join(f"{scale:g}" for scale in self.base.labels.scales)
        return (
            f"data {data.name} [{data.fingerprint}]: {self.num_train_images} images trained "
            f"({data.train_split}), {len(self.halves.search)} of {data.eval_split} searched on, "
            f"{len(self.halves.held_out)} held out | backbone {network.backbone} | {train.epochs} "
            f"epochs, batch {train.batch_size}, crop {train.crop_size} | CAMs at scale {scales}"
            f"{', mirrored' if self.base.labels.flip else ''} | objective: mIoU at the {at} of the "
            f"search half | training seed {self.base.rng_seed}, drawing seed {self.rng_seed} | "
            f"preset {self.preset}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a person or a later program needs to know of the search."""
        return {
            "name": self.name,
            "preset": self.preset,
            "base": self.base.model_dump(mode="json"),
            "space": [str(r) for r in self.space.ranges],
            "objective": self.objective,
            "rng_seed": self.rng_seed,
            "data": str(self.data),
            "weights_file": str(self.weights_file) if self.weights_file else None,
            "train_images": self.num_train_images,
            "search_half": self.halves.search,
            "held_out_half": self.halves.held_out,
        }


def make_search(
    space: SearchSpace,
    *,
    preset: str,
    data: Path,
    weights: str | None,
    overrides: dict[str, Any],
    objective: str = "best",
    rng_seed: int = 0,
) -> tuple[Search, DataReport]:
    """Plan a search on a data set, which is checked from end to end first.

    Raises ConfigError, DataError or WeightsError, each naming what is wrong and the remedy.
    """
    chosen = named_config(preset)
    known = [name for name in OBJECTIVES if name == objective]
    if not known:
        raise ConfigError(f"no objective {objective!r}; there are: {', '.join(OBJECTIVES)}")
    weights_name, weights_file = resolve_weights(weights, chosen.network.weights)
    base = apply_overrides(
        chosen, CHEAP_LABELS | F3 | {"network.weights": weights_name} | overrides
    )
    space.check(base)
    dataset = VocDataset(data.absolute())
    report = check_data(dataset, sorted({base.data.train_split, base.data.eval_split}))
    report.raise_if_broken()
    base = apply_overrides(base, data_settings(report, data, base.data.train_split))
    halves = split_halves(dataset.image_ids(base.data.eval_split))
    if not halves.search or not halves.held_out:
        raise ConfigError(
            f"{base.data.eval_split}: {len(halves.search)} images to search on and "
            f"{len(halves.held_out)} held out; each half needs one, so give more images"
        )
    search = Search(
        preset=preset, base=base, space=space, objective=known[0], rng_seed=rng_seed,
        data=dataset.root, weights_file=weights_file,
        num_train_images=report.num_images[base.data.train_split], halves=halves,
    )  # fmt: skip
    return search, report
