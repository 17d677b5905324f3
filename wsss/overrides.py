"""Settings from outside: dotted overrides and files. Wrong ones are refused by name.

The command line overrides a file, and a file overrides the preset and its recipe.
"""

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from wsss.basics.errors import ForeseenError
from wsss.basics.files import read_text
from wsss.basics.printable import MAX_QUOTED, as_word, printable, quoted
from wsss.basics.strict import rule_of
from wsss.config import RunConfig, Settings
from wsss.weights import resolve_weights

S = TypeVar("S", bound=Settings)

MAX_FILE_BYTES = 1 << 20
"""Of a settings file; all settings together take a few kilobytes."""
MAX_DEPTH = 20
"""Of nested lists and mappings; settings have two levels."""


class ConfigError(ForeseenError, ValueError):
    """A setting that cannot be used; the message names the key, the rule and the remedy."""


def apply_overrides(settings: S, overrides: Mapping[str, Any]) -> S:
    """Return settings with dotted ones replaced, e.g. `{"transfer.lambda_s": 0.2}`.

    Raises ConfigError, one line per wrong setting, for an unknown key or a value that the setting
    refuses.
    """
    known = list(settings.flat())
    for key in overrides:
        if key not in known:
            raise ConfigError(f"unknown setting {quoted(key)}; {_hint(key, known)}")
    tree: dict[str, Any] = settings.model_dump()
    for key, value in overrides.items():
        *sections, name = key.split(".")
        inner = tree
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return validate(type(settings), tree)


def validate(kind: type[S], tree: Mapping[str, Any]) -> S:
    """Build settings from nested ones. Raises ConfigError, one line per wrong setting."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        is_whole = not any(field.is_required() for field in kind.model_fields.values())
        raise ConfigError(_explain(error, kind().flat() if is_whole else {})) from None


class Settled(NamedTuple):
    """A training's settings, with everything that was asked for."""

    config: RunConfig
    weights_file: Path | None
    asked: dict[str, Any]
    """What was asked for beyond preset and recipe: dotted setting -> value."""


def settle(
    start: RunConfig,
    overrides: Mapping[str, Any],
    *,
    weights: str | None = None,
    file: Path | None = None,
) -> Settled:
    """Apply a settings file to a preset, then the command line.

    overrides: of `--set`; weights: of `--weights`. Raises ConfigError or WeightsError, also if the
    command line contradicts itself.
    """
    filed = read_config_file(file) if file else {}
    asked, weights_file = filed | dict(overrides), None
    if weights is not None:
        name, weights_file = resolve_weights(weights)
        if (other := overrides.get("network.weights", name)) != name:
            raise ConfigError(
                f"--set network.weights={other} and --weights {weights} contradict each other; "
                "give one of them"
            )
        asked["network.weights"] = name
    try:
        return Settled(apply_overrides(start, asked), weights_file, asked)
    except ConfigError:
        if file:
            _require_fitting(file, start, filed)
        raise


def _require_fitting(file: Path, start: RunConfig, filed: Mapping[str, Any]) -> None:
    """Raise ConfigError naming the file if its settings do not fit the preset."""
    try:
        apply_overrides(start, filed)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{file}: {line}" for line in str(error).split("\n"))) from None


def parse_assignments(assignments: list[str], *, option: str = "--set") -> dict[str, Any]:
    """Parse `key=value` words of a command line, each value as YAML.

    option: the option that they were given with, for errors. Raises ConfigError, also for a key
    that is given twice.
    """
    parsed: dict[str, Any] = {}
    for word in assignments:
        name, separator, value = word.partition("=")
        key = name.strip()
        if not separator:
            raise ConfigError(f"{option} {quoted(word)} has no '='; write it as train.lr=0.02")
        if key in parsed:
            raise ConfigError(f"{option} gives {quoted(key)} twice; give it once")
        try:
            parsed[key] = _parsed(value)
        except ValueError as error:
            raise ConfigError(
                f"{option} {quoted(word)}: {quoted(value)} is not a YAML value ({error}); write a "
                "number, true, false, a word or a list"
            ) from None
    return parsed


def read_config_file(path: Path) -> dict[str, Any]:
    """Read dotted overrides from a YAML, JSON or TOML file of sections, `train: {lr: 0.02}`.

    Raises ConfigError as `read_tree`, and if the file is not a mapping.
    """
    is_toml = path.suffix.lower() == ".toml"
    example = "'train.lr = 0.02'" if is_toml else "'train: {lr: 0.02}'"
    tree = read_tree(path, example=example)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as {example}")
    return _flat(path, tree)


