"""A search: which continuous settings are drawn, from which base, and judged by which images.

Unlike a table, a search has its own folder and MLflow experiment, stops trials early, trains one
seed, and chooses settings with pixel ground truth. To keep its result honest, the scored images are
divided into two fixed halves: the **search half**, whose pixel masks give the objective, and the
**held-out half**, whose pixel masks no trial sees. At the end the best trials and the base are
scored on the held-out half.

    <store>/searches/<name>/  search.json        what is searched
                              trials/0003.json   a trial, with its epochs; only the driver writes it
                              held_out.json      the closing scores, by cam_id

The trainings are in the store's `cams/`, shared with equal configurations of tables.

A range is written `setting=low:high`, or `setting=low:high:log`, as in
`transfer.lambda_s=0.05:2:log`.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter
from typing_extensions import TypedDict

from sweeps.plan.sweep import BaseOptions, checked_data
from sweeps.store import records
from sweeps.store.store import (
    Store,
    read_description,
    read_record,
    read_written,
    require_own,
    write_json,
)
from sweeps.tables.studies import F3
from sweeps.tables.table import Cell, Row, Table
from wsss.basics.files import files_in
from wsss.basics.printable import counted, quoted
from wsss.basics.strict import Percent
from wsss.config import RunConfig
from wsss.data.check import require_batch
from wsss.data.report import DataReport
from wsss.data.voc import VocDataset
from wsss.identity import cam_id, naming
from wsss.networks.initial_weights import check_initial_weights
from wsss.overrides import ConfigError, Settled, apply_overrides, settle
from wsss.recipes import named_config

Objective = Literal["best", "fixed"]
"""mIoU of the search half at its own best threshold, or at the fixed background score."""

CHEAP_LABELS: dict[str, Any] = {"labels.scales": (1.0,), "labels.flip": False}
"""A search infers CAMs after every epoch, so at one scale and unflipped unless `--set` differs.

Its figures are therefore not comparable with a table's, whose CAMs are multi-scale.
"""

SIGNIFICANT_DIGITS = 4
"""Drawn values are rounded to these, so that equal trials have equal ids everywhere."""

EXAMPLE = "transfer.lambda_s=0.05:2:log"


# What is drawn


@dataclass(frozen=True)
class Range:
    """The bounds of one setting, drawn uniformly, or log-uniformly."""

    key: str
    """Dotted setting of RunConfig."""
    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.key}={self.low:g}:{self.high:g}{':log' if self.log else ''}"

    def round(self, value: float) -> float:
        """Return a drawn value with SIGNIFICANT_DIGITS, never outside the bounds."""
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return min(max(rounded, self.low), self.high) + 0.0  # -0.0 becomes 0.0


Space = tuple[Range, ...]
"""The ranges of a search, each setting once."""

DEFAULT_SPACE: Space = (
    Range("transfer.lambda_s", 0.05, 2.0, log=True),
    Range("transfer.lambda_bs", 0.05, 2.0, log=True),
    Range("views.alpha_enhanced", 1.0, 2.0),
    Range("views.beta_enhanced", 0.0, 600.0),
    Range("views.alpha_decreased", 0.5, 1.0),
    Range("views.beta_decreased", -150.0, 300.0),
)
"""Around the paper's .5, .5, 1.5, 300, .8 and 150."""


def check_space(space: Space, settled: Settled) -> None:
    """Raise ConfigError for a range that cannot be searched from these settings.

    The setting must be a real number and accept both bounds, they must give different trainings,
    and the user must not have set it.
    """
    for r in space:
        try:
            ends = [apply_overrides(settled.config, {r.key: end}) for end in (r.low, r.high)]
        except ConfigError as error:
            raise ConfigError(f"--space {r}: {error}") from None
        why = ""
        if not all(isinstance(end.flat()[r.key], float) for end in ends):
            why = "is not a real number, and only those are searched; leave it out"
        elif r.key in settled.asked:
            why = "is drawn, and --set gives it a value; leave one of them out"
        elif len(set(map(cam_id, ends))) == 1:
            why = (
                "has no effect on this training; leave it out, or use --set to switch on the part "
                "that it belongs to"
            )
        if why:
            raise ConfigError(f"--space {r}: {r.key} {why}")


