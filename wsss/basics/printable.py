"""Text that is safe to show in a message, terminal or report; commands that can be copied."""

import codecs
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

KEPT = "\n\t\u00a0\u2009\u202f"
"""Line breaks, and spaces that `str.isprintable` does not accept."""

MAX_QUOTED = 160
"""Characters of a value in a message: enough to find it."""

SPELLED_OUT = "spelled_out"
"""An `errors=` handler for streams, which replaces characters that the encoding lacks."""
SPELLINGS = {
    "±": "+-",
    "–": "-",
    "…": "...",
    "·": "-",
    "√": "sqrt",
    "▸": ">",
    "✓": "ok",
    "✗": "x",
    "λ": "lambda",
    "α": "alpha",
    "β": "beta",
    "×": "x",
    "−": "-",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    **dict.fromkeys("\u00a0\u2009\u202f", " "),
}
"""Of characters in our own output; any other is written as an escape."""

PROGRAMS = ("sweeps", "wsss")


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    spelled = (SPELLINGS.get(c) or c.encode("unicode_escape").decode() for c in lacking)
    return "".join(spelled), error.end


codecs.register_error(SPELLED_OUT, _spell_out)


def printable(text: str) -> str:
    r"""Return text whose control characters are written out, ESC as `\x1b`.

    They can move a terminal's cursor or clear it, and direction marks can disguise text.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in KEPT else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    """Return printable text whose line breaks are written out, too, for a name within a line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def counted(count: int, noun: str) -> str:
    """Return `1 seed` or `1,464 seeds`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def mean_of_seeds(count: int) -> str:
    """Return `1 seed` or `mean of 3 seeds`."""
    return f"{'' if count == 1 else 'mean of '}{counted(count, 'seed')}"


def first_of(names: Sequence[str], shown: int = 3) -> str:
    """Return `a, b and 3 more` in one line: the first names, and how many are left out."""
    left_out = len(names) - shown
    more = f" and {left_out:,} more" if left_out > 0 else ""
    return ", ".join(map(one_line, names[:shown])) + more


def quoted(value: object) -> str:
    """Return a value as Python writes it, cut after MAX_QUOTED characters."""
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}... ({len(text):,} characters)"


def as_word(value: object) -> str:
    """Return a setting's value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def command(program: str, *words: object) -> str:
    """Return a command of one of PROGRAMS for a message, its words quoted for a shell."""
    return shlex.join([*_start_of(program), *map(str, words)])


def own_words() -> list[str]:
    """Return the words of the command that started this process."""
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    start = _start_of(name) if name in PROGRAMS else [sys.executable, sys.argv[0]]
    return [*start, *sys.argv[1:]]


def own_command(*more: str) -> str:
    """Return the command that started this process, plus those of the words that it lacks."""
    words = own_words()
    return shlex.join([*words, *(word for word in more if word not in words)])


def _start_of(program: str) -> list[str]:
    """Return the words that start a program as this process was started.

    By name if the shell finds it, by path if it is in the folder of this process's program, else as
    a module of this Python.
    """
    beside = Path(sys.argv[0]).absolute().with_name(program)
    if Path(sys.argv[0]).name not in PROGRAMS or not beside.is_file():
        return [sys.executable, "-m", program]
    found = shutil.which(program)
    return [program if found and Path(found).samefile(beside) else str(beside)]
