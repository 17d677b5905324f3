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
    DataConfig,
    NetworkConfig,
    RunConfig,
    Settings,
    TrainConfig,
    TransferConfig,
    ViewsConfig,
)

R = TypeVar("R")
S = TypeVar("S", bound=Settings)

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

PARTS = ("channel_attention", "spatial_attention", "multi_scale_atrous", "context_association")
"""The switches of the focused and unfocused parts."""

ID_LENGTH = 12
"""Hex digits of an id: 48 bits, so 100,000 trials collide with a chance of 2e-5."""

SCHEMA = 1
"""Part of every id. Raise it when a setting changes its meaning, so old results are not reused."""


class Once:
    """Remembers the results of pure functions: the second `once(f, x)` is looked up.

    Arguments are compared by identity, as -0.0 equals 0.0 and is another setting. Sections are
    frozen, so a remembered result stays right.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def __call__(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return function(*arguments)."""
        key = (function, *map(id, arguments))
        known = self._known.get(key)
        if known is None:
            # The arguments are kept, since a deleted object's id() may be reused.
            known = self._known[key] = (arguments, function(*arguments))
        return known[1]


def canonical(config: RunConfig, once: Once | None = None) -> RunConfig:
    """Return `config` with every setting that has no effect at its default value.

    once: shared by many configurations, so that sections in common are worked on once.
    """
    once = once or Once()
    sections: dict[str, Settings] = {
        "data": config.data,
        "network": once(_live_network, config.network),
        "views": once(_live_views, config.views),
        "transfer": once(_live_transfer, config.transfer, config.views),
        "train": once(_live_train, config.train, config.views, config.network),
        "labels": config.labels,
    }
    network = config.network
    return config.model_copy(
        update={name: once(_live_added, part, network) for name, part in sections.items()}
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


def ids_of_seeds(config: RunConfig, seeds: Iterable[int], once: Once | None = None) -> list[Ids]:
    """Return the ids of a canonical configuration with each seed; `once` as in `canonical`.

    An id is the start of the SHA-256 of the settings (those of `naming`) and the schema's number,
    as JSON with sorted keys and no spaces. The settings are written once for all seeds.
    """
    once = once or Once()
    texts = {"schema": str(SCHEMA)} | {
        name: once(_json, value) if isinstance(value, Settings) else str(value)
        for name, value in config.__dict__.items()
    }
    run_head, run_tail = _around_seed(texts)
    del texts["labels"]
    texts["data"] = once(_json_of_training_data, config.data)
    cam_head, cam_tail = _around_seed(texts)
    return [
        Ids(_digest(run_head, f"{seed}{run_tail}"), _digest(cam_head, f"{seed}{cam_tail}"))
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


def _around_seed(texts: dict[str, str]) -> tuple["hashlib._Hash", str]:
    """Return the digest of the JSON object up to the seed's value, and the text after it."""
    items = [f'"{name}":{text}' for name, text in sorted(texts.items()) if name != "rng_seed"]
    after = sum(name > "rng_seed" for name in texts)
    head, tail = ",".join([*items[:-after], '"rng_seed":']), ",".join(items[-after:])
    return hashlib.sha256(f"{{{head}".encode()), f",{tail}}}"


def _digest(head: "hashlib._Hash", tail: str) -> str:
    whole = head.copy()
    whole.update(tail.encode())
    return whole.hexdigest()[:ID_LENGTH]


def _json(settings: Settings) -> str:
    return _ENCODER.encode(settings.model_dump(mode="json", exclude=_unused(settings)))


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


def _json_of_training_data(data: DataConfig) -> str:
    scoring = {"eval_split", "fingerprint"}
    return _ENCODER.encode(data.model_dump(mode="json", exclude=scoring | _unused(data)))


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
