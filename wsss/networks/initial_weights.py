"""Whether networks can start from the weights that a plan names, before anything is trained."""

from collections.abc import Iterable
from pathlib import Path

from wsss.config import NetworkConfig
from wsss.weights import NAMES, require_weights


def check_initial_weights(networks: Iterable[NetworkConfig], weights_file: Path | None) -> None:
    """Raise WeightsError unless all networks can start from their weights.

    A file is loaded, which imports torch; nothing is downloaded.
    """
    for network in {(each.backbone, each.weights): each for each in networks}.values():
        require_weights(network, weights_file)
        if network.weights not in NAMES:
            from wsss.networks.backbone import build_backbone

            build_backbone(network, weights_file)