def parse_space(words: Iterable[str]) -> Space:
    """Parse the ranges of a command line; without any, return the default space.

    Raises ConfigError naming the word, the rule and the remedy.
    """
    ranges = tuple(map(_parse_range, words))
    twice = [key for key, count in Counter(r.key for r in ranges).items() if count > 1]
    if twice:
        raise ConfigError(f"--space gives {twice[0]} twice; give one range for it")
    return ranges or DEFAULT_SPACE


def _parse_range(word: str) -> Range:
    key, _, bounds = (part.strip() for part in word.partition("="))
    log = bounds.endswith(":log")
    try:
        ends = bounds.removesuffix(":log").split(":")
        low, high = (float(f"{float(end):g}") for end in ends)  # as it is saved
    except ValueError:  # also for one bound, or for three
        low = high = math.nan
    if not (0 if log else -math.inf) < low < high < math.inf:
        raise ConfigError(
            f"--space {quoted(word)} is not setting=low:high[:log] with a low below the high, and "
            f"above 0 for :log; write it as {EXAMPLE}"
        )
    return Range(key, low, high, log)


def _read_space(saved: Any) -> Any:
    """Parse the ranges of a saved search."""
    return parse_space(saved) if isinstance(saved, list) else saved


# What it is judged by


class Halves(NamedTuple):
    """The ids of the scored images, divided in two; each half in file order."""

    search: list[str]
    held_out: list[str]


def split_halves(image_ids: Iterable[str]) -> Halves:
    """Divide images by the parity of a hash of their id: about equally, and the same everywhere.

    An image stays in its half when a data set gains or loses other images.
    """
    halves = Halves([], [])
    for image_id in image_ids:
        digest = hashlib.sha256(f"wsss-search:{image_id}".encode()).digest()
        halves[digest[0] % 2].append(image_id)
    return halves


class Search(BaseModel):
    """Everything that a search needs, and nothing that changes while it runs."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    preset: str
    base: RunConfig
    """The full method (F3) in a preset with data, weights and the user's settings. Drawn settings
    replace its own, and trials are compared with it."""
    space: Annotated[
        Space, BeforeValidator(_read_space), PlainSerializer(lambda space: [*map(str, space)])
    ]
    objective: Objective
    rng_seed: int
    """Seed of the draws; the trainings' seed is base.rng_seed."""
    data: Path
    weights_file: Path | None
    num_train_images: int = Field(alias="train_images")
    search_half: list[str]
    """Ids of the images, in file order."""
    held_out_half: list[str]
    samples: Annotated[int, Field(ge=0)] = 0
    """Trials that were asked for last, which is no part of the name; 0 in an older description."""

    @property
    def name(self) -> str:
        """Equal for equal settings, so that the same command finds its search again."""
        settings = {
            "base": naming(self.base),
            "space": [str(r) for r in self.space],
            "objective": self.objective,
            "rng_seed": self.rng_seed,
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.preset}-{self.base.data.name}-{digest}"

    def config(self, settings: dict[str, float]) -> RunConfig:
        """Return the configuration of a trial; no settings give the base."""
        return apply_overrides(self.base, settings)

    def folder(self, store: Store) -> Path:
        """Return the search's folder in a store."""
        return store.root / "searches" / self.name

    def describe(self) -> str:
        """Return the line above every figure of the search."""
        network, train, data = self.base.network, self.base.train, self.base.data
        at = "best threshold" if self.objective == "best" else "fixed score"
        scales = ", ".join(f"{scale:g}" for scale in self.base.labels.scales)
        return (
            f"data {data.name} [{data.fingerprint}]: {self.num_train_images:,} images trained "
            f"({data.train_split}), {len(self.search_half)} of {data.eval_split} searched on, "
            f"{len(self.held_out_half)} held out | backbone {network.backbone} | "
            f"{counted(train.epochs, 'epoch')}, batch {train.batch_size}, crop {train.crop_size} | "
            f"CAMs at scale {scales}"
            f"{', mirrored' if self.base.labels.flip else ''} | objective: mIoU at the {at} of the "
            f"search half | training seed {self.base.rng_seed}, drawing seed {self.rng_seed} | "
            f"preset {self.preset}"
        )


