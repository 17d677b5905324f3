"""What came out of a headline, in sentences with their figures; no claim beyond one training."""

from collections.abc import Sequence

from sweeps.plan.headline import SUPERVISED
from sweeps.report.headline.model import LabelRow, NetworkRow

PLAIN = "none"


def findings(
    networks: Sequence[NetworkRow], labels: Sequence[LabelRow], split: str
) -> tuple[str, ...]:
    """Return the best network from image labels, what refinement moved, and the bound's distance.

    Figures in percent, differences in points. Networks that learnt nothing are named and left out.
    Empty if no network is finished.
    """
    finished = [row for row in networks if row.miou is not None]
    done = [row for row in finished if not background_alone(row)]
    weak = [row for row in done if row.source != SUPERVISED]
    sentences = [
        f"The network on {row.name} finds no class but the background ({_miou(row):.2f} mIoU), so "
        "it is compared with nothing."
        for row in finished
        if background_alone(row)
    ]
    if weak:
        best = max(weak, key=_miou)
        sentences.append(
            f"From image labels, the network on {best.name} reaches {_miou(best):.2f} mIoU on "
            f"{best.num_images} images ({split})."
        )
    plain = next((row for row in weak if row.source == PLAIN), None)
    for row in weak:
        if plain and row is not plain:
            sentences.append(
                f"{row.name} against plain CAM: {_miou(row) - _miou(plain):+.2f} points on {split}"
                f"{_label_gain(row.name, labels)}."
            )
    bound = next((row for row in done if row.source == SUPERVISED), None)
    if weak and bound:
        share = 100 * _miou(best) / _miou(bound) if _miou(bound) else 0
        sentences.append(
            f"The supervised bound reaches {_miou(bound):.2f}: image labels come to {share:.0f} % "
            "of it."
        )
    elif bound:
        sentences.append(f"The supervised bound reaches {_miou(bound):.2f} mIoU ({split}).")
    if len(done) > 1:
        sentences.append(
            "Each network is one training: differences of a point or two may be seed noise."
        )
    return tuple(sentences)


def background_alone(row: NetworkRow) -> bool:
    """Whether a finished network has no right pixel of any class but the background."""
    return not any(row.ious[name] for name in list(row.ious)[1:])


def _miou(row: NetworkRow) -> float:
    assert row.miou is not None
    return row.miou


def _label_gain(name: str, labels: Sequence[LabelRow]) -> str:
    gain = next((row.gain for row in labels if row.name == name and row.gain is not None), None)
    return "" if gain is None else f", {gain:+.2f} of its labels on the training images"
