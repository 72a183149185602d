"""From a configuration to everything a run needs, checked before any work is done: data, network, phases, the record."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxft import losses, tree
from jaxft.augment import Augment, parse, two_looks
from jaxft.averaging import make_average
from jaxft.checks import check_values
from jaxft.config import Clock, call, to_json
from jaxft.data import Order, Source, Splits, class_counts, imbalance, open_data
from jaxft.errors import JaxftError, near
from jaxft.fixed import Fixed, read_fixed
from jaxft.loss_of import loss_of, notes_on_classes
from jaxft.models import Model, build
from jaxft.network import adapted_network, expecting, network_and_weights, run_of, with_adapters, with_zero_shot
from jaxft.parallel import parse_rules, put
from jaxft.phases import Phase, adapter_of, make_phases
from jaxft.preprocessing import on_pixels
from jaxft.representation import check_representation, learns_representation, outputs_of
from jaxft.semi_supervised import strong_augment
from jaxft.tasks import UNLABELLED, Task, get_task
from jaxft.train import Average
from jaxft.typing import ApplyFn, Batch, LossFn, ModelState, Params
from jaxft.warm_start import as_run, warm_start
from jaxft.weights import load_model


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run, ready to go. `params` and `model_state` are the network before the first step, on the host; shapes where they are
    drawn from `seed`, or were not read. `begin` puts them on devices.

    `record` says in JSON all that is needed to use a checkpoint without the config; `eval_every` and its like are in steps;
    `selection` is how `Standing.judge` finds the best step; `order` the examples of each batch; `eval_loss` is the loss without
    what belongs to training (see `jaxft.losses`); `average` is what a phase keeps, of steps counted from its first; `fixed` is
    what the loss reads beside the network; `strong` is the strong look of unlabelled pictures, where there are any. The
    `task` is that of the outputs: "unlabelled" where they are no classes, whatever labels the data have.
    """

    splits: Splits
    order: Order
    val: Source
    model: Model
    params: Params
    model_state: ModelState
    weights: str
    seed: int
    task: Task
    loss: LossFn
    eval_loss: LossFn
    phases: tuple[Phase, ...]
    clock: Clock
    log_every: int
    eval_every: int
    checkpoint_every: int | None
    selection: dict[str, Any]
    record: dict[str, Any]
    augment: Augment
    strong: Augment | None
    average: Average | None
    fixed: Fixed

    def augment_batch(self, batch: Batch) -> Batch:
        """A batch of the training input as the network is to see it."""
        outputs, drawn = self.model.num_classes, {"seed": self.seed, "size": self.model.preprocessing.size}
        if self.strong is not None:
            batch = two_looks(batch, weak=self.augment, strong=self.strong, **drawn)
        return self.augment.batch(batch, **drawn, classes=outputs)

    @property
    def eval_views(self) -> int:
        """How often an evaluation shows an example: more than once where the loss compares views."""
        return self.order.views if self.task.name == UNLABELLED else 1

    @property
    def apply(self) -> ApplyFn:
        """The network on uint8 pixels."""
        return on_pixels(self.model.apply, self.model.preprocessing)

    @property
    def total_steps(self) -> int:
        return self.phases[-1].stop

    def begin(self, shardings: Any) -> tuple[Params, ModelState]:
        """The network before the first step, placed: read weights from the host, random ones drawn where they are to lie.

        Args:
          shardings: of (params, model_state).
        """
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self.params)):
            params, model_state = jax.jit(self.model.init, out_shardings=shardings)(jax.random.key(self.seed))
            return params, model_state
        return put((dict(self.params), dict(self.model_state)), shardings)


