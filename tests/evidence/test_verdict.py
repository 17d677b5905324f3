"""Verdicts on made-up seeds one by one."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from sweeps.evidence.verdict import Verdict, Word, judge, table_verdicts
from sweeps.report.words import signed

MARGIN = 0.5


def decide(
    differences: list[float], paper: float, holm_p: float | None = None, outside_p: float = 1.0
) -> Verdict:
    """Judge a cell that is alone in its table, unless adjusted p-values are given."""
    measured = {"A": dict(enumerate(differences)), "B0": dict.fromkeys(range(9), 0.0)}
    alone = table_verdicts({"A": paper, "B0": 0.0}, measured, {"A": "B0"}, MARGIN)["A"]
    if holm_p is None:
        return alone.verdict
    return judge(alone.differences, paper=paper, margin=MARGIN, holm_p=holm_p, outside_p=outside_p)


@pytest.mark.parametrize(
    ("differences", "paper", "word"),
    [
        ([1.6, 1.8, 1.7], 1.74, Word.REPRODUCED),
        ([-1.6, -1.8, -1.7], -1.74, Word.REPRODUCED),
        ([0.5, 0.6, 0.7], 1.74, Word.TREND_ONLY),  # sure of the sign, sure to be smaller
        ([-0.5, -0.6, -0.7], -1.74, Word.TREND_ONLY),
        ([1.0, 1.6, 2.3], 1.74, Word.TREND_ONLY),  # sure of the sign, not of the size
        ([1.5, 1.8, 2.0], 1.74, Word.REPRODUCED),  # equivalent with p .041
        ([1.4, 1.7, 2.0], 1.74, Word.TREND_ONLY),  # p .059
        ([0.0, 0.1, -0.1], 1.74, Word.NOT_REPRODUCED),
        ([-0.9, -1.0, -1.1], 1.74, Word.NOT_REPRODUCED),
        ([-1.0, 3.0, 1.5], 1.74, Word.NOT_RESOLVABLE),
        ([1.7], 1.74, Word.NOT_RESOLVABLE),
        ([], 1.74, Word.NOT_RESOLVABLE),
        ([0.05, 0.15, 0.1], 0.2, Word.REPRODUCED),  # within the margin, no sign is claimed
        ([-0.1, 0.0, 0.1], 0.2, Word.REPRODUCED),
        ([1.5, 1.6, 1.7], 0.2, Word.NOT_REPRODUCED),
        ([-1.0, 1.0, 0.3], 0.2, Word.NOT_RESOLVABLE),
        ([0.5, 0.8, 0.6], 0.2, Word.NOT_RESOLVABLE),  # not 0, but perhaps within .2 ± .5
        ([0.0, 0.0], 0.2, Word.REPRODUCED),
        ([0.0, 0.0], 1.74, Word.NOT_REPRODUCED),
    ],
)
def test_each_word_has_its_case(differences: list[float], paper: float, word: Word) -> None:
    assert decide(differences, paper).word == word


@pytest.mark.parametrize(("holm_p", "claimed"), [(0.049, True), (0.05, False), (0.051, False)])
def test_a_sign_is_claimed_only_for_an_adjusted_p_below_alpha(holm_p: float, claimed: bool) -> None:
    close = decide([1.6, 1.8, 1.7], 1.74, holm_p=holm_p).word
    smaller = decide([0.5, 0.6, 0.7], 1.74, holm_p=holm_p, outside_p=0.01).word
    assert close == (Word.REPRODUCED if claimed else Word.NOT_RESOLVABLE)
    assert smaller == (Word.TREND_ONLY if claimed else Word.NOT_REPRODUCED)


def test_the_papers_difference_is_that_of_the_printed_decimals() -> None:
    found = table_verdicts({"B0": 48.1, "A": 48.3}, {}, {"A": "B0"}, MARGIN)
    assert 48.3 - 48.1 != 0.2
    assert found["A"].paper_difference == 0.2


def test_a_difference_of_exactly_the_margin_counts_as_within_it() -> None:
    # Within the margin a p of .9 does not matter; above it, it would.
    assert decide([0.49, 0.5, 0.51], 0.3 + 0.2, holm_p=0.9).word == Word.REPRODUCED
    assert decide([0.69, 0.7, 0.71], 0.7, holm_p=0.9).word == Word.NOT_RESOLVABLE


def test_a_margin_of_zero_reproduces_nothing_and_is_no_error() -> None:
    measured = {"B0": {0: 50.0, 1: 51.0}, "A": {0: 51.7, 1: 52.8}}
    found = table_verdicts({"B0": 48.0, "A": 49.74}, measured, {"A": "B0"}, 0.0)["A"].verdict
    assert found.word in (Word.TREND_ONLY, Word.NOT_RESOLVABLE)


def test_reasons_hold_the_figures() -> None:
    reason = decide([0.0, 0.1, 0.2], 1.74).reason
    assert "measured +0.10 ± 0.10 over 3 seeds" in reason
    assert "(90 % interval -0.07 to +0.27)" in reason  # .1 ± 2.920 * .1 / sqrt 3
    assert "the paper +1.74 ± 0.50" in reason
    assert "Holm p .225 against no difference" in reason  # 2 P(T > sqrt 3), 2 degrees of freedom
    assert "Holm p .003 against the paper's size" in reason  # 2 P(T > 1.14 / .1 * sqrt 3)
    assert "p .999 against another size" in reason
    assert "Holm p .200 against no difference" in decide([1.6, 1.8, 1.7], 1.74, holm_p=0.2).reason


def test_what_is_missing_is_said() -> None:
    assert decide([1.7], 1.74).reason == "one seed: seed noise unknown"
    assert "no seed was measured" in decide([], 1.74).reason
    # statsmodels: the power for an effect of 1.74 / SD 2.0207 passes .8 between 12 and 13 seeds.
    reason = decide([-1.0, 3.0, 1.5], 1.74).reason
    assert "SD 2.02" in reason
    assert "to resolve 1.74: 13 seeds" in reason
    assert "to show ± 0.50: " in reason
    assert "to resolve" not in decide([-1.0, 1.0, 0.3], MARGIN).reason


def test_a_table_pairs_by_seed_and_adjusts_over_its_cells() -> None:
    paper = {"B0": 48.0, "A": 49.7, "B": None, "C": 48.5, "D": 50.0}
    measured = {
        "B0": {0: 50.0, 1: 51.0, 2: 49.0},
        "A": {0: 51.6, 1: 52.8, 2: 50.7, 7: 99.0},
        "B": {0: 50.1, 1: 51.3, 2: 48.9},
        "C": {1: 51.2},
    }
    found = table_verdicts(paper, measured, dict.fromkeys("ABCD", "B0"), MARGIN)
    assert list(found) == ["A", "B", "C", "D"]
    assert found["A"].differences.values == pytest.approx((1.6, 1.8, 1.7))
    assert found["A"].paper_difference == pytest.approx(1.7)
    p = scipy_stats.ttest_rel([51.6, 52.8, 50.7], [50, 51, 49]).pvalue
    assert found["A"].holm_p == pytest.approx(2 * p)  # two cells have a test
    assert found["A"].differs is True
    assert found["A"].verdict.word == Word.REPRODUCED
    assert (found["B"].verdict, found["B"].differs, found["B"].seeds_needed) == (None, False, None)
    assert found["C"].holm_p is None
    assert found["C"].differs is None
    assert found["C"].paper_difference == 0.5
    assert found["C"].verdict == (Word.NOT_RESOLVABLE, "one seed: seed noise unknown")
    assert found["D"].verdict.word == Word.NOT_RESOLVABLE


def test_of_200_tables_of_noise_at_most_5_percent_show_a_difference_or_refute_the_paper() -> None:
    names, num_tables, shown, refuted, unadjusted = "ABCDEFGHI", 200, 0, 0, 0
    paper = dict.fromkeys(names, 50.0)  # which is the truth
    for table in np.random.default_rng(0).normal(50, 4, (num_tables, len(names), 4)).tolist():
        measured = {name: dict(enumerate(row)) for name, row in zip(names, table, strict=True)}
        found = table_verdicts(paper, measured, dict.fromkeys(names[1:], "A"), MARGIN).values()
        shown += any(cell.differs for cell in found)
        refuted += any(c.verdict and c.verdict.word is Word.NOT_REPRODUCED for c in found)
        unadjusted += any((cell.differences.p or 0) < 0.05 for cell in found)
    sampling_error = 4 * (0.05 * 0.95 / num_tables) ** 0.5
    assert shown / num_tables <= 0.05 + sampling_error
    assert refuted / num_tables <= 0.05 + sampling_error
    assert unadjusted / num_tables > 0.15  # without Holm's correction: the test can fail


def test_without_the_papers_baseline_there_are_differences_but_no_verdicts() -> None:
    measured = {"B0": {0: 50.0, 1: 51.0}, "A": {0: 51.0, 1: 53.0}}
    found = table_verdicts({"A": 49.0, "B0": None}, measured, {"A": "B0"}, MARGIN)["A"]
    assert found.verdict is None
    assert found.differences.mean == 1.5


def test_a_difference_that_rounds_to_0_has_no_minus() -> None:
    assert "-0.00" not in decide([-0.001, 0.001, -0.002], -0.004).reason
    assert signed(-0.004) == "+0.00"
