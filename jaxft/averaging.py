"""From a config to the average of weights that a phase keeps."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxft.config import Clock, default_config
from jaxft.errors import JaxftError
from jaxft.losses import wanted
from jaxft.phases import Phase
from jaxft.train import Average, ema, swa
from jaxft.typing import LossFn

#: The key of `config.train` that asks for a kind of average, and those that say more of it.
_KINDS = {
    "ema_decay": ("ema_start", "ema_warmup_power", "ema_warmup_gamma", "ema_min_decay"),
    "swa_start": ("swa_every",),
}


def make_average(config: ConfigDict, clock: Clock, phases: Sequence[Phase], loss: LossFn) -> Average | None:
    """The average that each phase keeps, of its own steps; None where the config asks for none.

    Args:
      config, clock, phases: of the run.
      loss: what it trains on.

    Raises:
      JaxftError: a number out of its range, two kinds of averages, settings of one that is not kept, one that never begins, or
        none where the loss wants one.
    """
    section = config.train
    asked = [key for key in _KINDS if section[key] is not None]
    if len(asked) > 1:
        raise JaxftError("config.train.ema_decay and config.train.swa_start ask for two kinds of averages: set one of them")
    for kind, keys in _KINDS.items():
        for key in keys if kind not in asked else ():
            if section[key] != (usual := default_config().train[key]):
                raise JaxftError(
                    f"config.train.{key} is {section[key]!r}, but config.train.{kind} is not set: set it, or leave {key} at "
                    f"{usual!r}"
                )
    if not asked:
        if "average" in wanted(loss):
            raise JaxftError(
                "config.loss takes `average`, and no averages are kept: set config.train.ema_decay, e.g. "
                "--config.train.ema_decay=0.999"
            )
        return None
    name = "ema_start" if asked == ["ema_decay"] else "swa_start"
    start = clock.steps(section[name], f"config.train.{name}")
    longest = max(phase.stop - phase.start for phase in phases)
    if start >= longest:
        raise JaxftError(
            f"config.train.{name} is '{section[name]}', which is {start} steps, and no phase has more than {longest}: no "
            "average would begin"
        )
    every = clock.steps(section.swa_every, "config.train.swa_every")
    try:
        if name == "swa_start":
            return swa(start, every)
        return ema(
            section.ema_decay,
            start=start,
            warmup_power=section.ema_warmup_power,
            warmup_gamma=section.ema_warmup_gamma,
            min_decay=section.ema_min_decay,
        )
    except JaxftError as error:
        raise JaxftError(f"config.train.{error}") from error
