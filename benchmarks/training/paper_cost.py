"""GPU-hours of Tables III to VI at the paper's scale, from counted operations. No GPU is used.

Usage: python -m benchmarks.training.paper_cost [--tflops 20] [--seeds 3]. Counts multiplications
and additions of convolutions and matrix products (torch's FlopCounterMode, on the meta device) of a
training step and of multi-scale inference of every distinct configuration of preset `paper`.

Assumed: 10,582 training images, 5 epochs, crop 512; 1,464 scored images of 500 x 375; a GPU's
average rate (--tflops), including all other work; one attempt per training.
"""

import argparse
from collections import Counter
from functools import cache

import torch

from benchmarks.pictures import VOC_SIZE
from benchmarks.training.train_step import operations
from sweeps.plan.trials import make_plan
from sweeps.tables.studies import TABLES
from wsss.config import LabelsConfig, NetworkConfig, RunConfig
from wsss.gpu_check.sections.speed import NUM_SCORED, NUM_TRAIN
from wsss.gpu_check.trainings import NUM_CLASSES
from wsss.networks.cam_net import CamNet
from wsss.presets import PAPER


@cache
def training_flops(network: NetworkConfig, crop: int) -> int:
    """Return the operations of one image of one view, forward and backward."""
    with torch.device("meta"):
        model = CamNet(network, NUM_CLASSES).train()
        x = torch.empty(1, 3, crop, crop)
    return operations(lambda: model(x).cams.sum().backward())


@cache
def inference_flops(network: NetworkConfig, labels: LabelsConfig) -> int:
    """Return the operations of one scored image over all scales and flips."""
    batch = 2 if labels.flip else 1
    with torch.device("meta"):
        model = CamNet(network, NUM_CLASSES).eval()
        width, height = VOC_SIZE
        sizes = ((round(height * s), round(width * s)) for s in labels.scales)
        inputs = [torch.empty(batch, 3, *size) for size in sizes]
    with torch.no_grad():
        return operations(lambda: [model(x) for x in inputs])


def cost(config: RunConfig) -> tuple[float, float]:
    """Return the TFLOP of a configuration's training and of its inference."""
    network = config.network.model_copy(update={"weights": "none"})
    views = 1 + len(config.views.names)
    images = config.train.epochs * (NUM_TRAIN // config.train.batch_size) * config.train.batch_size
    training = training_flops(network, config.train.crop_size) * views * images
    return training / 1e12, inference_flops(network, config.labels) * NUM_SCORED / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tflops", type=float, default=20.0, help="reached on average, per second")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    plan = make_plan([TABLES[name] for name in ("III", "IV", "V", "VI")], PAPER, given.seeds)
    costs = {trial.cam_id: cost(trial.config) for trial in plan.trials}
    kinds = Counter(round(training / 1000) for training, _ in costs.values())
    for petaflops, number in sorted(kinds.items()):
        hours = petaflops * 1000 / given.tflops / 3600
        print(f"{number:4} trainings of {petaflops:7,} PFLOP: {hours:6.1f} h each")
    training, inference = (sum(column) for column in zip(*costs.values(), strict=True))
    hours = (training + inference) / given.tflops / 3600
    print(
        f"{len(plan.trials)} trials, {len(costs)} trainings: {training / 1e6:.2f} EFLOP of "
        f"training, {inference / 1e6:.2f} of inference; {hours:,.0f} GPU-hours at "
        f"{given.tflops:g} TFLOP/s"
    )


if __name__ == "__main__":
    main()
