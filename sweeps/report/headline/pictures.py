"""The gallery of a headline: a line per image, a column per network, like the paper's Figure 5."""

import base64
from pathlib import Path

from sweeps.plan.chain import ChainConfig, ChainFolders
from sweeps.plan.headline import Headline, chain_metrics
from sweeps.report.model import Picture
from sweeps.stages.segmentation import read_png
from sweeps.store.store import Store
from wsss.data.image import as_array
from wsss.data.loading import read_rgb
from wsss.data.voc import VocDataset
from wsss.evaluation.figures_segmentation import GalleryRow, draw_segmentation_gallery

NUM_IMAGES = 6
DOTS_PER_INCH = 110


def gallery(headline: Headline, store: Store) -> Picture | None:
    """Draw the same images under every finished network; None if there is none.

    The images are evenly spaced over the split, so nobody picked them. The picture also lies beside
    the report, as gallery.png.
    """
    finished = [chain for chain in headline.chains if chain_metrics(store, chain)]
    if not finished:
        return None
    finished.sort(key=lambda chain: chain.labels is None)  # the bound last, beside nothing better
    dataset, split = VocDataset(headline.sweep.data), finished[0].eval_split
    ids = dataset.image_ids(split)
    shown = ids[:: max(1, len(ids) // NUM_IMAGES)][:NUM_IMAGES]
    path = headline_folder(store, headline) / "gallery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [_column(chain) for chain in finished]
    draw_segmentation_gallery(
        path,
        [_row(dataset, store, finished, image_id) for image_id in shown],
        names=names,
        class_names=dataset.classes,
        dots_per_inch=DOTS_PER_INCH,
    )
    caption = (
        f"Image, ground truth, and the prediction of the network trained on: {'; '.join(names)}. "
        f"{len(shown)} images evenly spaced over {split}, as the paper's Figure 5."
    )
    return Picture(f"Segmentations of {split}", caption, image=data_uri(path))


def headline_folder(store: Store, headline: Headline) -> Path:
    """Return where a headline's report lies."""
    return store.root / "headline" / headline.name


def data_uri(path: Path) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _row(dataset: VocDataset, store: Store, chains: list[ChainConfig], image_id: str) -> GalleryRow:
    return GalleryRow(
        image_id,
        as_array(read_rgb(dataset.sample(image_id))),
        dataset.mask(image_id),
        tuple(
            read_png(ChainFolders(store.root, chain).predictions / "png" / f"{image_id}.png")
            for chain in chains
        ),
    )


def _column(chain: ChainConfig) -> str:
    return "true masks" if chain.labels is None else chain.name
