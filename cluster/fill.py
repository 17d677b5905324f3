"""Fill the YOUR_... words of a cluster file.

    python cluster/fill.py FILE --output NEW NAME=value ...

Comments and layout are kept. It is an error if a word has no value, a name does not occur, or a
value has characters that are special to a shell or YAML: values end up in commands on nodes.
"""

import argparse
import re
import sys
from pathlib import Path

WORD = re.compile(r"YOUR_([A-Z]+(?:_[A-Z]+)*)")
PLAIN = re.compile(r"[A-Za-z0-9_./:@,~+=-]+")


class FillError(ValueError):
    """A value or a name that cannot be used; the message says what to do."""


def fill(text: str, values: dict[str, str]) -> str:
    """Return `text` with each YOUR_NAME replaced by values[NAME]; comment lines are kept.

    Raises FillError for an unknown name, a missing value, or a value that is not plain text.
    """
    lines = text.splitlines(keepends=True)
    used = [line for line in lines if not line.lstrip().startswith("#")]
    names = {name for line in used for name in WORD.findall(line)}
    if unknown := sorted(set(values) - names):
        raise FillError(f"{', '.join(unknown)} does not occur; the names are {_listed(names)}")
    if missing := sorted(names - set(values)):
        raise FillError(f"no value for {', '.join(missing)}; give {missing[0]}=...")
    for name, value in values.items():
        if not PLAIN.fullmatch(value) or value.startswith("-"):
            raise FillError(f"{name}={value!r}: only letters, digits and _./:@,~+=- are allowed")

    def replaced(line: str) -> str:
        if line.lstrip().startswith("#"):
            return line
        return WORD.sub(lambda word: values[word[1]], line)

    return "".join(replaced(line) for line in lines)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def main(arguments: list[str] | None = None) -> int:
    """Write the filled file; 2 on a usage error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("values", nargs="+", metavar="NAME=value")
    given = parser.parse_args(arguments)
    try:
        pairs = [value.partition("=") for value in given.values]
        filled = fill(given.file.read_text(), {name: value for name, _, value in pairs})
        given.output.write_text(filled)
    except (FillError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {given.output}; next: what its first lines say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
