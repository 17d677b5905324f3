"""All stages of a chain in their order, each kept in the store and never run twice.

    CAM training -> CAMs of the training images -> (affinity, random walk) -> label maps
      -> DeepLab -> predictions on the evaluation split -> score

An interrupted stage goes on where it was.
"""

from collections.abc import Callable, Iterator

from sweeps.chain_work import ChainTask, Steps
from sweeps.label_stages import LabelStages
from sweeps.segmentation_stages import SegmentationStages
from wsss.training.process import Process


def run_chain(task: ChainTask, process: Process) -> Iterator[tuple[str, float, float]]:
    """Run what is missing of a chain; yield (stage, done, total) as it goes."""
    labels, network = LabelStages(task, process), SegmentationStages(task, process)
    stages: list[tuple[str, Callable[[], Steps]]] = []
    if task.chain.labels is not None:
        stages += [("train CAM", labels.train_cam), ("infer CAMs", labels.infer)]
        if task.chain.walks:
            stages += [("learn affinity", labels.learn_affinity), ("random walk", labels.walk)]
        stages.append(("write labels", labels.write_labels))
    stages += [("train DeepLab", network.segment), ("predict", network.predict)]
    for name, stage in stages:
        for done, total in stage():
            yield name, done, total
