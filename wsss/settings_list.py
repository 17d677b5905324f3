"""Every setting with its meaning, range and default, and the presets and recipes that change it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wsss.config import RunConfig, Settings
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.recipes import RECIPES

OPEN = "(open) "
"""Start of the description of a point that the paper leaves open."""


@dataclass(frozen=True)
class Setting:
    """One setting of a RunConfig. Values are as in JSON."""

    name: str
    """Dotted, as --set takes it."""
    meaning: str
    """Empty where the name says it all."""
    is_open: bool
    """Whether the paper leaves it open."""
    range: str
    default: Any
    presets: Mapping[str, Any]
    """Preset -> its value, of every preset."""
    recipes: Mapping[str, Any]
    """Recipe -> its value, of the recipes that set it."""

    @property
    def changes(self) -> dict[str, Any]:
        """What gives it another value -> that value: presets, and recipes that set it."""
        changed = {name: value for name, value in self.presets.items() if value != self.default}
        return changed | {f"recipe {name}": value for name, value in self.recipes.items()}


def find_settings(name: str | None = None) -> list[Setting]:
    """Return all settings, those of a section, or those with a name, with or without its section.

    Raises ConfigError for an unknown name, with the nearest one.
    """
    known = list(_settings())
    if name is None:
        return known
    found = [
        setting
        for setting in known
        if setting.name == name
        or setting.name.startswith(f"{name}.")
        or setting.name.endswith(f".{name}")
    ]
    if not found:
        apply_overrides(RunConfig(), {name: None})  # raises
    return found


def sections() -> dict[str, str]:
    """Return section -> its description in one sentence."""
    return {
        name: " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        for name, kind in _kinds().items()
    }


def _kinds() -> dict[str, type[Settings]]:
    return {name: type(value) for name, value in RunConfig() if isinstance(value, Settings)}


def _settings() -> Iterator[Setting]:
    flat, presets = RunConfig().flat(), {name: config.flat() for name, config in PRESETS.items()}
    schemas = {
        f"{section}.{name}".lstrip("."): schema
        for section, kind in (_kinds() | {"": RunConfig}).items()
        for name, schema in kind.model_json_schema()["properties"].items()
    }
    for key, value in flat.items():
        meaning = schemas[key].get("description", "")
        yield Setting(
            key,
            meaning.removeprefix(OPEN),
            meaning.startswith(OPEN),
            _range(schemas[key]),
            value,
            {preset: values[key] for preset, values in presets.items()},
            {recipe: values[key] for recipe, values in RECIPES.items() if key in values},
        )


def _range(schema: Mapping[str, Any]) -> str:
    """Return the values that a field accepts in words, from its JSON schema."""
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_range(part) for part in schema["anyOf"])
    kind = schema.get("type")
    if kind == "boolean":
        return "true | false"
    if kind == "array":
        return _list_range(schema)
    if kind in ("integer", "number"):
        what = "whole number" if kind == "integer" else "number"
        return " ".join([what, *_bounds(schema)])
    if kind == "null":
        return "null"
    return f"name, at most {schema['maxLength']} characters" if "maxLength" in schema else "name"


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    for key, word in words.items():
        if key in schema:
            bound = schema[key]
            is_short = bound < 1e9 and bound == int(bound)
            yield f"{word} {bound:,.0f}" if is_short else f"{word} {bound:g}"


def _list_range(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(_range(part) for part in schema['prefixItems'])}]"
    return f"list of {schema['minItems']} to {schema['maxItems']}: {_range(schema['items'])}"
