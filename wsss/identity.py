"""Content ids of configurations: equal experiments get equal ids, wherever they run.

`cam_id` covers everything that training sees, `run_id` adds the pseudo-label settings. Settings
without effect (such as the lambdas without an adjusted view) are first set back to their defaults,
so that two table cells that are the same experiment are one trial.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from wsss.config import (
    Added,
    NetworkConfig,
    RunConfig,
    Settings,
    TrainConfig,
    TransferConfig,
    ViewsConfig,
)

S = TypeVar("S", bound=Settings)

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

PARTS = ("channel_attention", "spatial_attention", "multi_scale_atrous", "context_association")
"""The switches of the focused and unfocused parts."""

SCORING_DATA = ("eval_split", "fingerprint")
"""Settings of the data that training does not see."""

ID_LENGTH = 12
"""Hex digits of an id: 48 bits, so 100,000 trials collide with a chance of 2e-5."""

SCHEMA = 1
"""Part of every id. Raise it when a setting changes its meaning, so old results are not reused."""


def canonical(config: RunConfig) -> RunConfig:
    """Return `config` with every setting that has no effect at its default value."""
    sections: dict[str, Settings] = {
        "data": config.data,
        "network": _live_network(config.network),
        "views": _live_views(config.views),
        "transfer": _live_transfer(config.transfer, config.views),
        "train": _live_train(config.train, config.views, config.network),
        "labels": config.labels,
    }
    network = config.network
    return config.model_copy(
        update={name: _live_added(part, network) for name, part in sections.items()}
    )


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
    defaults = _defaults(type(settings))
    return {n for n in _added(type(settings)) if getattr(settings, n) == defaults[n]}


@cache
def _added(settings: type[Settings]) -> dict[str, Added]:
    return {
        name: mark
        for name, field in settings.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Added)
    }


@cache
def _defaults(settings: type[Settings]) -> dict[str, Any]:
    return {name: field.get_default() for name, field in settings.model_fields.items()}


def _reset(settings: S, *names: str) -> S:
    """Set the named fields back to the defaults of their class."""
    defaults = _defaults(type(settings))
    return settings.model_copy(update={name: defaults[name] for name in names})


def _live_added(settings: S, network: NetworkConfig) -> S:
    idle = [
        name
        for name, added in _added(type(settings)).items()
        if added.switch and getattr(network, added.switch) not in added.on
    ]
    return _reset(settings, *idle) if idle else settings


def _live_network(network: NetworkConfig) -> NetworkConfig:
    if network.feature_map == "plain":
        network = _reset(network, "fpn_channels")
    if not network.channel_attention:
        network = _reset(network, "se_ratio")
    if not network.multi_scale_atrous:
        network = _reset(network, "atrous", "atrous_channels", "atrous_start")
    if (network.atrous, network.atrous_start) == ("parallel", "identity"):
        network = _reset(network, "atrous_channels")  # every layer is as wide as its input
    focused = network.channel_attention or network.spatial_attention
    if not focused or not (network.multi_scale_atrous or network.context_association):
        network = _reset(network, "module_placement")
    if not network.context_association:
        network = _reset(network, "affinity", "affinity_residual", "association_values")
    elif not network.multi_scale_atrous and (not focused or network.module_placement == "parallel"):
        network = _reset(network, "association_values")  # its features are the module's input
    if network.affinity != "softmax":
        network = _reset(network, "affinity_temperature")
    return network


def _live_views(views: ViewsConfig) -> ViewsConfig:
    for name in ("enhanced", "decreased"):
        if not getattr(views, name):
            views = _reset(views, f"alpha_{name}", f"beta_{name}")
    return views if views.names else _reset(views, "reading", "padding")


def _live_train(train: TrainConfig, views: ViewsConfig, network: NetworkConfig) -> TrainConfig:
    if not views.names:
        train = _reset(train, "cls_over_views")
    if network.feature_map == "plain":
        train = _reset(train, "pyramid_lr_multiplier")
    if not any(getattr(network, name) for name in PARTS):
        train = _reset(train, "parts_lr_multiplier")
    return train


def _live_transfer(transfer: TransferConfig, views: ViewsConfig) -> TransferConfig:
    """The merged CAM matters to L_bs, and to L_s only when its pairs contain it."""
    num_views = len(views.names)
    if num_views == 0:
        return TransferConfig()
    if transfer.lambda_s == 0 and transfer.lambda_bs == 0:
        return TransferConfig(lambda_s=0.0, lambda_bs=0.0)
    if num_views == 2:
        transfer = _reset(transfer, "single_view")
    if transfer.lambda_s == 0 or num_views == 1:  # one view: L_s is its single term
        transfer = _reset(transfer, "similarity_pairs")
    uses_merged = transfer.lambda_bs > 0 or transfer.similarity_pairs == "prose"
    if transfer.lambda_bs == 0:
        transfer = _reset(transfer, "background_map")
        if transfer.single_view == "merged":  # only L_bs uses it
            transfer = _reset(transfer, "single_view")
    elif transfer.lambda_s == 0 and transfer.single_view == "full":
        transfer = _reset(transfer, "single_view")
    if not uses_merged:
        transfer = _reset(transfer, "merged_gradient")
    by_cases = num_views == 2 or transfer.single_view == "merged"
    if not (uses_merged and by_cases):  # M^o is not used, or is the view's own CAM
        transfer = _reset(transfer, "belongs", "half_of")
        if transfer.background_map != "fixed_score":
            transfer = _reset(transfer, "belongs_score")
    return transfer
