"""What a table shows, in one sentence: made-up grids with and without an effect."""

import numpy as np
from numpy.typing import NDArray

from sweeps.report.summary import table_summary
from sweeps.tables.studies import TABLES

V, III = TABLES["V"], TABLES["III"]


def noise(*shape: int, sd: float = 1.0, rng_seed: int = 0) -> NDArray[np.float64]:
    return 40 + np.random.default_rng(rng_seed).normal(0, sd, shape)


def test_one_seed_has_no_sd_and_the_sentence_says_what_to_do() -> None:
    values = noise(1, 4, 4)
    text = table_summary(V, values, None, [])
    assert text.startswith("Seed noise is unknown, as no cell has two seeds")
    assert f"the 16 cells span {np.ptp(values):.2f} mIoU" in text
    assert "SEEDS=3" in text


def test_noise_alone_tells_no_lambda_from_another() -> None:
    values = noise(3, 4, 4)
    text = table_summary(V, values, (1.0, 32), [])
    span = np.ptp(values.mean(0))
    assert f"span {span:.2f} mIoU over 3 seeds, {span:.1f} SD of one training" in text
    assert text.endswith("no lambda_s or lambda_bs can be told from another here.")


def test_a_factor_with_an_effect_matters_and_the_other_does_not() -> None:
    values = noise(3, 4, 4, sd=0.3)
    values += np.array([0, 1, 2, 3])[:, None]  # by lambda_s, the rows
    text = table_summary(V, values, (0.3, 32), [])
    assert "lambda_s matters (Holm p < .001)" in text
    assert "lambda_bs" not in text


def test_what_a_seed_adds_to_all_cells_hides_no_effect() -> None:
    values = noise(3, 4, 1, sd=0.1) + np.array([0, 10, 20])[:, None, None]
    values[:, 3] += 2
    assert "differ by more than seeds do" in table_summary(III, values, (10.0, 8), [])


def test_a_table_of_one_column_speaks_of_cells_and_contradicts_no_verdict() -> None:
    values = noise(3, 4, 1)
    text = table_summary(III, values, (1.0, 8), [])
    assert text.endswith("no cell can be told from another here.")
    text = table_summary(III, values, (1.0, 8), ["III[yes,yes]"])
    assert text.endswith("within noise as a whole, but III[yes,yes] differs from the baseline.")


def test_equal_results_have_no_span_in_sds() -> None:
    text = table_summary(V, np.full((2, 4, 4), 40.0), (0.0, 16), [])
    assert text.startswith("The 16 cells span 0.00 mIoU over 2 seeds; without")
    assert text.endswith("can be told from another here.")