def make_search(
    space: Space, options: BaseOptions, *, objective: Objective = "best", rng_seed: int = 0
) -> tuple[Search, DataReport]:
    """Plan a search on a data set, which is fully checked first.

    Raises ConfigError, DataError or WeightsError, each naming what is wrong and the remedy.
    """
    full_method = apply_overrides(named_config(options.preset), CHEAP_LABELS | F3)
    settled = settle(full_method, options.settings, weights=options.weights)
    check_space(space, settled)
    report, base = checked_data(settled, options.data, recheck=options.recheck)
    require_batch(report.num_images[base.data.train_split], base.train.batch_size)
    check_initial_weights([base.network], settled.weights_file)
    halves = split_halves(VocDataset(options.data.absolute()).image_ids(base.data.eval_split))
    if not halves.search or not halves.held_out:
        raise ConfigError(
            f"{base.data.eval_split}: {len(halves.search)} images to search on and "
            f"{len(halves.held_out)} held out; each half needs one, so give more images"
        )
    search = Search(
        preset=options.preset,
        base=base,
        space=space,
        objective=objective,
        rng_seed=rng_seed,
        data=options.data.absolute(),
        weights_file=settled.weights_file,
        num_train_images=report.num_images[base.data.train_split],
        search_half=halves.search,
        held_out_half=halves.held_out,
    )
    return search, report


def save_search(store: Store, search: Search) -> None:
    """Save a search's description for `load_search`."""
    saved = {"name": search.name} | search.model_dump(mode="json", by_alias=True)
    write_json(search.folder(store) / "search.json", saved)


def load_search(store: Store, name: str) -> Search:
    """Read a search's description. Raises StoreError if it is not what this version writes."""
    path = store.root / "searches" / name / "search.json"
    return read_description(path, "sweeps search", Search.model_validate)


Status = Literal["running", "finished", "stopped", "diverged", "not learning", "error"]
WORTHLESS: tuple[Status, ...] = ("diverged", "not learning")
"""These score 0 %: the settings are at fault."""
ENDED: tuple[Status, ...] = ("finished", "stopped", *WORTHLESS)
"""These never run again. A trial that is `running` although no search runs was interrupted."""


class Judged(TypedDict):
    """What a trial's epoch is known by."""

    epoch: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    """1-based."""
    objective: Percent
    """Percent, of the search half."""
    threshold: float


NUM_HELD_OUT = 3
"""Number of the best trials that are scored on the held-out half."""


