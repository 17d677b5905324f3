"""Seed noise against scipy, statsmodels and numbers worked out by hand."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame
from scipy import stats as scipy_stats
from scipy.linalg import helmert
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.weightstats import ttost_paired

from sweeps.evidence.power import range_of_noise
from sweeps.evidence.seeds import FloatArray, holm, seed_differences, tost, two_way_anova

PERCENT = st.floats(0, 100).map(lambda x: round(x, 2))


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


@settings(max_examples=60)
@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=2, max_size=8))
def test_paired_p_agrees_with_scipy(pairs: list[tuple[float, float]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = seed_differences(by_seed(a), by_seed(b))
    difference = np.subtract(a, b)
    if difference.std() < 1e-9:
        return  # scipy has no answer; the next test says what ours is
    expected = scipy_stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()), rel=1e-6)
    assert found.mean == pytest.approx(difference.mean())
    assert found.sd == pytest.approx(difference.std(ddof=1))


def test_differences_without_spread_neither_crash_nor_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = seed_differences(by_seed([50.1, 60.3]), by_seed([50.1, 60.3]))
        shifted = seed_differences(by_seed([50.1, 60.3, 0.3]), by_seed([50.0, 60.2, 0.2]))
    assert (same.p, same.sd, same.interval) == (1.0, 0.0, (0.0, 0.0))
    assert (shifted.p, shifted.sd) == (0.0, 0.0)
    assert shifted.mean == pytest.approx(0.1)


def test_only_seeds_of_both_sides_are_paired_whatever_their_order() -> None:
    found = seed_differences({8: 5.0, 1: 1.0, 9: 7.0}, {1: 0.5, 2: 8.0, 8: 2.0})
    assert found.seeds == (1, 8)  # a set has them as 8, 1
    assert found.values == (0.5, 3.0)
    assert found.n == 2


def test_fewer_than_two_common_seeds_leave_noise_unknown() -> None:
    one = seed_differences({0: 5.0, 1: 6.0}, {1: 4.0})
    assert (one.mean, one.sd, one.interval, one.p) == (2.0, None, None, None)
    none = seed_differences({0: 5.0}, {1: 4.0})
    assert (none.n, none.mean, none.sd, none.interval, none.p) == (0, *[None] * 4)


def test_holm_is_that_worked_out_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04; the last may not fall below .06.
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([None, None]) == [None, None]
    assert holm([0.7, 0.6]) == [1.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-300, 300), min_size=2, max_size=8, unique=True),
    st.floats(-2, 2),
    st.floats(0.01, 3),
)
def test_tost_agrees_with_statsmodels(hundredths: list[int], centre: float, margin: float) -> None:
    differences = np.array(hundredths) / 100
    expected = ttost_paired(
        differences, np.zeros_like(differences), centre - margin, centre + margin
    )[0]
    assert tost(differences, centre=centre, margin=margin) == pytest.approx(expected, abs=1e-9)


def test_tost_without_spread_says_inside_outside_or_on_the_margin() -> None:
    assert tost([1.0, 1.0], centre=1.2, margin=0.5) == 0.0
    assert tost([2.0, 2.0], centre=1.2, margin=0.5) == 1.0
    assert tost([1.5, 1.5], centre=1.0, margin=0.5) == 0.5
    assert tost([1.0], centre=1.0, margin=0.5) is None
    p = tost([1.0, 2.0], centre=1.5, margin=0.0)
    assert p == 0.5  # never shown


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 4, 4), (5, 3, 2)])
def test_anova_is_that_of_statsmodels_with_fewer_degrees_of_freedom(
    shape: tuple[int, int, int],
) -> None:
    values = np.random.default_rng(sum(shape)).normal(50, 3, shape)
    seed, row, column = (places.ravel() for places in np.indices(shape))
    data = DataFrame({"miou": values.ravel(), "seed": seed, "row": row, "column": column})
    table = AnovaRM(data, "miou", "seed", within=["row", "column"]).fit().anova_table
    rows, columns = (helmert(size) for size in shape[1:])  # orthonormal contrasts
    contrasts = {
        "row": np.einsum("src,ir->si", values, rows),
        "column": np.einsum("src,jc->sj", values, columns),
        "row:column": np.einsum("src,ir,jc->sij", values, rows, columns).reshape(len(values), -1),
    }
    for p, (name, scores) in zip(two_way_anova(values), contrasts.items(), strict=True):
        covariance = np.atleast_2d(np.cov(scores.T))
        epsilon = covariance.trace() ** 2 / (len(covariance) * (covariance**2).sum())
        f, *dfs = table.loc[name, ["F Value", "Num DF", "Den DF"]]
        assert p == pytest.approx(scipy_stats.f.sf(f, *(epsilon * df for df in dfs)))


@pytest.mark.parametrize(
    "row_of_seed",
    [
        lambda rng: rng.normal(0, 1, (3, 4, 1)),  # .42 against the residual of the whole grid
        lambda rng: rng.normal(0, 2, (3, 1, 1)) * np.linspace(-1, 1, 4)[:, None],  # .15 with all df
    ],
)
def test_what_a_seed_does_to_rows_is_no_effect_of_rows(
    row_of_seed: Callable[[np.random.Generator], FloatArray],
) -> None:
    rng, found = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.normal(50, 1, (3, 4, 4)) + row_of_seed(rng)
        found += two_way_anova(values).rows < 0.05
    assert found / 400 < 0.09


def test_anova_of_equal_or_exactly_additive_cells_neither_crashes_nor_warns() -> None:
    equal = two_way_anova(np.full((2, 3, 3), 41.3))
    assert equal == (1.0, 1.0, 1.0)
    additive = two_way_anova(np.array([[[10.1, 10.4], [11.2, 11.5]]] * 2))
    assert additive.rows == 0.0


def test_range_of_noise_is_that_of_published_tables() -> None:
    # Expected range of a sample, d2 of control charts; studentised range, upper 5 %.
    assert range_of_noise(0.4, 2, df=9).expected == pytest.approx(0.4 * 1.12838, rel=1e-4)
    assert range_of_noise(0.4, 16, df=9).expected == pytest.approx(0.4 * 3.532, rel=1e-4)
    assert range_of_noise(0.4, 3, df=12).upper == pytest.approx(0.4 * 3.77, abs=0.002)
    for k, df in ((16, 1), (4, 4), (100, 891)):
        lower, upper = scipy_stats.studentized_range.ppf([0.05, 0.95], k, df)
        found = range_of_noise(1.0, k, df=df)
        assert (found.lower, found.upper) == pytest.approx((lower, upper), rel=1e-4)


def test_range_without_noise_or_with_one_cell_is_zero() -> None:
    assert range_of_noise(0.0, 16, df=9) == (0.0, 0.0, 0.0)
    assert range_of_noise(1.0, 1, df=9) == (0.0, 0.0, 0.0)
