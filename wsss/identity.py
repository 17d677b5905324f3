"""Content ids of configurations: equal experiments get equal ids, wherever they run.

`cam_id` covers everything that training sees, `run_id` adds the pseudo-label settings. Settings
without effect (the lambdas when no adjusted view is used, say) are set back to their defaults
first, so that two table cells which are the same experiment are one trial.
"""

import hashlib
import json
from typing import Any, TypeVar

from wsss.config import NetworkConfig, RunConfig, Settings, TransferConfig, ViewsConfig

S = TypeVar("S", bound=Settings)

ID_LENGTH = 12
"""Hex digits of an id: 48 bits, so 100,000 trials collide with a chance of 2e-5."""

SCHEMA = 1
"""Part of every id. Raise it when a setting changes its meaning, so that old results rest."""


def canonical(config: RunConfig) -> RunConfig:
    """Return `config` with every setting that has no effect at its default value."""
    views, transfer = _live_views(config.views), _live_transfer(config)
    train = config.train if views.names else _reset(config.train, "cls_over_views")
    network = _live_network(config.network)
    return config.model_copy(
        update={"network": network, "views": views, "transfer": transfer, "train": train}
    )


def canonical_json(config: RunConfig) -> str:
    """Return the canonical settings as JSON with sorted keys and no spaces."""
    return json.dumps(
        canonical(config).model_dump(mode="json"), sort_keys=True, separators=(",", ":")
    )


def run_id(config: RunConfig) -> str:
    """Return the id of a training together with its pseudo-label settings: 12 hex digits."""
    return _digest(canonical(config).model_dump(mode="json"))


def cam_id(config: RunConfig) -> str:
    """Return the id of a training alone: 12 hex digits, equal under any pseudo-label settings."""
    settings = canonical(config).model_dump(mode="json")
    del settings["labels"], settings["data"]["eval_split"]
    return _digest(settings)


def config_id(config: RunConfig) -> str:
    """Return the id which all seeds of one configuration share."""
    return run_id(config.model_copy(update={"rng_seed": 0}))


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps({"schema": SCHEMA, **settings}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def _reset(settings: S, *names: str) -> S:
    """Set the named fields back to the defaults of their class."""
    fields = type(settings).model_fields
    return settings.model_copy(update={name: fields[name].get_default() for name in names})


def _live_network(network: NetworkConfig) -> NetworkConfig:
    if network.feature_map == "plain":
        network = _reset(network, "fpn_channels")
    if not network.channel_attention:
        network = _reset(network, "se_ratio")
    if not network.multi_scale_atrous:
        network = _reset(network, "atrous", "atrous_channels", "atrous_start")
    if (network.atrous, network.atrous_start) == ("parallel", "identity"):
        network = _reset(network, "atrous_channels")  # every layer is as wide as its input
    if not network.context_association:
        network = _reset(network, "affinity", "affinity_residual")
    if network.affinity != "softmax":
        network = _reset(network, "affinity_temperature")
    return network


def _live_views(views: ViewsConfig) -> ViewsConfig:
    for name in ("enhanced", "decreased"):
        if not getattr(views, name):
            views = _reset(views, f"alpha_{name}", f"beta_{name}")
    return views if views.names else _reset(views, "reading", "padding")


def _live_transfer(config: RunConfig) -> TransferConfig:
    """The merged CAM matters to L_bs, and to L_s only when its pairs contain it."""
    transfer, num_views = config.transfer, len(config.views.names)
    if num_views == 0:
        return TransferConfig()
    if transfer.lambda_s == 0 or num_views == 1:  # one view: L_s is its single term
        transfer = _reset(transfer, "similarity_pairs")
    uses_merged = transfer.lambda_bs > 0 or transfer.similarity_pairs == "prose"
    if transfer.lambda_bs == 0:
        transfer = _reset(transfer, "background_map")
    if not uses_merged:
        transfer = _reset(transfer, "merged_gradient")
    if not uses_merged or num_views == 1:  # with one view, M^o is that view's CAM: no merge rule
        transfer = _reset(transfer, "belongs", "half_of")
        if transfer.background_map != "fixed_score":
            transfer = _reset(transfer, "belongs_score")
    if transfer.lambda_s == 0 and transfer.lambda_bs == 0:
        transfer = _reset(transfer, "cam_activation", "l1_reduction")
    return transfer
