"""Where the results of a chain lie in a store."""

from pathlib import Path

from sweeps.plan.chains.chain import ChainConfig


class ChainFolders:
    def __init__(self, root: Path, chain: ChainConfig) -> None:
        self.maps = root / "maps" / chain.maps_id
        self.walk = root / "walks" / chain.walk_id
        self.labels = root / "labels" / chain.labels_id
        self.segmentation = root / "segmentations" / chain.segmentation_id
        self.predictions = root / "predictions" / chain.prediction_id
