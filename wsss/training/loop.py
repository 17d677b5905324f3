"""The one training loop: CAM network, DeepLab and affinity network differ in their step only.

    batches -> terms of each micro-batch -> gradients -> optimiser -> readings -> checkpoint

Legend: B batch on this rank, T terms of a loss.
"""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from wsss.basics.errors import ForeseenError
from wsss.basics.printable import counted
from wsss.config import Precision
from wsss.data.errors import DataError
from wsss.data.loading.batches import CropBatch, Crops, Loader
from wsss.networks.precision import autocast, products
from wsss.overrides import ConfigError
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.checkpoint_names import MAX_EPOCHS
from wsss.training.diagnosis.learning import figures_of
from wsss.training.execution import Execution, usable_cpus
from wsss.training.optim import Poly, set_lr
from wsss.training.process import ALONE, Process

Forward = Callable[[Tensor], Any]
"""The network under its precision."""

MAX_LOADER_WORKERS = 8
MARGIN = 0.85
"""Share of the free memory to plan with: kernels need some, and some is lost to fragmentation."""
LESS_MEMORY = "use smaller crops (crop_size), bf16 (precision), or a larger GPU"
LAG = 8
"""Steps after which a GPU's numbers are read: enough to keep it busy, few enough to stop soon."""


class DivergedError(ForeseenError, RuntimeError):
    """The loss or a gradient became infinite or NaN; the message says where and what to change."""


class NoMemoryError(ForeseenError, RuntimeError):
    """A step does not fit the GPU's memory; the message says what to change."""


class Moment(NamedTuple):
    """Where in its training a step is."""

    progress: float = 1.0
    """Share of the training that is done, in [0, 1)."""
    starts_epoch: bool = False


class Reading(NamedTuple):
    """The numbers of one step, on the host."""

    iteration: int
    """Iterations done, this one included."""
    values: NDArray[np.float32]
    """[T + 1]: the terms, the loss first, and the gradient norm before clipping."""

    @property
    def norm(self) -> float:
        """The gradient norm."""
        return float(self.values[-1])


