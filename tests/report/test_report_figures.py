"""The report's figures: SVG that stands by itself, and the numbers in it."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.report.figures.heatmap import BRIGHT, heatmap
from sweeps.report.figures.lines import dead_curves, loss_curves, moving_average, threshold_curves
from sweeps.report.figures.rows import DotRow, bars, dots
from sweeps.report.figures.svg import PALETTE

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def draw_losses(label: str) -> str:
    curves = {label: [[3.0, 2.0, 1.0, 1.5], [3.0, 2.0, 1.0]], "other": [[2.0, 1.0]]}
    return loss_curves(curves, 2)


def draw_thresholds(label: str) -> str:
    curve = [0.1, 0.2, 0.3, 0.4], [20.0, 25.0, 21.0, 30.0]
    return threshold_curves({label: curve}, 0.15, (0.1, 0.3))


def draw_dead(label: str) -> str:
    return dead_curves({label: [[0.9, 0.5, 0.1], [0.8, 0.4]]})


def draw_heatmap(label: str) -> str:
    measured, paper = np.array([[24.0, NAN]]), np.array([[50.0, 51.0]])
    columns = label, ["left", label]
    return heatmap(measured, paper, rows=(label, [label]), columns=columns, noise=0.5)


def draw_classes(label: str) -> str:
    rows = [(label, 2.0), ("b", -1.0)]
    return bars(rows, axis="points", intervals=[(1.0, 3.0), (-2.0, 0.0)])


def draw_dots(label: str) -> str:
    rows = [DotRow(label, [24.0, 25.0], (23.0, 26.0), 24.5), DotRow("one", [24.0])]
    return dots(rows, axis=label)


DRAWINGS = [draw_losses, draw_thresholds, draw_dead, draw_heatmap, draw_classes, draw_dots]
every_figure = pytest.mark.parametrize("draw", [pytest.param(d, id=d.__name__) for d in DRAWINGS])
Draw = Callable[[str], str]


@cache
def drawn(draw: Draw, label: str = "a label") -> str:
    return draw(label)


def elements(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter())


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in elements(svg) if element.tag == f"{SVG}text"]


def text_x(svg: str, text: str) -> float:
    (element,) = (e for e in elements(svg) if e.tag == f"{SVG}text" and e.text == text)
    return float(element.attrib["x"])


def on_axis(svg: str, *ticks: str) -> Callable[[Iterable[float]], list[float]]:
    """From places to values on the x axis, by those of two of its labels."""
    values, places = map(float, ticks), [text_x(svg, tick) for tick in ticks]
    line = np.polynomial.Polynomial.fit(places, list(values), 1)
    return lambda xs: np.round([line(x) for x in xs], 1).tolist()


def paths(svg: str, style: str) -> list[np.ndarray]:
    """Corner points [n, 2] of every path whose style contains this."""
    return [
        np.array(re.findall(r"-?[\d.]+", element.attrib.get("d", "")), dtype=float).reshape(-1, 2)
        for element in elements(svg)
        if element.tag == f"{SVG}path" and style in element.attrib.get("style", "")
    ]


# All figures


@every_figure
def test_drawing_twice_gives_the_same_bytes_whatever_the_users_style(draw: Draw) -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert draw("a label") == drawn(draw)
        assert matplotlib.rcParams["font.size"] == 30
    root = ElementTree.fromstring(drawn(draw))
    assert float(root.attrib["viewBox"].split()[2]) <= 640


@every_figure
def test_hostile_labels_come_out_as_text(draw: Draw) -> None:
    svg = drawn(draw, "<script>&</script> $x_ 日本 a\x00b\ud800c")
    assert "<script" not in svg
    assert r"<script>&</script> $x_ 日本 a\x00b\ud800c" in " ".join(texts(svg))


@every_figure
def test_long_labels_are_wrapped_and_cut(draw: Draw) -> None:
    lines = texts(drawn(draw, "a long label of many words " * 30))
    assert max(len(line) for line in lines if "many words" in line) <= 70
    assert any(line.endswith(" …") for line in lines)


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Contrast ratio of two sRGB colours (WCAG 2.2)."""
    luminances = []
    for colour in (first, second):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        luminances.append(float(np.dot([0.2126, 0.7152, 0.0722], linear)))
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@pytest.mark.parametrize("share", np.linspace(0, 1, 11))
def test_numbers_can_be_read_on_every_colour_of_the_map(share: float) -> None:
    background = matplotlib.colormaps["cividis"](share)[:3]
    text = (1.0, 1.0, 1.0) if share < BRIGHT else (0.0, 0.0, 0.0)
    assert contrast(text, background) >= 4.5


