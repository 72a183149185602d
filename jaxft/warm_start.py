"""A run that begins with the weights of another one: `config.model.pretrained = "run:WORKDIR"`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import Model, build
from jaxft.weights import OWN_NAMES, Loaded, LoadReport, fit, prepared
from jaxft.workdir import load_run


def warm_start(
    run: str, name: str, num_classes: int, section: Mapping[str, Any], *, class_names: Sequence[str], task: str, seed: int
) -> Loaded:
    """The network with the weights of a run's best checkpoint, its adapter merged; step, optimizer and averages begin.

    The head goes on where the run had the same classes in the same order, the same task and the same kind of head; else it is
    new.

    Args:
      run: what `load_run` takes.
      name: of the network: the run's.
      num_classes: of the head.
      section: options of `jaxft.models.build`.
      class_names, task: of the data.
      seed: of what is new.

    Raises:
      JaxftError: no run there, or one of another network.
    """
    tuned = load_run(run).merged()
    if tuned.model.name != name:
        raise JaxftError(
            f"config.model.pretrained: the run in {run} is of {tuned.model.name}: set config.model.name to it, not to '{name}'"
        )
    same = (tuned.class_names, tuned.task, tuned.record["model"]["head"]) == (tuple(class_names), task, section["head"])
    kept = {path: leaf for path, leaf in tree.flatten(tuned.params).items() if same or tuned.model.stage_of(path) != "head"}
    variables = {**{f"params/{path}": leaf for path, leaf in kept.items()}, **tree.flatten(dict(tuned.model_state))}
    tensors = {path: np.asarray(leaf, np.float32) for path, leaf in variables.items()}
    found = fit(build(name, num_classes, **section), tensors, OWN_NAMES, num_classes, section, tuned.model.preprocessing, seed)
    report = LoadReport(
        source=f"step {tuned.step} of the run in {run}",
        sha256=tree.digest(tensors),
        loaded=found.loaded,
        new=found.new,
        resized=found.resized,
    )
    return Loaded(found.model, found.params, found.model_state, report)


def as_run(model: Model, run: str, size: int | None) -> Model:
    """The network with the preprocessing of a run's, at `size`, or at the run's own."""
    return prepared(model, load_run(run).model.preprocessing, size)
