"""How many seeds a difference takes, against simulated experiments and statsmodels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from sweeps.evidence.power import (
    minimum_detectable,
    seeds_for_equivalence,
    seeds_needed,
    t_test_power,
    tost_power,
)

TRIALS = 20_000
FOUR_ERRORS = 4 * (0.8 * 0.2 / TRIALS) ** 0.5


def share_equivalent(margin: float, sd: float, n: int, alpha: float) -> float:
    """Share of simulated experiments, truth at the centre, in which both one-sided tests reject."""
    draws = np.random.default_rng(n).normal(0, sd, (TRIALS, n))
    above = scipy_stats.ttest_1samp(draws, -margin, axis=1, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(draws, margin, axis=1, alternative="less").pvalue
    return float((np.maximum(above, below) < alpha).mean())


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.5))
def test_power_agrees_with_statsmodels(n: int, effect: float) -> None:
    # statsmodels gives NaN for large effects over few seeds; for these it does not.
    expected = TTestPower().power(effect, n, 0.05)
    assert t_test_power(effect, 1.0, n) == pytest.approx(expected, abs=1e-8)


def test_power_over_two_seeds_is_the_exact_one_of_one_degree_of_freedom() -> None:
    # t = (Z + 35 sqrt 2) / |Z'|: above 12.706 if |Z'| < 3.8955 or so; integrate over Z.
    critical = scipy_stats.t.isf(0.025, 1)
    z = np.linspace(-8, 8, 20_001)
    inside = 2 * scipy_stats.norm.cdf((z + 35 * 2**0.5) / critical) - 1
    expected = np.trapezoid(inside * scipy_stats.norm.pdf(z), z)
    assert t_test_power(35.0, 1.0, 2) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("effect", "sd"), [(1.7, 0.9), (0.05, 0.17), (4.0, 0.1), (0.3, 0.31)])
def test_seeds_needed_is_the_first_number_that_reaches_the_power(effect: float, sd: float) -> None:
    n = seeds_needed(effect, sd)
    assert seeds_needed(-effect, sd) == n
    if n > 2:
        powers = [TTestPower().power(effect / sd, k, 0.05) for k in (n - 1, n)]
        assert powers[0] < 0.8 <= powers[1]


def test_no_number_of_seeds_finds_no_effect_and_two_suffice_without_noise() -> None:
    assert seeds_needed(0.0, 0.5) is None
    assert seeds_needed(1e-6, 5.0) is None
    assert seeds_needed(0.1, 0.0) == 2
    assert seeds_for_equivalence(0.5, 0.0) == 2
    assert seeds_for_equivalence(0.0, 0.1) is None
    assert minimum_detectable(0.0, 3) == 0.0


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_minimum_detectable_difference_is_found_with_the_power_asked_for(n: int) -> None:
    smallest = minimum_detectable(0.17, n)
    assert t_test_power(smallest, 0.17, n) == pytest.approx(0.8, abs=1e-6)
    assert minimum_detectable(0.34, n) == pytest.approx(2 * smallest)


@pytest.mark.parametrize(
    ("margin", "sd", "n"), [(0.5, 0.3, 4), (2.0, 1.0, 3), (8.0, 1.0, 2), (0.4, 0.9, 40)]
)
def test_equivalence_power_is_the_share_of_simulated_experiments(
    margin: float, sd: float, n: int
) -> None:
    found = tost_power(margin, sd, n)
    assert 0.1 < found < 0.95
    assert found == pytest.approx(share_equivalent(margin, sd, n, 0.05), abs=FOUR_ERRORS)


def test_seeds_for_equivalence_is_the_first_number_that_reaches_the_power() -> None:
    n = seeds_for_equivalence(0.5, 0.6)
    assert share_equivalent(0.5, 0.6, n, 0.05) > 0.8 - FOUR_ERRORS
    assert share_equivalent(0.5, 0.6, n - 1, 0.05) < 0.8 + FOUR_ERRORS
