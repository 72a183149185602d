"""The data, the figures and the statistics of runs whose weights are put together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.adapters import can_merge
from jaxft.config import config_of
from jaxft.errors import JaxftError
from jaxft.finetuned import FineTuned
from jaxft.inputs import evaluate_pictures, picture_eval_step, pictures
from jaxft.parallel import check_batch_size, make_mesh, put_batch
from jaxft.plan import Plan, make_plan
from jaxft.train import update_statistics
from jaxft.train.statistics import moving
from jaxft.tuning import FreezeSpec, make_mask, trains
from jaxft.typing import ApplyFn, ModelState, Params, Trains
from jaxft.workdir import load_run, splits_file, workdir_of

Weights = tuple[Params, ModelState]

#: Of a run's record: what must be the same, and what to call it.
_SAME = {"class_names": "other classes", "task": "another task", "preprocessing": "pictures prepared in another way"}
#: Of its network: what weights depend on.
_NETWORK = ("name", "num_classes", "head", "in_channels")


@dataclasses.dataclass(frozen=True)
class Kitchen:
    """What weights are judged with: all of the first run.

    Attributes:
      runs: the runs, loaded, with adapters merged where they can be: a mean of LoRA's factors is not that of its products.
      config: of the first one's record.
      plan: its data and network; its weights are not read.
      mesh: the devices.
      apply, prepare, eval_step: the network on pixels, the jitted augmentation, the jitted evaluation step.
      moved: which norms trained in any of the runs.
    """

    runs: tuple[FineTuned, ...]
    config: ConfigDict
    plan: Plan
    mesh: Mesh
    apply: ApplyFn
    prepare: Any
    eval_step: Any
    moved: bool | Trains

    @property
    def monitor(self) -> str:
        return str(self.config.train.monitor)

    @property
    def trained_norms(self) -> bool:
        """Whether BatchNorm statistics moved in any of the runs."""
        return any(tree.flatten(moving(self.runs[0].model_state, self.moved)).values())

    def judge(self, weights: Weights) -> dict[str, float]:
        """All figures of weights on the validation split."""
        found = evaluate_pictures(self.eval_step, *weights, self.plan.val, self.plan, self.config, self.mesh)
        return found.metrics

    def value(self, figures: Mapping[str, float]) -> float:
        """The figure that counts, `config.train.monitor`, negated where less is better."""
        found = figures[self.monitor]
        return found if self.config.train.mode == "max" else -found

    def updated(self, weights: Weights) -> Weights:
        """The weights with statistics of their own, over one pass of the training input."""
        params, model_state = weights
        size = self.config.input.batch_size
        check_batch_size(size, self.mesh, "batch_size")
        batches = pictures(self.plan, self.config, self.mesh, self.eval_step).batches(0)
        count = -(-len(self.plan.splits.train) // self.plan.clock.batch_size)
        try:
            shown = (self.prepare(put_batch(batch, self.mesh)) for batch in itertools.islice(batches, count))
            rng = jax.random.key(self.config.seed)
            return params, update_statistics(self.apply, params, model_state, shown, train=self.moved, rng=rng)
        finally:
            batches.close()


def open_kitchen(paths: Sequence[str | Path]) -> Kitchen:
    """Loads runs and opens the first one's data.

    Raises:
      JaxftError: no run at a path, or runs of other networks, classes or data.
    """
    loaded = tuple(load_run(path) for path in paths)
    runs = tuple(plain(run) for run in loaded)
    first = runs[0]
    for path, other in zip(paths[1:], runs[1:], strict=True):
        check_alike(paths[0], first, path, other)
    config = config_of(first.record["config"])
    mesh = make_mesh()
    plan = dataclasses.replace(make_plan(config, manifest=splits_file(workdir_of(paths[0])), weights=False), model=first.model)
    if plan.splits.fingerprint != first.record["data_fingerprint"]:
        raise JaxftError(f"the data of {paths[0]} changed since ('{config.data.source}' has other pictures, labels or splits)")
    apply = plan.apply
    step = jax.jit(picture_eval_step(plan, apply))
    return Kitchen(runs, config, plan, mesh, apply, jax.jit(plan.augment_batch), step, _moved(loaded, plan))


def plain(run: FineTuned) -> FineTuned:
    """A run with its adapter merged, where that can be."""
    return run.merged() if can_merge(run.model, run.params) else run


def check_alike(path: str | Path, one: FineTuned, other_path: str | Path, other: FineTuned) -> None:
    """Raises JaxftError for runs whose weights are no two points of one network on one data set."""
    network, another = ([run.record["model"][key] for key in _NETWORK] for run in (one, other))
    if network != another:
        said = " and ".join(f"{run.model.name} with {run.model.num_classes} outputs" for run in (one, other))
        raise JaxftError(f"{path} and {other_path} are other networks, {said}: weights can be put together only of one")
    for key, what in _SAME.items():
        if one.record[key] != other.record[key]:
            raise JaxftError(f"{other_path} has {what} than {path} ({other.record[key]}, {one.record[key]})")
    if one.record["data_fingerprint"] != other.record["data_fingerprint"]:
        raise JaxftError(
            f"{other_path} was trained on other data than {path}, or on another split of them: what validates one may have "
            "trained the other; give runs with the same config.data"
        )


def _moved(runs: Sequence[FineTuned], plan: Plan) -> bool | Trains:
    """Which modules were in train mode in any phase of any run, but for those whose statistics stayed."""
    trained: set[str] = set()
    for run in runs:
        for name, section in config_of(run.record["config"]).phases.items():
            if plan.clock.steps(section.length, f"config.phases.{name}.length"):
                spec = FreezeSpec.parse(section.train, section.freeze or ())
                if spec.statistics_stay:
                    continue
                mask = make_mask(spec, run.model.shapes[0], run.model.stages)
                trained |= {path for path, chosen in tree.flatten(mask).items() if chosen}
    return trains(tree.map_with_path(lambda path, _: path in trained, plan.model.shapes[0]))
