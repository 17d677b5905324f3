"""The answer to a headline's question: does the paper's figure come out, and what comes next?

The paper gives no spread of its figure: the answer gives ours, where the store has several seeds,
and never says more than "cannot tell".
"""

from sweeps.evidence.seeds import mean_sd
from sweeps.plan.headline import SUPERVISED
from sweeps.report.document import Strip
from sweeps.report.headline.build import HeadlineReport
from sweeps.report.words import mean_and_sd
from sweeps.tables.segmentation import OURS, TABLE_I
from wsss.printable import counted


def answer(report: HeadlineReport) -> Strip:
    """Return how far the best network from image labels is from the paper's, and the next step."""
    place = " on this data and at this scale" if report.scale.word else ""
    missing = sum(row.miou is None for row in report.networks)
    lacking = f" {counted(missing, 'network')} missing." if missing else ""
    return Strip(
        f"Does the paper's headline hold{place}?",
        f"Cannot tell: {_why(report)}.{lacking}",
        "open",
        report.command,
    )


def _why(report: HeadlineReport) -> str:
    """Return what came out, and why it decides nothing."""
    weak = [(r.miou, r) for r in report.networks if r.source != SUPERVISED and r.miou is not None]
    if not weak:
        return "no network from image labels is finished"
    found = [(miou, row) for miou, row in weak if not row.finds_background_alone]
    if not found:
        return "no network from image labels finds more than the background"
    _, best = max(found, key=lambda pair: pair[0])
    paper = next(row.val for row in TABLE_I if row.method == OURS)
    mean, sd = mean_sd(list(best.by_seed.values()))
    seeds = f"over {len(best.by_seed)} seeds" if sd is not None else "with one seed"
    reaches = f"reaches {mean_and_sd(mean, sd)} mIoU on {report.split} {seeds}"
    measured = f"the network on {best.name} {reaches}"
    if report.scale.word:
        return f"{measured}, and the paper's {paper:.1f} is of other data or another scale"
    if report.split != "val":
        return f"{measured}, and the paper prints {paper:.1f} for val"
    return (
        f"{measured}, {mean - paper:+.2f} to the paper's {paper:.1f}, which comes without a spread"
    )
