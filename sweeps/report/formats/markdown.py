"""A report as GitHub-flavoured Markdown."""

import re
from collections.abc import Iterator

from sweeps.report.document import (
    Block,
    Bullets,
    Command,
    Details,
    Document,
    Format,
    Grid,
    Heading,
    Picture,
    Strip,
    Text,
    flat,
    shown,
)
from wsss.basics.printable import printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$])")


def markdown(document: Document) -> str:
    """Return the report as Markdown text."""
    parts = [f"# {escape(document.title)}", *_parts(document.head)]
    for section in document.sections_in(Format.markdown):
        parts += [f"## {escape(section.title)}", *_parts(section.blocks)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(text.split())).replace("&", "&amp;"))


def _parts(blocks: tuple[Block, ...]) -> Iterator[str]:
    for block in shown(blocks, Format.markdown):
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    """Yield the paragraphs of a block. Only pictures with a file are shown."""
    match block:
        case Text(text, tone):
            yield f"**{escape(text)}**" if tone == "mark" else escape(text)
        case Heading(text):
            yield f"### {escape(text)}"
        case Bullets(items):
            yield "\n".join(f"- {escape(item)}" for item in items)
        case Strip(question, answer, _, command):
            yield f"{escape(question)} **{escape(answer)}**"
            if command:
                yield from _block(Command("Next", command))
        case Command(lead, command):
            is_plain = command.isprintable() and not set("`<") & set(command)
            yield f"{escape(lead)}: {f'`{command}`' if is_plain else escape(command)}"
        case Grid():
            head, groups = flat(block)
            rows = [head, ["---"] * len(head), *(line for group in groups for line in group)]
            yield "\n".join("| " + " | ".join(map(escape, row)) + " |" for row in rows)
        case Picture():
            if block.file:
                yield f"![{escape(block.title)}](<{block.file}>)"
                yield escape(block.caption)
        case Details(summary, inner):
            yield f"### {escape(summary)}"
            yield from _parts(inner)
        case _:
            pass  # pictures without a file
