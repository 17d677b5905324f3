"""Settings from outside: dotted overrides and YAML files, refused by name when they are wrong."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from wsss.config import RunConfig, Settings
from wsss.errors import ForeseenError
from wsss.printable import MAX_QUOTED, printable, quoted

S = TypeVar("S", bound=Settings)

MAX_FILE_BYTES = 1 << 20
"""Of a YAML file; all settings together take some kilobytes."""
MAX_DEPTH = 20
"""Of nested lists and mappings; settings have two."""
MAX_INTEGER = 2**63
"""Greater ones neither fit a setting nor, beyond 4,300 digits, into a message."""


class ConfigError(ForeseenError, ValueError):
    """A setting that cannot be used; the message names the key, the rule and the remedy."""


def apply_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Return `config` with dotted settings replaced, e.g. `{"transfer.lambda_s": 0.2}`.

    Raises ConfigError for an unknown key (naming the nearest known one, those of a section or the
    sections) or a value that the setting refuses.
    """
    known = list(config.flat())
    for key in overrides:
        if key not in known:
            raise ConfigError(f"unknown setting {quoted(key)}; {_hint(key, known)}")
    tree: dict[str, Any] = config.model_dump()
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return validate(tree)


def replace_settings(settings: S, overrides: Mapping[str, Any]) -> S:
    """Return any settings with dotted ones replaced, e.g. `{"crf.preset": "psa"}`.

    Raises ConfigError, one line per wrong setting.
    """
    tree: dict[str, Any] = settings.model_dump()
    for key, value in overrides.items():
        *sections, name = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"{quoted(key)}: {quoted(section)} is a value, not a group of settings"
                )
        inner[name] = value
    try:
        return type(settings).model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def validate(tree: Mapping[str, Any]) -> RunConfig:
    """Build a RunConfig from nested settings. Raises ConfigError, one line per wrong setting."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Parse `key=value` words of a command line, each value as YAML. Raises ConfigError."""
    parsed = {}
    for word in assignments:
        key, separator, value = word.partition("=")
        if not separator:
            raise ConfigError(f"--set {quoted(word)} has no '='; write it as train.lr=0.02")
        try:
            parsed[key.strip()] = _plain_yaml(value)
        except _NotYamlError as error:
            raise ConfigError(
                f"--set {quoted(word)}: {quoted(value)} is not a YAML value ({error}); write a "
                "number, true, false, a word or a list"
            ) from None
    return parsed


def read_config_file(path: Path) -> dict[str, Any]:
    """Read dotted overrides from a YAML file of sections, `train: {lr: 0.02}`.

    Raises ConfigError if the file is missing, is not YAML, or is not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: over {MAX_FILE_BYTES:,} bytes; give a file of settings")
        tree = _plain_yaml(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give an existing YAML file") from None
    except (_NotYamlError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}; write 'train: {{lr: 0.02}}'") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as 'train: {{lr: 0.02}}'")
    flat: dict[str, Any] = {}
    for section, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{section}.{name}": inner for name, inner in value.items()}
        else:
            flat[str(section)] = value
    return flat


class _NotYamlError(Exception):
    """Text that is no YAML, or none that settings are written in."""


def _plain_yaml(text: str) -> Any:
    """Read YAML without aliases, by which a line can stand for gigabytes, and without depths.

    Raises _NotYamlError with the reason in one line.
    """
    import yaml  # here, because most command lines have no value to read

    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise _NotYamlError("aliases such as *x are refused")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _NotYamlError(f"nested over {MAX_DEPTH} levels deep")
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _NotYamlError(str(error).splitlines()[0][:160]) from None
    # What its constructors raise for 2001-99-99, !!bool x, !!timestamp x, !!int x.
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
        raise _NotYamlError(f"{type(error).__name__}: {error}"[:160]) from None
    _refuse_huge_integers(tree)
    return tree


def _refuse_huge_integers(tree: Any) -> None:
    if isinstance(tree, int) and abs(tree) >= MAX_INTEGER:
        raise _NotYamlError("a whole number of over 63 bits")
    if isinstance(tree, dict):
        tree = [*tree.keys(), *tree.values()]
    if isinstance(tree, list | tuple | set):
        for part in tree:
            _refuse_huge_integers(part)


def _hint(key: str, known: list[str]) -> str:
    """Name those of a section, the nearest setting, or the sections: all would fill a screen."""
    section = key.rstrip(".") + "."
    if inside := [name for name in known if name.startswith(section)]:
        return f"known: {', '.join(inside)}"
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.5):
        return f"did you mean {near[0]}?"
    groups = dict.fromkeys(name.partition(".")[0] + ".*" * ("." in name) for name in known)
    return f"known: {', '.join(groups)}; give 'train' to see those of train"


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = printable(".".join(str(part) for part in problem["loc"]))[:MAX_QUOTED]
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{key} = {quoted(problem['input'])}: {message}" if key else message)
    return "\n".join(lines)