@dataclass
class SearchTrial:
    """One draw and its result."""

    number: int
    """0-based, in the order of starting."""
    cam_id: str
    settings: dict[str, float]
    """The drawn ones; all others are the base's."""
    status: Status = "running"
    """finished: all epochs; stopped: early, as poor; error: the next start tries it again."""
    epochs: list[Judged] = field(default_factory=list)
    message: str = ""
    """Why it diverged, did not learn or failed."""
    warning: str = ""
    """Text of the warning that it is not clearly below the label prior."""

    @property
    def run_id(self) -> str:
        """Its number, as id for the driver and MLflow."""
        return f"{self.number}"

    @property
    def name(self) -> str:
        """Display name."""
        return f"trial {self.number}"

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.status in ENDED

    @property
    def last_epoch(self) -> int:
        """The last judged epoch; 0 without any."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else 0

    @property
    def objective(self) -> float | None:
        """mIoU of the search half in percent after the last epoch; 0 for WORTHLESS ones."""
        if self.status in WORTHLESS:
            return 0.0
        return self.epochs[-1]["objective"] if self.epochs else None

    def add_epoch(self, record: dict[str, float]) -> None:
        """Add an epoch; one that was repeated after a kill replaces the first."""
        kept = [known for known in self.epochs if known["epoch"] < record["epoch"]]
        epoch, objective, threshold = (record[key] for key in Judged.__annotations__)
        self.epochs = [*kept, Judged(epoch=epoch, objective=objective, threshold=threshold)]


_TRIAL = TypeAdapter(SearchTrial)


class History:
    """The trials and closing scores of a search in a store."""

    def __init__(self, search: Search, store: Store) -> None:
        self.base, self.folder = cam_id(search.base), search.folder(store)

    def trials(self) -> list[SearchTrial]:
        """Return all trials, by number. Raises StoreError for a damaged or a copied file."""
        trials = [_read_trial(path) for path in files_in(self.folder / "trials", "*.json")]
        return sorted(trials, key=lambda trial: trial.number)

    def save(self, trial: SearchTrial) -> None:
        """Write a trial by atomic rename."""
        write_json(self.folder / "trials" / _file_name(trial), asdict(trial))

    def missing(self, samples: int) -> int:
        """Return how many of this number of trials have not ended."""
        return max(0, samples - sum(trial.ended for trial in self.trials()))

    def missing_held_out(self) -> dict[str, dict[str, float]]:
        """Return cam_id -> drawn settings of the trials and base that lack a closing score.

        The base has no drawn settings.
        """
        wanted: dict[str, dict[str, float]] = {self.base: {}}
        for trial in best_trials(self.trials(), NUM_HELD_OUT):
            wanted.setdefault(trial.cam_id, trial.settings)
        known = self.held_out()
        return {key: settings for key, settings in wanted.items() if key not in known}

    def held_out(self) -> dict[str, dict[str, float]]:
        """Return the closing scores by cam_id: objective, threshold, held_out (percent)."""
        return read_record(self.folder / "held_out.json", records.HELD_OUT) or {}

    def add_held_out(self, cam_id: str, record: dict[str, Any]) -> None:
        """Save a configuration's closing score."""
        row = {key: float(record[key]) for key in ("objective", "threshold", "held_out")}
        write_json(self.folder / "held_out.json", self.held_out() | {cam_id: row})


def _read_trial(path: Path) -> SearchTrial:
    remedy = "delete the file to draw another one instead"
    trial = read_written(path, "sweeps search", _TRIAL.validate_python, remedy)
    require_own(path, _file_name(trial), path.name, remedy)
    return trial


def _file_name(trial: SearchTrial) -> str:
    return f"{trial.number:04}.json"


def ranking(trials: list[SearchTrial]) -> list[SearchTrial]:
    """Return judged trials, best first: finished ones, then the others by their epochs.

    The score of a stopped trial cannot be compared with a finished training's.
    """
    judged = [trial for trial in trials if trial.epochs or trial.status in WORTHLESS]
    return sorted(
        judged,
        key=lambda t: (t.status != "finished", -t.last_epoch, -(t.objective or 0.0), t.number),
    )


def best_trials(trials: list[SearchTrial], count: int) -> list[SearchTrial]:
    """Return the best finished trials, each training once."""
    best: dict[str, SearchTrial] = {}
    for trial in ranking(trials):
        if trial.status == "finished":
            best.setdefault(trial.cam_id, trial)
    return list(best.values())[:count]


def comparison(search: Search, best: SearchTrial) -> Table:
    """Return a table of the base and a trial, to compare them with more seeds."""
    flat = search.base.flat()
    common = {key: flat[key] for key in F3}
    return Table(
        name="best-draw",
        title=f"The best draw of search {search.name} beside its base",
        row_names=("settings",),
        rows=(
            Row(("base",), (Cell(common, None),)),
            Row((best.name,), (Cell(common | best.settings, None),)),
        ),
        notes=(
            "The draw was chosen on half of the scored images, by its training with seed "
            f"{search.base.rng_seed}: its score here is optimistic, most of all with that seed.",
        ),
    )


def comparison_file(search: Search, store: Store) -> Path:
    """Return the path of that table, for `sweeps run --table`."""
    return search.folder(store) / "report" / "best.json"
