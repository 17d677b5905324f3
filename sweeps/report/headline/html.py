"""The headline's report as one self-contained HTML page: no script, nothing from elsewhere.

Its style is that of a sweep's report.
"""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from sweeps.plan.scale import SMALL_SCALE
from sweeps.report.headline.model import MEASURED, PRINTED, HeadlineReport
from sweeps.report.headline.words import (
    LABEL_COLUMNS,
    TABLE_I_COLUMNS,
    class_lines,
    label_lines,
    legend,
    measured_i,
    printed_i,
)
from sweeps.tables.segmentation import TABLE_II


def html(report: HeadlineReport) -> str:
    """Return the page. All text from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("sweeps.report.headline", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("headline.html").render(
        report=report,
        style=report_style(),
        small_scale=SMALL_SCALE,
        legend=legend(report.headline),
        printed=PRINTED,
        measured=MEASURED,
        columns_i=TABLE_I_COLUMNS,
        printed_i=printed_i(),
        measured_i=measured_i(report),
        printed_names=[row.method for row in TABLE_II] if report.same_classes else [],
        lines_ii=class_lines(report),
        label_columns=LABEL_COLUMNS,
        label_lines=label_lines(report),
    )


def report_style() -> Markup:
    """Return the style sheet of a sweep's report, so that both pages look alike."""
    loader = PackageLoader("sweeps.report", ".")
    source = loader.get_source(Environment(loader=loader, autoescape=True), "report.html")[0]
    found = re.search(r"<style>(.*?)</style>", source, re.DOTALL)
    if found is None:
        raise ValueError("sweeps/report/report.html has no <style>; keep one for both reports")
    return Markup(found[1])  # our own file
