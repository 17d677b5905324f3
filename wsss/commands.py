"""Commands as messages print them: what is printed works when it is typed in the same folder."""

import shlex
import shutil
import sys
from pathlib import Path

PROGRAMS = ("sweeps", "wsss")


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
    """Return the command that started this process, with those of these words that it lacks."""
    words = own_words()
    return shlex.join([*words, *(word for word in more if word not in words)])


def _start_of(program: str) -> list[str]:
    """Return the words that start a program in the way in which this process was started.

    As a word if the shell finds it, as a path if it lies beside this process's program, else as a
    module of this Python.
    """
    beside = Path(sys.argv[0]).absolute().with_name(program)
    if Path(sys.argv[0]).name not in PROGRAMS or not beside.is_file():
        return [sys.executable, "-m", program]
    found = shutil.which(program)
    return [program if found and Path(found).samefile(beside) else str(beside)]