# Losses


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_moving_average_is_that_of_pandas(values: list[float], window: int) -> None:
    windows = pandas.Series(values).rolling(window // 2 * 2 + 1, center=True, min_periods=1)
    assert moving_average(values, window) == pytest.approx(windows.mean())


def test_loss_curves_name_their_lines_seeds_and_window() -> None:
    curves = {"none": [[1.0] * 6] * 3, "both": [[2.0] * 6]}
    found = texts(loss_curves(curves, 2))
    assert {"none (mean of 3 seeds)", "both (1 seed)", "training step", "loss L"} <= set(found)
    assert "pale: every step; strong: moving average over 2 steps" in found


def test_the_line_of_a_configuration_is_the_mean_over_its_seeds() -> None:
    two = loss_curves({"a": [[1.0, 4.0, 2.0], [3.0, 2.0, 4.0]]}, 2)
    one = loss_curves({"a": [[2.0, 3.0, 3.0]]}, 2)
    lines = [paths(svg, f"stroke: {PALETTE[0]}") for svg in (two, one)]
    assert len(lines[0]) == len(lines[1]) == 3  # pale, strong, and in the legend
    for first, second in zip(lines[0][:2], lines[1][:2], strict=True):
        assert first == pytest.approx(second)


def test_lines_differ_in_their_dashes_as_well_as_in_colour() -> None:
    svg = loss_curves({name: [[1.0, 2.0]] for name in "abcd"}, 2)
    dashes = {
        match[1] if (match := re.search("stroke-dasharray: ([^;]+)", e.attrib["style"])) else ""
        for colour in PALETTE[:4]
        for e in elements(svg)
        if f"stroke: {colour}" in e.attrib.get("style", "") and "opacity" not in e.attrib["style"]
    }
    assert len(dashes) == 4


def test_a_long_training_keeps_its_spikes_but_not_all_its_points() -> None:
    losses = np.random.default_rng(0).normal(1, 0.3, 5000).tolist()
    losses[3210] = 9.0
    svg = loss_curves({"a": [losses]}, 250)
    pale = paths(svg, f"stroke: {PALETTE[0]}; stroke-opacity")[0]
    strong = paths(svg, f"stroke: {PALETTE[0]}; stroke-width: 2.2")[0]
    assert np.ptp(pale[:, 1]) > 10 * np.ptp(strong[:, 1]) > 0
    assert len(svg) < 80_000


# Thresholds


def test_the_fixed_threshold_and_the_best_within_the_limits_are_marked_where_they_lie() -> None:
    svg = drawn(draw_thresholds)
    first, second = text_x(svg, "0.10"), text_x(svg, "0.20")
    assert text_x(svg, "fixed: 0.15") == pytest.approx((first + second) / 2, abs=0.05)
    markers = [e.attrib for e in elements(svg) if PALETTE[0] in e.attrib.get("style", "")]
    assert any(abs(float(e["x"]) - second) < 0.05 for e in markers if "x" in e)
    assert sum("x" in e for e in markers) == 2  # and one in the legend


# Maps


def small_heatmap(noise: float | None, paper: list[list[float]] | None = None) -> str:
    measured = np.array([[24.0, 24.9, NAN], [25.0, 24.4, 24.5]])
    printed = paper or [[50.0, 50.1, 50.2], [NAN, 50.4, 50.5]]
    return heatmap(
        measured,
        np.array(printed),
        rows=("rows", ["r1", "r2"]),
        columns=("columns", ["c1", "c2", "c3"]),
        noise=noise,
    )


def test_a_map_shows_every_number_its_span_and_what_is_missing() -> None:
    found = texts(small_heatmap(0.5))
    for number in ("24.00", "24.90", "25.00", "24.40", "24.50", "50.00", "50.40"):
        assert found.count(number) == 1
    assert found.count("missing") == 1
    assert found.count("none") == 1
    assert {"24.00 to 25.00, span 1.00", "50.00 to 50.50, span 0.50"} <= set(found)


def test_a_number_stands_in_its_row_and_column() -> None:
    svg = small_heatmap(0.5, [[NAN] * 3] * 2)  # which has one panel
    found = (e for e in elements(svg) if e.tag == f"{SVG}text" and "x" in e.attrib)
    at = {e.text: e.attrib for e in found}
    x, y = ({text: float(where[axis]) for text, where in at.items()} for axis in "xy")
    assert y["24.00"] < y["25.00"] == pytest.approx(y["r2"], abs=3)  # the first row is at the top
    assert x["24.00"] < x["24.90"] < x["24.50"]


@pytest.mark.parametrize(("noise", "framed"), [(0.5, 2), (0.05, 0), (None, 0)])
def test_cells_within_the_noise_of_the_best_are_framed(noise: float | None, framed: int) -> None:
    svg = small_heatmap(noise)
    assert sum("stroke-dasharray" in e.attrib.get("style", "") for e in elements(svg)) == framed


def test_a_map_without_printed_numbers_has_one_panel_and_one_without_a_number_says_so() -> None:
    found = texts(small_heatmap(0.5, [[NAN] * 3] * 2))
    assert "measured" in found
    assert "printed in the paper" not in found
    measured, paper, names = np.array([[NAN]]), np.array([[50.0]]), ("", ["r"])
    found = texts(heatmap(measured, paper, rows=names, columns=names, noise=0.1))
    assert {"no value yet", "missing", "50.00"} <= set(found)


# Rows


def test_bars_per_class_are_as_long_as_the_differences_and_on_their_side_of_zero() -> None:
    rows = [("cat", 4.0), ("dog", -2.0), ("car", 1.0)]
    svg = bars(rows, axis="points", intervals=[(3.0, 5.0), (-4.0, 0.0), (1.0, 1.0)])
    values = on_axis(svg, "0", "2")
    (up, small), (down,) = (paths(svg, f"fill: {PALETTE[sign]}") for sign in (0, 1))
    ends = [values((bar[:, 0].min(), bar[:, 0].max())) for bar in (up, down, small)]
    assert ends == [[0, 4], [-2, 0], [0, 1]]
    lines = [values(p[:, 0]) for p in paths(svg, "stroke-width: 1.6") if len(p) == 2]
    assert lines[:2] == [[3, 5], [-4, 0]]


def test_dots_intervals_the_papers_number_and_the_line_stand_at_their_values() -> None:
    rows = [DotRow("a", [0.0, 2.0], (-0.5, 2.5), 1.5), DotRow("b", [-1.0])]
    svg = dots(rows, axis="points")
    values = on_axis(svg, "0.0", "1.0")
    drawn_marks = [e.attrib for e in elements(svg) if e.tag == f"{SVG}use"]
    measured, printed = f"fill: {PALETTE[0]}", f"stroke: {PALETTE[1]}"
    for colour, expected in ((measured, [0, 2, -1]), (printed, [1.5])):
        at = [float(e["x"]) for e in drawn_marks if colour in e["style"]]
        assert values(at)[: len(expected)] == expected  # those of the legend follow
    interval, line = (paths(svg, f"stroke-width: {width}")[0][:, 0] for width in (1.6, 1.2))
    assert (values(interval), values(line)) == ([-0.5, 2.5], [0, 0])
    names = {"seed", "mean over seeds,", "95 % interval", "printed in the paper", "points"}
    assert names <= set(texts(svg))
    alone = set(texts(dots([DotRow("a", [24.0])], axis="points")))
    assert names & alone == {"seed", "points"}, "the legend names only what is there"
