"""The sparse random walk against the dense one: seconds and memory of one image with two classes.

Usage: python -m benchmarks.labels.random_walk. Each walk runs in its own process, whose peak
resident memory is compared with that before the walk; both do 256 steps, the dense one by 8
squarings, as the published code of PSA and IRN. Prints the median ratio (dense / sparse) and its
spread. At 94 x 125, IRN's map of a VOC image, only the sparse walk runs; the dense one is
extrapolated, time with the cube of the number of pixels, memory with its square.
"""

import time
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.ratios import high_water_mib, in_new_process, show
from wsss.labels.refine.random_walk import random_walk, transition
from wsss.networks.affinity_net import neighbour_pairs, pair_distances

ROUNDS = 3
RADIUS, BETA, LOG_STEPS, CHANNELS, CLASSES = 5, 8.0, 8, 64, 2
SMALL_MAP, LARGE_MAP = (40, 53), (94, 125)


def sparse_walk(features: torch.Tensor, cams: np.ndarray) -> np.ndarray:
    """Ours, from features to walked CAMs."""
    return random_walk(cams, transition(features, RADIUS, BETA), LOG_STEPS)


def dense_walk(features: torch.Tensor, cams: np.ndarray) -> np.ndarray:
    """The published way: a full matrix, normalised and squared log_steps times."""
    height, width = features.shape[1:]
    pairs = neighbour_pairs(height, width, RADIUS)
    matrix = torch.eye(height * width)
    affinity = torch.exp(-BETA * pair_distances(features[None], RADIUS)[0])
    matrix[pairs.first, pairs.second] = affinity
    matrix[pairs.second, pairs.first] = affinity
    matrix = matrix / matrix.sum(1, keepdim=True)
    for _ in range(LOG_STEPS):
        matrix = matrix @ matrix
    flat = torch.from_numpy(cams).flatten(1)
    return (flat @ matrix.T).reshape(cams.shape).numpy()


WALKS = {"sparse": sparse_walk, "dense": dense_walk}


class Walked(NamedTuple):
    """What one walk took, and part of its result."""

    seconds: float
    memory: float
    """MiB above the start."""
    cams: np.ndarray


def walk(name: str, height: int, width: int) -> Walked:
    """Walk a made-up map once, in a process of its own."""
    rng = np.random.default_rng(0)
    WALKS[name](torch.zeros(2, 4, 4), np.zeros((1, 4, 4), dtype=np.float32))  # loads the libraries
    features = torch.from_numpy(rng.standard_normal((CHANNELS, height, width), dtype=np.float32))
    cams = rng.random((CLASSES, height, width), dtype=np.float32)
    before, started = high_water_mib(), time.perf_counter()
    walked = WALKS[name](features, cams)
    seconds = time.perf_counter() - started
    return Walked(seconds, high_water_mib() - before, walked[:, ::7, ::7])


def compare(size: tuple[int, int]) -> tuple[float, float]:
    """Walk a map both ways in turn; return the dense walk's seconds and MiB."""
    kinds: dict[str, list[Walked]] = {kind: [] for kind in WALKS}
    for _ in range(ROUNDS):
        for kind, walks in kinds.items():
            walks.append(in_new_process(walk, kind, *size))
    sparse, dense = kinds.values()
    for ours, peer in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(ours.cams, peer.cams, rtol=1e-3)
    name = f"{size[0]} x {size[1]}"
    ratios = [peer.seconds / ours.seconds for ours, peer in zip(sparse, dense, strict=True)]
    show(f"{name}, time", ratios)
    _, (seconds, memory) = (show_walks(name, kind, walks) for kind, walks in kinds.items())
    return seconds, memory


def show_walks(name: str, kind: str, walks: list[Walked]) -> tuple[float, float]:
    """Print what walks of one kind took; return the median seconds and MiB."""
    seconds = show(f"{name}, {kind}", [one.seconds for one in walks], unit="s")
    memory = show(f"{name}, memory, {kind}", [one.memory for one in walks], unit="MiB")
    return seconds.median, memory.median


def main() -> None:
    """Compare on a map where the dense matrix fits, then run the sparse walk alone."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; 256 steps, 2 classes")
    seconds, memory = compare(SMALL_MAP)
    grown = np.prod(LARGE_MAP) / np.prod(SMALL_MAP)
    name = f"{LARGE_MAP[0]} x {LARGE_MAP[1]}"
    ours = [in_new_process(walk, "sparse", *LARGE_MAP) for _ in range(ROUNDS)]
    middle, space = show_walks(name, "sparse", ours)
    print(
        f"{name}, dense by extrapolation: {seconds * grown**3:.0f} s "
        f"({seconds * grown**3 / middle:.0f} x), {memory * grown**2:.0f} MiB "
        f"({memory * grown**2 / space:.0f} x)"
    )


if __name__ == "__main__":
    main()
