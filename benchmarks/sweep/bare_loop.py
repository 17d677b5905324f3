"""Trains and scores configurations one after the other in one process, without Ray, MLflow, store,
checkpoints or pictures.

Usage: python -m benchmarks.sweep.bare_loop CONFIGS DATA [--only INDEX] [--threads N]. CONFIGS is a
JSON list of run configurations; prints a line of JSON for each. It imports nothing of sweeps.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.counting import collected, count_each
from wsss.evaluation.score import Score, score_counts
from wsss.labels.infer import infer_cams
from wsss.training.cam import build_cam_net, train_cam


def train_and_score(config: RunConfig, dataset: VocDataset) -> tuple[Score, float]:
    """Return a configuration's score, and the seconds that the training took."""
    started = time.perf_counter()
    samples = dataset.samples(config.data.train_split)
    model = build_cam_net(config, samples, len(dataset.classes))
    for _ in train_cam(model, config, samples):
        pass
    trained = time.perf_counter() - started
    scored, labels = dataset.samples(config.data.eval_split), config.labels
    images = infer_cams(model, scored, labels, device=torch.device("cpu"))
    counts = collected(count_each(images, dataset, labels), dataset, labels)
    return score_counts(counts, labels), trained


def run_all(configs: list[RunConfig], data: Path) -> Iterator[dict[str, float]]:
    """Yield both mIoU of each configuration, and the seconds it took."""
    dataset = VocDataset(data)
    for config in configs:
        started = time.perf_counter()
        score, trained = train_and_score(config, dataset)
        yield {
            "miou_fixed": score.miou_fixed,
            "miou_best": score.miou_best,
            "train_seconds": trained,
            "seconds": time.perf_counter() - started,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(".")[0])
    parser.add_argument("configs", type=Path, help="JSON list of run configurations")
    parser.add_argument("data", type=Path, help="folder in VOC layout")
    parser.add_argument("--only", type=int, help="index of the one configuration to run")
    parser.add_argument("--threads", type=int, help="default: as many as torch chooses")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    configs = [RunConfig.model_validate(one) for one in json.loads(chosen.configs.read_text())]
    if chosen.only is not None:
        configs = [configs[chosen.only]]
    for record in run_all(configs, chosen.data):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
