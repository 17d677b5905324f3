"""Content ids of configurations: equal experiments get equal ids, wherever they run.

`cam_id` covers everything that training sees, `run_id` adds the pseudo-label settings. Settings
without effect (such as the lambdas without an adjusted view) are first set back to their defaults,
so that two table cells that are the same experiment are one trial.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from wsss.config import Added, NetworkConfig, RunConfig, Settings, TransferConfig

S = TypeVar("S", bound=Settings)

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

SCORING_DATA = ("eval_split", "fingerprint")
"""Settings of the data that training does not see."""

ID_LENGTH = 12
"""Hex digits of an id: 48 bits, so 100,000 trials collide with a chance of 2e-5."""

SCHEMA = 1
"""Part of every id. Raise it when a setting changes its meaning, so old results are not reused."""


def canonical(config: RunConfig) -> RunConfig:
    """Return `config` with every setting that has no effect at its default value."""
    sections = {name: part for name, part in config if isinstance(part, Settings)}
    for section, *names in _without_effect(config):
        part = sections[section]
        defaults = {name: type(part).model_fields[name].get_default() for name in names}
        sections[section] = part.model_copy(update=defaults)
    return config.model_copy(update=sections)


def canonical_json(config: RunConfig) -> str:
    """Return `naming` of the canonical settings as JSON with sorted keys and no spaces."""
    return _ENCODER.encode(naming(canonical(config)))


def naming(config: RunConfig) -> dict[str, Any]:
    """Return the settings for ids and comparisons: all but added ones (`Added`) at their default.

    So adding a setting does not change older ids.
    """
    unused = {n: _unused(part) for n, part in config if isinstance(part, Settings)}
    return config.model_dump(mode="json", exclude=unused)


class Ids(NamedTuple):
    """The two ids of a trial."""

    run_id: str
    cam_id: str


def run_id(config: RunConfig) -> str:
    """Return the id of a training together with its pseudo-label settings: 12 hex digits."""
    return ids_of_seeds(canonical(config), [config.rng_seed])[0].run_id


def cam_id(config: RunConfig) -> str:
    """Return the id of a training alone: 12 hex digits, equal under any pseudo-label settings."""
    return ids_of_seeds(canonical(config), [config.rng_seed])[0].cam_id


def config_id(config: RunConfig) -> str:
    """Return the id that all seeds of a configuration share."""
    return ids_of_seeds(canonical(config), [0])[0].run_id


def ids_of_seeds(config: RunConfig, seeds: Iterable[int]) -> list[Ids]:
    """Return the ids of a canonical configuration with each seed.

    An id is the start of the SHA-256 of the settings (those of `naming`) and the schema's number,
    as JSON with sorted keys and no spaces.
    """
    scored = naming(config) | {"schema": SCHEMA}
    trained = {name: value for name, value in scored.items() if name != "labels"}
    trained["data"] = {n: v for n, v in scored["data"].items() if n not in SCORING_DATA}
    return [
        Ids(_digest(scored | {"rng_seed": seed}), _digest(trained | {"rng_seed": seed}))
        for seed in seeds
    ]


def idle(settings: S, keys: Iterable[str], id_of: Callable[[S], object]) -> list[str]:
    """Return those of the dotted settings `keys` that have no effect, given the others.

    id_of: returns what changes with every setting that has an effect.
    """
    known = id_of(settings)
    return [key for key in keys if id_of(_with_another(settings, key)) == known]


def _with_another(settings: S, key: str) -> S:
    """Return the settings with another value of `key`, of its type but perhaps out of range."""
    name, _, rest = key.partition(".")
    value = getattr(settings, name)
    if rest:
        return settings.model_copy(update={name: _with_another(value, rest)})
    kind = type(settings).model_fields[name].annotation
    if get_origin(kind) is Literal:
        other: Any = next(each for each in get_args(kind) if each != value)
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, tuple):
        other = tuple(part + 1 for part in value)
    else:
        other = f"{value}x" if isinstance(value, str) else value * 2 if value else 1
    return settings.model_copy(update={name: other})


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(_ENCODER.encode(settings).encode()).hexdigest()[:ID_LENGTH]


def _unused(settings: Settings) -> set[str]:
    """Return the added settings that are at their default."""
    fields = type(settings).model_fields
    return {n for n in _added(type(settings)) if getattr(settings, n) == fields[n].get_default()}


@cache
def _added(settings: type[Settings]) -> dict[str, Added]:
    return {
        name: mark
        for name, field in settings.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Added)
    }


def _without_effect(config: RunConfig) -> Iterator[tuple[str, ...]]:
    """Yield the settings without effect, given the others: a section and names of it."""
    network, views = config.network, config.views
    for section, part in config:
        for name, added in _added(type(part)).items() if isinstance(part, Settings) else ():
            if added.switch and getattr(network, added.switch) not in added.on:
                yield section, name
    if network.feature_map == "plain":
        yield "network", "fpn_channels"
        yield "train", "pyramid_lr_multiplier"
    yield from _of_parts(network)
    for view in ("enhanced", "decreased"):
        if not getattr(views, view):
            yield "views", f"alpha_{view}", f"beta_{view}"
    if views.names:
        yield "transfer", *_of_transfer(config.transfer, len(views.names))
    else:
        yield "views", "reading", "padding"
        yield "train", "cls_over_views"
        yield "transfer", *TransferConfig.model_fields


def _of_parts(network: NetworkConfig) -> Iterator[tuple[str, ...]]:
    focused = network.channel_attention or network.spatial_attention
    unfocused = network.multi_scale_atrous or network.context_association
    if not (focused or unfocused):
        yield "train", "parts_lr_multiplier"
    if not (focused and unfocused):
        yield "network", "module_placement"
    if not network.channel_attention:
        yield "network", "se_ratio"
    if not network.multi_scale_atrous:
        yield "network", "atrous", "atrous_channels", "atrous_start"
        if not focused or network.module_placement == "parallel":
            yield "network", "association_values"  # its features are the module's input
    elif network.atrous == "parallel" and network.atrous_start == "identity":
        yield "network", "atrous_channels"  # every layer is as wide as its input
    if not network.context_association:
        yield "network", "affinity", "affinity_residual", "association_values"
    if not network.context_association or network.affinity != "softmax":
        yield "network", "affinity_temperature"


def _of_transfer(transfer: TransferConfig, num_views: int) -> Iterator[str]:
    """The merged CAM matters to L_bs, and to L_s only when its pairs contain it."""
    similarity, background = transfer.lambda_s > 0, transfer.lambda_bs > 0
    if not (similarity or background):
        yield from TransferConfig.model_fields.keys() - {"lambda_s", "lambda_bs"}
        return
    has_pairs = similarity and num_views == 2  # one view: L_s is its single term
    is_merged = num_views == 2 or (transfer.single_view == "merged" and background)
    uses_merged = background or (has_pairs and transfer.similarity_pairs == "prose")
    if not has_pairs:
        yield "similarity_pairs"
    if num_views == 2 or not {"full": similarity, "merged": background}.get(
        transfer.single_view, True
    ):
        yield "single_view"  # only L_s is whole or half, and only L_bs uses M^o
    if not background:
        yield "background_map"
    if not uses_merged:
        yield "merged_gradient"
    if not (uses_merged and is_merged):  # M^o is not used, or is the view's own CAM
        yield from ("belongs", "half_of")
        if not (background and transfer.background_map == "fixed_score"):
            yield "belongs_score"
