"""Fine-tuning in one call: a thin layer over `jaxft.run.train`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxft.config import default_config, phase
from jaxft.errors import JaxftError, near
from jaxft.run import Result, train


def finetune(
    source: str | Path,
    *,
    workdir: str | Path,
    model: str = "efficientnet_lite0",
    pretrained: str | None = "imagenet",
    train_part: str = "head",
    epochs: float = 5,
    lr: float | None = None,
    batch_size: int = 32,
    size: int | None = None,
    seed: int = 0,
    loss: str | Callable[..., jax.Array] = "",
    phases: dict[str, ConfigDict] | None = None,
    strict: bool = False,
    **sections: dict[str, Any],
) -> Result:
    """Fine-tunes a pretrained network on `source`.

    Args:
      source: a folder of class folders, `csv:FILE`, `hf:OWNER/REPO`, ...; see `jaxft.open_data`.
      workdir: folder of the run; one that was begun there with the same arguments is continued.
      model: a name of `jaxft.list_models()`.
      pretrained: a tag, file, URL, `package:` or `hf:` source; None starts from random weights.
      train_part: "head", "full", "from:STAGE", stage names or globs; see `jaxft.FreezeSpec`.
      epochs, lr, batch_size: of the one phase; an `lr` of None is the usual one of optimizer, network and what trains.
      size: input size in pixels; None is the size that goes with the weights.
      seed: of the new head, the order of the data and everything random.
      loss: "" for the task's own, a name of `jaxft.losses`, "module:function" or an importable function.
      phases: name -> `jaxft.phase(...)`, instead of `train_part`, `epochs` and `lr`.
      strict: a step that is compiled twice is an error, not only reported.
      **sections: further keys of a config section, e.g. `optim={"name": "sgd"}`, `train={"patience": 3}`.

    Returns:
      The run's `Result`; `jaxft.load_run(workdir)` loads the network.

    Raises:
      JaxftError: something given does not fit.
    """
    arguments = inspect.signature(finetune).parameters
    config = default_config()
    config.data.source = str(source)
    config.model.name = model
    config.model.pretrained = pretrained or ""
    config.model.size = size
    config.seed = seed
    config.input.batch_size = batch_size
    config.loss.name = loss if isinstance(loss, str) else _import_name(loss)
    config.phases = ConfigDict(phases or {"phase1": phase(train=train_part, length=f"{epochs:g} epochs", lr=lr)})
    for name, values in sections.items():
        if name not in config or not isinstance(config[name], ConfigDict):
            raise JaxftError(f"finetune has no argument or config section '{name}'{near(name, (*arguments, *config))}")
        for key, value in values.items():
            if key not in config[name]:
                raise JaxftError(f"config.{name} has no key '{key}'{near(key, config[name])}")
            config[name][key] = value
    return train(config, workdir, strict=strict)


def _import_name(function: Callable[..., Any]) -> str:
    """A config is data: a function is kept by the name it can be imported under again."""
    if "<" in function.__qualname__ or function.__module__ == "__main__":
        raise JaxftError(
            f"the loss '{function.__qualname__}' cannot be imported by name: put it into a module of its own and give it as "
            "'module:function'"
        )
    return f"{function.__module__}:{function.__qualname__}"
