"""The CAM score that IRN printed, the scores others got from its code, and its author's losses.

IRN is Ahn, Cho and Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations", CVPR 2019; its code is github.com/jiwoon-ahn/irn. All scores are mIoU in percent of its
plain CAMs on VOC 2012's train images at a background score of .15. These are numbers of IRN, not of
the paper whose tables are swept here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownRun:
    """One training by IRN's code, as somebody reported it."""

    miou: float
    """Percent, with the digits that were reported."""
    source: str
    """docs/calibration.md says more of each."""


PUBLISHED = KnownRun(48.3, "Ahn et al., CVPR 2019")

RUNS = (
    PUBLISHED,
    KnownRun(48.3, "github.com/jiwoon-ahn/irn/issues/10"),
    KnownRun(48.1, "github.com/jiwoon-ahn/irn/issues/4"),
    KnownRun(48.6, "github.com/chenqi1126/SIPE/issues/9"),
    KnownRun(48.11, "github.com/CVI-SZU/CLIMS/issues/17"),
)
"""All whose score was found. The paper's number counts as one of them: it is one training, too."""

AUTHOR_LOG = "github.com/jiwoon-ahn/irn/issues/13"
AUTHOR_LOSSES = {
    100: 0.1896,
    200: 0.1140,
    300: 0.0935,
    400: 0.0898,
    500: 0.0826,
    1000: 0.0715,
    1500: 0.0570,
}
"""Step (the first is 0) -> mean L_cls of the 100 steps up to it, from the author's training log."""
AUTHOR_STEPS = 3305
"""Steps of that training: 5 epochs of 10,582 // 16."""
