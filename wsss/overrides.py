"""Settings from outside: dotted overrides and YAML files, refused by name when they are wrong."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from wsss.config import RunConfig, Settings
from wsss.errors import ForeseenError

S = TypeVar("S", bound=Settings)


class ConfigError(ForeseenError, ValueError):
    """A setting that cannot be used; the message names the key, the rule and the remedy."""


def apply_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Return `config` with dotted settings replaced, e.g. `{"transfer.lambda_s": 0.2}`.

    Raises ConfigError for an unknown key (naming the nearest known one) or a value that the
    setting refuses.
    """
    known = config.flat()
    for key in overrides:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise ConfigError(f"unknown setting {key!r}{hint}")
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
                raise ConfigError(f"{key}: {section} is a value, not a group of settings")
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
            raise ConfigError(f"--set {word!r} has no '='; write it as train.lr=0.02")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {word!r}: {value!r} is not a YAML value") from None
    return parsed


def read_config_file(path: Path) -> dict[str, Any]:
    """Read dotted overrides from a YAML file of sections, `train: {lr: 0.02}`.

    Raises ConfigError if the file is missing, is not YAML, or is not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as 'train: {{lr: 0.02}}'")
    flat: dict[str, Any] = {}
    for section, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{section}.{name}": inner for name, inner in value.items()}
        else:
            flat[str(section)] = value
    return flat


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{key} = {problem['input']!r}: {message}" if key else message)
    return "\n".join(lines)
