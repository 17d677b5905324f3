"""A report as one self-contained HTML page: no script, no font, no picture from elsewhere."""

from base64 import b64encode
from collections.abc import Iterator

from jinja2 import Environment, PackageLoader, StrictUndefined

from sweeps.report.document import Block, Document, Format, column_groups, shown
from sweeps.report.words import greek
from wsss.basics.printable import printable


def html(document: Document) -> str:
    """Return the page. All text is escaped."""
    environment = Environment(
        loader=PackageLoader("sweeps.report.formats", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "blocks": _blocks,
        "column_groups": column_groups,
        "svg_address": lambda svg: f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}",
        "verbatim": lambda text: _Verbatim(printable(text)),
    }
    return environment.get_template("page.html").render(
        document=document, sections=document.sections_in(Format.html)
    )


class _Verbatim(str):
    """Text that is copied, so that no name becomes a symbol."""


def _printable(value: object) -> object:
    """Escape control characters and use Greek letters, except in markup and verbatim text."""
    return greek(printable(value)) if type(value) is str else value


def _blocks(blocks: tuple[Block, ...]) -> Iterator[tuple[str, Block]]:
    for block in shown(blocks, Format.html):
        yield type(block).__name__, block
