"""Whether pictures are decoded and cut as fast as the fastest step of this device takes them."""

import time
from dataclasses import dataclass, field

from wsss.data.loading import CropDataset, Loader
from wsss.gpu_check.findings import OUT_OF_TIME, Deadline, Line, Options, Skipped, Table
from wsss.gpu_check.pictures import Pictures
from wsss.gpu_check.subjects import NUM_CLASSES
from wsss.presets import PRESETS
from wsss.training.execution import Execution
from wsss.training.loop import num_loader_workers

WORKERS = (0, 1, 2, 4, 8, 16)
ENOUGH = 1.05
"""Times what the step needs."""


@dataclass
class Loading:
    """Images a second by number of loading processes."""

    preset: str
    source: str
    default_workers: int
    needed: float
    """Images a second of the fastest step; 0: not measured."""
    needed_by: str
    rates: dict[int, float] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def best(self) -> float:
        """Return the highest rate; 0 if none was measured."""
        return max(self.rates.values(), default=0.0)

    def lines(self) -> list[Line]:
        """Return whether the loader feeds the device, and with how many workers."""
        if not (self.needed and self.rates):
            return self.skipped.lines()
        enough = [n for n, rate in self.rates.items() if rate >= ENOUGH * self.needed]
        found = f"needs {self.needed:,.0f} images/s ({self.needed_by}); loaded: {self.best:,.0f}"
        if not enough:
            line = Line(
                "LOOK", "the loader feeds this device: NO", found,
                "The GPU waits for pictures in its fastest trainings (one view, bare network); "
                "three views need a third of that.",
                "give the job more CPUs a GPU, or several trials no GPU each; --loader-workers N",
            )  # fmt: skip
        else:
            own = min(enough) <= self.default_workers
            line = Line(
                "PASS" if own else "LOOK",
                f"the loader feeds this device: yes, with {min(enough)} worker(s)",
                f"{found}; by default there are {self.default_workers}",
                "Training is as fast as the GPU.",
                "" if own else f"give --loader-workers {min(enough)}",
            )
        return [line, *self.skipped.lines()]

    def tables(self) -> list[Table]:
        """Return the rates."""
        rows = tuple((str(n), f"{rate:,.0f}") for n, rate in self.rates.items())
        note = (
            f"Crops of preset {self.preset} from {self.source}. 0 workers: the training process "
            "loads itself, between its steps."
        )
        return [Table(("workers", "images/s"), rows, note)] if rows else []


def measure_loading(
    options: Options, pictures: Pictures, fastest: tuple[str, float] | None, deadline: Deadline
) -> Loading:
    """Measure the loader at the preset's full crop. fastest: a step, and its images a second."""
    train = PRESETS[options.preset].train
    source = pictures.source
    source += ", enlarged to the size of VOC's" if pictures.are_drawn else ""
    name, needed = fastest or ("", 0.0)
    found = Loading(
        options.preset, source, num_loader_workers(Execution(), options.device), needed, name
    )
    if not needed:
        found.skipped.reasons["what the step needs"] = "no step was measured"
    samples = pictures.voc_sized(options.out / "enlarged")
    cpus = num_loader_workers(Execution(), options.device) + 1 if options.on_gpu else 2
    seconds = 1.0 if options.small else 3.0
    for workers in WORKERS:
        if workers > max(2, cpus):
            continue
        if deadline.passed:
            found.skipped.reasons[f"{workers} workers"] = OUT_OF_TIME
            continue
        batch = min(train.batch_size, len(samples))
        many = samples * max(1, -(-4096 // len(samples)))  # an epoch longer than the measurement
        crops = CropDataset(many, NUM_CLASSES, train, rng_seed=0)
        loader = Loader(crops, batch, num_workers=workers, pin=options.on_gpu)
        found.rates[workers] = rate(loader, seconds)
    return found


def rate(loader: Loader, seconds: float) -> float:
    """Return images a second, once the batches that workers made ahead are used up."""
    ahead, count = 1 + 3 * loader.num_workers, 0
    batches = loader.epoch(0)
    for _ in range(ahead):
        next(batches)
    started = time.perf_counter()
    for _ in batches:
        count += 1
        if count >= 2 and time.perf_counter() - started > seconds:
            break
    taken = time.perf_counter() - started
    batches.close()  # type: ignore[attr-defined]  # ends the workers
    return count * loader.batch_size / taken