class Readings:
    """Numbers of steps on their way to the host, in order.

    On a GPU they are copied to pinned memory after each step and read LAG steps later, so that the
    host never waits. Every rank reads the same step at the same time. On the CPU there is no lag.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.lag = LAG if self.on_gpu else 0
        self.waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def post(self, iteration: int, values: Tensor) -> None:
        """Start copying the values [T + 1] of an iteration to the host."""
        copied = None
        if self.on_gpu:
            on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = on_host.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self.waiting.append((iteration, values, copied))

    def arrived(self, *, all_of_them: bool = False) -> Iterator[Reading]:
        """Yield what is due; all_of_them: everything, waiting for the GPU."""
        while len(self.waiting) > (0 if all_of_them else self.lag):
            iteration, values, copied = self.waiting.popleft()
            if copied is not None:
                copied.synchronize()
            yield Reading(iteration, values.numpy())


@dataclass(frozen=True)
class EpochSummary:
    """The numbers of one epoch, averaged over ranks."""

    epoch: int
    """1-based."""
    iteration: int
    """Iterations done."""
    means: dict[str, float]
    """Over the epoch's iterations: of each term by its name, and `grad_norm`, before clipping.

    A name of two words is a group and its member: `dead original`.
    """
    lr: float
    """Of the first group of parameters (the backbone's, unless frozen) at the last iteration."""
    images_per_second: float
    seconds: float
    step_losses: list[float]
    """Of every iteration, rounded for files."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of epoch and steps as they are stored, groups as objects."""
        numbers: dict[str, Any] = {"epoch": self.epoch, "iteration": self.iteration}
        for name, value in self.means.items():
            group, _, member = name.rpartition(" ")
            (numbers.setdefault(group, {}) if group else numbers)[member] = value
        rest = ("lr", "images_per_second", "seconds", "step_losses")
        return numbers | {name: getattr(self, name) for name in rest}

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the epoch, without the steps: `dead_original` and so on."""
        return figures_of(self.to_json())


class Training:
    """A training at one point of its schedule: network, optimiser, batches.

    It starts at its last checkpoint if there is one, even within an epoch. Every rank of a
    distributed training makes one, with an equal network. Raises ConfigError for a micro-batch
    that would change the result, DataError for more epochs than checkpoints can be named after.
    """

    def __init__(
        self,
        step: "Step",
        loader: Loader,
        schedule: Poly,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.step, self.loader = step, loader
        self.schedule, self.checkpoints = schedule, checkpoints
        self.model, self.optimizer, self.process = step.model, step.optimizer, step.process
        self.num_iterations = schedule.num_iterations
        if (epochs := -(-self.num_iterations // loader.iterations)) > MAX_EPOCHS:
            raise DataError(
                f"{self.num_iterations:,} iterations are {epochs:,} epochs of so few images, more "
                f"than {MAX_EPOCHS:,}; use more images, or fewer iterations or epochs"
            )
        images, asked = loader.local_batch, step.micro_batch
        if asked is not None and asked < images and not step.frozen_norm:
            raise ConfigError(
                f"--micro-batch {asked}: the batch norms take their statistics from all {images} "
                "images of a forward, so parts would train another network; leave the option out, "
                "or set network.batch_norm=frozen"
            )
        position = Position(0, 0)
        if checkpoints:
            position = checkpoints.restore(self.model, self.optimizer)
        self.iteration = position.iteration
        """Iterations done."""
        self.seconds = position.seconds
        """Spent on the unfinished epoch."""
        self.rows: list[NDArray[np.float32]] = [
            np.array(row, dtype=np.float32) for row in position.rows
        ]
        """Terms and norm of the unfinished epoch's iterations, means over ranks."""
        self.readings = Readings(self.process.device)
        self.saved_at = time.monotonic()

    @property
    def epoch(self) -> int:
        """Finished epochs; a last one that the schedule cuts short counts as one."""
        per_epoch = self.loader.iterations
        if self.iteration >= self.num_iterations:
            return -(-self.iteration // per_epoch)
        return self.iteration // per_epoch

    def epochs(self) -> Iterator[EpochSummary]:
        """Train to the end; yield each epoch's summary. Otherwise as `run`."""
        return (found for found in self.run() if isinstance(found, EpochSummary))

    def run(self) -> Iterator[Reading | EpochSummary]:
        """Train to the end; yield each iteration's numbers, and after an epoch its summary.

        An epoch's checkpoint is written when the caller asks for the next value, so a record which
        the caller has stored is never lost, at worst repeated. Raises DivergedError for a loss or
        gradient that is not finite, within LAG steps on a GPU.
        """
        while self.iteration < self.num_iterations:
            yield from self.steps()
            yield self._summary()
            self.rows, self.seconds = [], 0.0
            self._save()
            self.process.barrier()

    def steps(self) -> Iterator[Reading]:
        """Train to the end of the epoch; yield each iteration's numbers once they are on the host.

        A resumed training first yields those of the epoch's iterations that were done before.
        """
        per_epoch = self.loader.iterations
        epoch, start = divmod(self.iteration, per_epoch)
        for done, row in enumerate(self.rows, start=epoch * per_epoch + 1):
            yield Reading(done, row)
        stop = min(per_epoch, self.num_iterations - epoch * per_epoch)
        clock = time.perf_counter()
        for batch in self.loader.epoch(epoch, start, stop):
            set_lr(self.optimizer, self.schedule.factor(self.iteration))
            moment = Moment(self.iteration / self.num_iterations, not self.iteration % per_epoch)
            values = self.step(batch, moment)
            self.iteration += 1
            self.readings.post(self.iteration, values)
            yield from self._arrived()
            if self._is_time_to_save() and self.iteration < epoch * per_epoch + stop:
                yield from self._arrived(all_of_them=True)
                now = time.perf_counter()
                self.seconds, clock = self.seconds + now - clock, now
                self._save()
        yield from self._arrived(all_of_them=True)
        self.seconds += time.perf_counter() - clock

    def _arrived(self, *, all_of_them: bool = False) -> Iterator[Reading]:
        for reading in self.readings.arrived(all_of_them=all_of_them):
            if not np.isfinite(reading.values).all():
                raise DivergedError(self._explain(reading))
            self.rows.append(reading.values)
            yield reading

    def _explain(self, reading: Reading) -> str:
        *values, norm = reading.values
        said = zip(self.step.names, values, strict=True)
        terms = ", ".join(f"{name} {value:.4g}" for name, value in said)
        return (
            f"a loss or gradient is not finite at iteration {reading.iteration - 1}: gradient norm "
            f"{norm:.4g}, {terms}; {self.step.remedy}"
        )

    def _summary(self) -> EpochSummary:
        steps = np.stack(self.rows).astype(np.float64)  # [iterations, T + 1]
        names = (*self.step.names, "grad_norm")
        return EpochSummary(
            epoch=self.epoch,
            iteration=self.iteration,
            means=dict(zip(names, steps.mean(0).tolist(), strict=True)),
            lr=self.optimizer.param_groups[0]["lr"],
            images_per_second=len(self.rows) * self.loader.batch_size / self.seconds,
            seconds=self.seconds,
            step_losses=[round(loss, 6) for loss in steps[:, 0].tolist()],
        )

    def _is_time_to_save(self) -> bool:
        if not (self.checkpoints and self.process.is_first):
            return False
        if self.checkpoints.is_wanted and self.checkpoints.is_wanted():
            return True
        minutes = self.process.execution.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes

    def _save(self) -> None:
        if self.checkpoints and self.process.is_first:
            rows = tuple(tuple(map(float, row)) for row in self.rows)
            position = Position(self.epoch, self.iteration, rows, self.seconds)
            self.checkpoints.save(position, self.model, self.optimizer)
            self.saved_at = time.monotonic()


class Step(ABC):
    """One optimiser step on one batch. Nothing in it waits for a GPU.

    A subclass says what is minimised, as a sum over parts of a batch. A gradient that is not finite
    leaves the parameters as they are.
    """

    names: tuple[str, ...]
    """Of the terms, the loss first."""
    remedy: str
    """What to change if it diverges."""
    frozen_norm: bool = True
    """Whether an image's output does not depend on the other images of its forward."""
    optimizer: torch.optim.Optimizer
    """A fused one, which can skip a step without asking the host."""

    def __init__(
        self,
        model: nn.Module,
        process: Process = ALONE,
        *,
        precision: Precision,
        clip_norm: float | None = None,
        network: nn.Module | None = None,
    ) -> None:
        """Move the model to the process's device.

        model: what checkpoints hold. network: what `terms` calls, if it wraps the model. clip_norm:
        largest global L2 norm of the gradients; None: not clipped.
        """
        self.model, self.process = model.to(process.device).train(), process
        self.network = process.wrap(model if network is None else network)
        self.precision, self.clip_norm = precision, math.inf if clip_norm is None else clip_norm
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.micro_batch = process.execution.micro_batch
        """None until the first batch is seen, if it is to be chosen by the GPU's memory."""

    @abstractmethod
    def whole(self, batch: CropBatch, moment: Moment) -> Any:
        """Return what `terms` needs of the whole batch; every rank calls this once a batch."""

    @abstractmethod
    def terms(self, forward: Forward, part: CropBatch, whole: Any) -> Tensor:
        """Return a part's terms [T], which add up to the batch's; the first has a gradient."""

    def __call__(self, batch: CropBatch, moment: Moment = Moment()) -> Tensor:  # noqa: B008 - immutable
        """Return the batch's terms and the gradient's norm before clipping: [T + 1], on the device.

        Terms are means over the ranks. Raises NoMemoryError.
        """
        device = self.process.device
        batch = CropBatch(*(part.to(device, non_blocking=True) for part in batch))
        try:
            with products(self.precision):
                whole = self.whole(batch, moment)
                if self.micro_batch is None:
                    self.micro_batch = self._fitting(batch, whole)
                terms = self._gradients(batch, whole, self.micro_batch)
                norm = clip_grad_norm_(self.parameters, self.clip_norm)
                # Skips the step if the norm is not finite, without the host having to know it.
                self.optimizer.found_inf = norm.isfinite().logical_not().float()  # type: ignore[attr-defined]
                self.optimizer.step()
        except torch.OutOfMemoryError as error:
            images = self.micro_batch or 1
            can_be_cut = images > 1 and self.frozen_norm
            raise NoMemoryError(
                f"a forward of {counted(images, 'image')} does not fit the GPU's memory "
                f"({str(error).splitlines()[0]}); "
                f"{'give a smaller --micro-batch' if can_be_cut else LESS_MEMORY}"
            ) from None
        return torch.cat([self.process.mean(terms), norm[None]])

    def _gradients(self, batch: CropBatch, whole: Any, micro_batch: int) -> Tensor:
        """Leave the batch's gradients in the parameters; return its terms [T] on this rank."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = split(batch, micro_batch)
        total: Tensor | None = None
        for number, part in enumerate(parts, start=1):
            with self._sharing_gradients(is_last=number == len(parts)):
                terms = self.terms(self._forward, part, whole)
                terms[0].backward()
            total = terms.detach() if total is None else total + terms.detach()
        assert total is not None
        return total

    def _forward(self, inputs: Tensor) -> Any:
        with autocast(self.process.device, self.precision):
            return self.network(inputs)

    def _sharing_gradients(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return a context in which a backward averages over the ranks for the last part only."""
        if is_last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _fitting(self, batch: CropBatch, whole: Any) -> int:
        """Return how many images share a forward: all on a CPU, on a GPU what its memory allows."""
        local_batch, device = len(batch.pixels), self.process.device
        if device.type != "cuda" or not self.frozen_norm:
            return local_batch

        def try_images(count: int) -> None:
            with self._sharing_gradients(is_last=False):
                part = CropBatch(*(tensor[:count] for tensor in batch))
                self.terms(self._forward, part, whole)[0].backward()
            self.optimizer.zero_grad(set_to_none=True)

        share = self.process.execution.gpu_share
        own = measured(try_images, local_batch, device=device, gpu_share=share)
        return min(self.process.gather(own))


def split(batch: CropBatch, micro_batch: int) -> list[CropBatch]:
    """Cut a batch into parts of `micro_batch` images; the last one may be smaller."""
    return [CropBatch(*part) for part in zip(*(t.split(micro_batch) for t in batch), strict=True)]


def fitting(local_batch: int, bytes_of_one: int, bytes_of_two: int, free_bytes: int) -> int:
    """Return the largest micro-batch that fits, of those which cut the batch into equal parts.

    bytes_of_one, bytes_of_two: peak memory of a forward and backward of one and of two images; they
    tell what each image takes and what is taken anyway. 1 if not even one fits: the step says so.
    """
    each = max(1, bytes_of_two - bytes_of_one)
    fixed = max(0, bytes_of_one - each)
    fit = max(1, (MARGIN * free_bytes - fixed) // each)
    return max(n for n in range(1, local_batch + 1) if local_batch % n == 0 and n <= fit)


def measured(
    try_images: Callable[[int], None], local_batch: int, *, device: torch.device, gpu_share: float
) -> int:
    """Return the micro-batch that this GPU's free memory allows, from a forward of 1 and 2 images.

    try_images: does a forward and backward of so many images, and keeps nothing.
    """
    if local_batch == 1:
        return 1
    peaks = []
    for count in (1, 1, 2):  # the first one also loads kernels
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            try_images(count)
        except torch.OutOfMemoryError:
            return 1
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    allowed = min(free, int(gpu_share * total) - torch.cuda.memory_allocated(device))
    return fitting(local_batch, peaks[1], peaks[2], allowed)


def loader_for(process: Process, crops: Crops, batch_size: int) -> Loader:
    """Return a rank's loader. Raises DataError for too few images."""
    return Loader(
        crops,
        batch_size,
        rank=process.rank,
        world_size=process.world_size,
        num_workers=num_loader_workers(process.execution, process.device),
        pin=process.device.type == "cuda",
    )


def num_loader_workers(execution: Execution, device: torch.device) -> int:
    """Return how many processes load data.

    By default none on a CPU, which they would share with the training. With a GPU: this machine's
    CPUs per visible GPU, times `gpu_share`, less one, from 1 to MAX_LOADER_WORKERS.
    """
    if execution.num_loader_workers is not None:
        return execution.num_loader_workers
    if device.type != "cuda":
        return 0
    own = int(usable_cpus() * execution.gpu_share) // max(1, torch.cuda.device_count())
    return max(1, min(MAX_LOADER_WORKERS, own - 1))