def read_tree(path: Path, *, example: str) -> Any:
    """Return the content of a YAML, JSON or TOML file; example: of its content, for errors.

    A file is TOML if it ends in .toml. Raises ConfigError if it is missing, a pipe, too large,
    cannot be parsed, or gives a key twice.
    """
    kind = "TOML" if path.suffix.lower() == ".toml" else "YAML"
    text = read_text(path, MAX_FILE_BYTES, ConfigError)
    if path.suffix.lower() == ".json":  # read as YAML, which refuses tabs
        text = text.replace("\t", " ")
    try:
        return _parsed(text, kind)
    except ValueError as error:
        raise ConfigError(f"{path}: not {kind}: {error}; write {example}") from None


def _flat(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, value in tree.items():
        inside = (
            {f"{section}.{name}": inner for name, inner in value.items()}
            if isinstance(value, dict)
            else {str(section): value}
        )
        for key in inside.keys() & flat.keys():
            raise ConfigError(f"{path}: {quoted(key)} is given twice; give it once")
        flat |= inside
    return flat


def _parsed(text: str, kind: str = "YAML") -> Any:
    """Read YAML, but no aliases (one line can stand for gigabytes) and no deep nesting; or TOML.

    Raises ValueError with the reason in one line.
    """
    try:
        if kind == "TOML":
            import tomllib

            tree = tomllib.loads(text)
        else:
            tree = _core_loader()(text).get_single_data()
        repr(tree)  # fails for a number of so many digits that no message can name it
    except Exception as error:  # PyYAML raises many kinds, as for 2001-99-99 and !!bool x
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark and "\n" in text else ""
        reason = f"{getattr(error, 'problem', None) or error}{where}"
        raise ValueError(printable(" ".join(reason.split()))[:MAX_QUOTED]) from None
    return tree


@cache
def _core_loader() -> Any:
    """Return a YAML loader that reads plain words as YAML 1.2 does.

    In YAML 1.1, which PyYAML implements, `off` is false, 010 is 8, 1:30 is 90 and 1e-3 is a word,
    and of two equal keys, it silently keeps the last.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses what `_parsed` says, and a key that is given twice."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("aliases such as *x are refused")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise ValueError(f"nested over {MAX_DEPTH} levels deep")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
            for key, count in Counter(keys).items():
                if count > 1:
                    raise ValueError(f"{quoted(key)} is given twice; give it once")
            return node

    Loader.yaml_implicit_resolvers = {}
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?\d+", "-+0123456789"),
        (
            "float",
            r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            "-+.0123456789",
        ),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("merge", r"<<", "<"),
    ):
        whole = re.compile(rf"(?:{pattern})\Z", re.ASCII)
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", whole, list(first))
    Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
    return Loader


def _hint(key: str, known: list[str]) -> str:
    """Name the section's settings, the nearest one, or the sections; all would fill a screen."""
    section = key.rstrip(".") + "."
    if inside := [name for name in known if name.startswith(section)]:
        return f"known: {', '.join(inside)}"
    same = [name for name in known if name.endswith(f".{key}")]
    if near := same or difflib.get_close_matches(key, known, n=1, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    groups = dict.fromkeys(f"{name.partition('.')[0]}.*" if "." in name else name for name in known)
    return f"known: {', '.join(groups)}"


def _explain(error: ValidationError, usual: Mapping[str, Any]) -> str:
    """Return a line per wrong setting: its value, the rule, and a value that fits.

    usual: the defaults by name.
    """
    lines = dict[str, str]()
    for problem in error.errors():
        path, rule = ".".join(map(str, problem["loc"])), rule_of(problem)
        setting = next((name for name in usual if f"{path}.".startswith(f"{name}.")), "")
        if not path or (not setting and problem["type"] == "value_error"):
            line = f"{path}: {rule}".removeprefix(": ")  # settings that do not go together
        else:
            remedy = f"; the default is {as_word(usual[setting])}" if setting else ""
            line = f"{printable(path)[:MAX_QUOTED]} = {quoted(problem['input'])}: {rule}{remedy}"
        lines.setdefault(setting or path, line)  # its first: pydantic leaves out wrong items
    return "\n".join(lines.values())