def make_plan(config: ConfigDict, *, manifest: Path | None = None, weights: bool = True) -> Plan:
    """Reads the data, builds the network, loads its weights and lays out the phases.

    Args:
      config: see `jaxft.config.default_config`.
      manifest: a split made by us before, to be made again.
      weights: False leaves them unread: `params` and `model_state` are shapes.

    Raises:
      JaxftError: for anything in the config, the data or the weights that does not fit.
    """
    check_values(config)
    strong = strong_augment(config)
    splits = call(open_data, config.data.to_dict(), "config.data", manifest=manifest)
    if splits.val is None:
        raise JaxftError(f"'{config.data.source}' has no validation split; set config.data.val_fraction")
    classes = len(splits.class_names) if config.data.task != "regression" else 1
    outputs, unlabelled = outputs_of(config, classes), learns_representation(config)
    task = get_task(UNLABELLED if unlabelled else config.data.task, outputs)
    augment = _augment(config)
    order = Order(config.seed, len(splits.train), splits.train.labels, config.input.sampler, config.input.views)
    counts = None if unlabelled else class_counts(splits.train.labels, outputs)
    fixed = read_fixed(config, losses.resolve(config.loss.name or task.loss))
    known = {} if counts is None else {"class_counts": counts, "num_examples": len(splits.train)}
    known |= {"teacher_classes": fixed.classes_among(splits.class_names)}
    loss, eval_loss = (
        loss_of(config, task, splits.train.labels, outputs, {**known, "train": train}, augment) for train in (True, False)
    )
    if counts is not None:
        splits = dataclasses.replace(
            splits, notes=(*splits.notes, *notes_on_classes(config, imbalance(counts, splits.class_names)))
        )
    clock = Clock(len(splits.train), config.input.batch_size // config.input.views)
    every = config.train.checkpoint_every
    section = config.model.to_dict()
    section["name"], pretrained = network_and_weights(config)
    texts = section.pop("zero_shot")
    del section["pretrained"], section["outputs"]
    # Abstract first: what does not fit is found before weights are downloaded, read or drawn.
    adapter = adapter_of(config)
    model = adapted_network(call(build, section, "config.model", num_classes=outputs), adapter, config)
    abstract, abstract_state = model.shapes
    parse_rules(config.parallel.rules, tree.paths(abstract))
    phases = tuple(make_phases(config, clock, abstract, model.stages, family=model.architecture.family))
    plan = functools.partial(
        Plan,
        splits=splits,
        order=order,
        augment=augment,
        strong=strong,
        fixed=fixed,
        val=splits.val,
        seed=config.seed,
        task=task,
        loss=loss,
        eval_loss=eval_loss,
        phases=phases,
        average=make_average(config, clock, phases, loss),
        clock=clock,
        log_every=_interval(clock, config.train.log_every, "config.train.log_every"),
        eval_every=_interval(clock, config.train.eval_every, "config.train.eval_every"),
        checkpoint_every=None if every is None else _interval(clock, every, "config.train.checkpoint_every"),
        selection=_selection(config, task),
    )
    fixed.check(abstract)
    run = run_of(pretrained)
    if not weights:
        model = as_run(model, run, config.model.size) if run else expecting(model, pretrained, config.model.size)
        record = _record(config, splits, model, phases, task, fixed.digests)
        return plan(model=model, params=abstract, model_state=abstract_state, weights="not read", record=record)
    beside = fixed.digests
    if run:
        options = {key: value for key, value in section.items() if key != "name"}
        classes = splits.class_names
        made = warm_start(run, model.name, outputs, options, class_names=classes, task=task.name, seed=config.seed)
        beside["config.model.pretrained"] = made.report.sha256
    else:
        given = {"num_classes": outputs, "pretrained": pretrained, "seed": config.seed, "draw": False}
        made = call(load_model, section, "config.model", **given)
    params = with_zero_shot(config, made.model, made.params, pretrained, splits) if texts else made.params
    model = adapted_network(made.model, adapter, config)
    return plan(
        model=model,
        params=with_adapters(model, params, config.seed),
        model_state=made.model_state,
        weights=str(made.report),
        record=_record(config, splits, model, phases, task, beside),
    )


def _augment(config: ConfigDict) -> Augment:
    """The list of augmentations, checked against what the labels and the phases' input allow."""
    augment = parse(config.input.augment)
    augment.check(config.model.in_channels)
    check_representation(config, augment)
    names = [one.name for one in augment.operations]
    if config.data.task == "regression" and "random_label_flip" in names:
        raise JaxftError("config.input.augment: random_label_flip flips classes: the values of a regression have no other")
    if config.features.cache and (own := [name for name in names if ":" in name]):
        raise JaxftError(
            f"config.features.cache keeps what augmented pictures give, and cannot see when '{own[0]}' changes: leave one of "
            "them out"
        )
    if config.features.cache and augment.changes_labels:
        raise JaxftError(
            f"config.features.cache keeps what single pictures give, and config.input.augment ('{augment}') changes labels or "
            "mixes pictures: leave one of them out"
        )
    return augment


def _selection(config: ConfigDict, task: Task) -> dict[str, Any]:
    monitor, mode, figures = config.train.monitor, config.train.mode, list(task.metrics.__annotations__)
    if monitor not in figures:
        raise JaxftError(
            f"config.train.monitor is '{monitor}'{near(monitor, figures)}; the validation figures are {', '.join(figures)}"
        )
    better = "min" if monitor in ("loss", "mae") else "max"
    if mode != better:
        less = "less" if better == "min" else "more"
        raise JaxftError(
            f"config.train.monitor is '{monitor}', of which {less} is better, and config.train.mode '{mode}': set "
            f"config.train.mode to '{better}'"
        )
    return {"monitor": monitor, "mode": mode, "min_delta": config.train.min_delta}


def _interval(clock: Clock, duration: str | int, where: str) -> int:
    steps = clock.steps(duration, where)
    if steps < 1:
        raise JaxftError(f"{where} is {duration!r}: it must be at least one step")
    return steps


def _record(
    config: ConfigDict, splits: Splits, model: Model, phases: tuple[Phase, ...], task: Task, beside: Mapping[str, str]
) -> dict[str, Any]:
    """`beside` is a hash of what the run reads of other runs, by the key that says where: what is there must stay."""
    section = config.model.to_dict()
    return {
        "model": {
            "name": model.name,
            "num_classes": model.num_classes,
            "head": section["head"],
            "in_channels": section["in_channels"],
            "dropout": section["dropout"],
            "drop_path": section["drop_path"],
            "dtype": section["dtype"],
        },
        "adapter": None if model.adapter is None else {"name": model.adapter.name, "options": config.adapter.options.to_dict()},
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "task": task.name,
        "class_names": list(splits.class_names),
        "data_fingerprint": splits.fingerprint,
        "beside": dict(beside),
        "config": json.loads(to_json(config)),
        "lr": {phase.name: phase.lr for phase in phases},
    }
