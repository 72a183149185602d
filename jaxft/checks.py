"""What can be wrong with single values of a config, found before any work is done."""

from __future__ import annotations

import re

import jax
from ml_collections import ConfigDict

from jaxft.data import SAMPLERS
from jaxft.errors import JaxftError
from jaxft.features import DTYPES

#: Keys that take one of a few words.
CHOICES = {
    "features.dtype": tuple(DTYPES),
    "input.sampler": SAMPLERS,
    "probe.refit": ("train", "train+val"),
    "train.mode": ("max", "min"),
    "train.nonfinite": ("stop", "skip", "rollback"),
    "parallel.frozen": ("shard", "replicate"),
    "parallel.frozen_dtype": ("float32", "bfloat16"),
    "parallel.batch_norm": ("global", "replica"),
}


def check_values(config: ConfigDict) -> None:
    """Finds now what would be found when the first batch is due, the first step, or the first evaluation."""
    values = {f"input.{key}": config.input[key] for key in ("batch_size", "eval_batch_size", "views", "unlabelled_ratio")}
    values |= {f"train.{key}": config.train[key] for key in ("accum_steps", "patience")}
    values |= {"features.views": config.features.views, "model.outputs": config.model.outputs}
    values |= {f"probe.{key}": config.probe[key] for key in ("c_count", "max_steps")}
    for key, value in values.items():
        if value is not None and value < 1:
            raise JaxftError(f"config.{key} is {value}: it must be at least 1")
    for name in ("threads", "processes"):
        if (config.input[name] or 0) < 0:
            raise JaxftError(f"config.input.{name} is {config.input[name]}: it must be at least 0")
    if config.input.batch_size % config.train.accum_steps:
        raise JaxftError(
            f"config.train.accum_steps ({config.train.accum_steps}) does not divide config.input.batch_size "
            f"({config.input.batch_size})"
        )
    views = config.input.views
    for key in ("batch_size", "eval_batch_size"):
        if config.input[key] % views:
            raise JaxftError(f"config.input.views ({views}) does not divide config.input.{key} ({config.input[key]})")
    if (config.input.batch_size // views) % config.train.accum_steps:
        raise JaxftError(
            f"config.train.accum_steps ({config.train.accum_steps}) does not divide the {config.input.batch_size // views} "
            f"examples of a batch (config.input.batch_size / config.input.views): the views of one stay together"
        )
    if config.features.cache and jax.process_count() > 1:
        raise JaxftError(f"config.features.cache works in one process, not in {jax.process_count()}: set it to False")
    for key, allowed in CHOICES.items():
        section, name = key.split(".")
        value = config[section][name]
        if value not in allowed:
            raise JaxftError(f"config.{key} is '{value}', not {' or '.join(map(repr, allowed))}")
    rho = config.train.sam_rho
    if rho is not None and not rho > 0:
        raise JaxftError(f"config.train.sam_rho is {rho}: it must be positive, e.g. 0.05")
    if config.train.sam_adaptive and rho is None:
        raise JaxftError("config.train.sam_adaptive needs config.train.sam_rho, e.g. 0.5")
    probe = config.probe
    if not 0 < probe.c_min <= probe.c_max:
        raise JaxftError(f"config.probe.c_min ({probe.c_min:g}) must be positive, and c_max ({probe.c_max:g}) not less")
    if not probe.temperature > 0:
        raise JaxftError(f"config.probe.temperature is {probe.temperature:g}: it must be positive")
    if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", probe.neighbors):
        raise JaxftError(f"config.probe.neighbors is '{probe.neighbors}': numbers from 1 with commas between them, '1,5,20'")
