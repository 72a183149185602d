"""`jaxft probe`: from a config to a table of methods, and to a run with the linear probe for a head."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft.checkpoint import Checkpoints
from jaxft.columns import aligned
from jaxft.compiling import keep_compiled
from jaxft.config import call, check_config, default_config, phase
from jaxft.errors import JaxftError, SaveError, near
from jaxft.evaluate import bootstrap_interval
from jaxft.files import write_whole
from jaxft.heap import keep_heap
from jaxft.network import network_and_weights
from jaxft.parallel import explained_shortage, make_mesh
from jaxft.paths import open_path
from jaxft.plan import Plan, make_plan
from jaxft.probe import TextClassifier, has_linear_head, read_texts, with_linear_head
from jaxft.probe.nearest import normalized
from jaxft.probing.frozen import Frozen
from jaxft.probing.methods import METHODS, Chosen, Given, Settings, Split, values_of
from jaxft.representation import learns_representation
from jaxft.standing import Standing
from jaxft.states import enter, first_weights
from jaxft.weights import image_projection
from jaxft.workdir import open_workdir

#: Of what is asked for where nothing is: those for the task.
_WITHOUT_TEXTS = ("linear", "knn", "prototypes", "tip")


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of a method.

    Attributes:
      method: a key of `METHODS`.
      setting: the one chosen on the validation split.
      validation: its figure there, with the ends of the 95 % bootstrap interval over examples.
      test: the same on the test split; None where there is none.
      sweep: every setting that was tried and its figure on the validation split.
    """

    method: str
    setting: dict[str, Any]
    validation: tuple[float, float, float]
    test: tuple[float, float, float] | None
    sweep: list[tuple[dict[str, Any], float]]


@dataclasses.dataclass(frozen=True)
class Probed:
    """What `probe` found.

    Attributes:
      title: network and data.
      figure: what the numbers are: "accuracy", or of a regression "mean absolute error".
      counts: examples of train, val and test.
      rows: one a method.
      run: the workdir of the linear probe as a run; None where there is none.
      notes: a line each.
    """

    title: str
    figure: str
    counts: dict[str, int]
    rows: tuple[Row, ...]
    run: str | None
    notes: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self) -> str:
        examples = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        lines = [f"{self.title} ({examples}); {self.figure} with 95 % bootstrap intervals over examples", ""]
        table = [("method", "chosen on validation", "validation", "test")]
        for row in self.rows:
            setting = ", ".join(f"{key}={_short(value)}" for key, value in row.setting.items()) or "-"
            table.append((row.method, setting, self._shown(row.validation), self._shown(row.test)))
        return "\n".join([*lines, *aligned(table), *(f"\n{note}" for note in self.notes)])

    def _shown(self, figure: tuple[float, float, float] | None) -> str:
        if figure is None:
            return "-"
        one = "{:.2%}" if self.figure == "accuracy" else "{:.4g}"
        return f"{one} [{one}, {one}]".format(*figure)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def probe(
    config: ConfigDict,
    workdir: str | Path,
    *,
    methods: Sequence[str] = (),
    texts: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Probed:
    """Fits classifiers to the features of a config's network, without training it.

    The validation split chooses between settings; the test split is opened once all are chosen. The linear probe becomes a
    checkpoint in `workdir`: the network with it for a head, for `jaxft eval`, `predict`, `export` and `jaxft.load_run`. What
    was found stands in `probe.json` there, the features in `features` (or `config.features.dir`).

    Args:
      config: see `jaxft.config.default_config`; `config.probe` above all. What belongs to training alone is not read: phases,
        `config.optim`, `config.train`.
      workdir: a folder; made if absent. A later probe of the same config may use it too, with other methods.
      methods: of `METHODS`; () is all but `tip_f` that the task and the texts allow.
      texts: an `.npz` of text embeddings for `zero_shot` and `tip`; see `jaxft.probe.read_texts`.
      say: is told what is done.

    Raises:
      JaxftError: something given does not fit.
      SaveError: features or the checkpoint could not be written.
    """
    config = _run_config(config)
    keep_heap()  # before the devices are asked for
    classifier = None if texts is None else read_texts(texts)
    names = _methods(methods, config.data.task, classifier is not None)
    if jax.process_count() > 1:
        raise JaxftError(f"a probe works in one process, not in {jax.process_count()}")
    workdir, mesh = open_path(workdir), make_mesh(config.parallel.mesh)
    for line in filter(None, [keep_compiled()]):
        say(line)
    with explained_shortage(), open_workdir(workdir, config) as folder:
        plan = make_plan(config, manifest=folder.manifest)
        if "linear" in names and not has_linear_head(plan.model):
            raise JaxftError(f"the head of {plan.model.name} is no linear map of features: give --method=knn,prototypes,tip")
        projection = None
        if classifier is not None:
            classifier, projection = _texts(classifier, plan, config)
        folder.claim(config, plan.splits)
        for line in (plan.weights, *plan.splits.notes):
            say(line)
        began = first_weights(plan, plan.phases[0], config, mesh)
        frozen = Frozen(plan, config, mesh, *began, workdir, say)
        given = _given(frozen, classifier, projection)
        chosen: dict[str, Chosen] = {}
        for name in names:
            chosen[name] = METHODS[name](given)
            say(f"{name}: {len(chosen[name].sweep)} settings tried on the validation split")
        rows = _judged(chosen, given, frozen)
        found = _found(rows, chosen, plan, config, workdir)
        if "linear" in chosen:
            _write_run(chosen["linear"], found, plan, config, mesh, began, workdir, say)
        _keep(found, workdir)
        return found


def _run_config(given: ConfigDict) -> ConfigDict:
    """The config of the run that the linear probe is: its head is trained in one step."""
    config = copy.deepcopy(given)
    config.phases = ConfigDict({"probe": phase(train="head", length="1 steps")})
    check_config(config)
    if learns_representation(config):
        raise JaxftError("a probe fits classifiers to labels: give it a config that fine-tunes, with labels and their loss")
    # What belongs to training alone says nothing of a probe, and must not forbid it.
    config.optim, config.train, config.adapter = (default_config()[name] for name in ("optim", "train", "adapter"))
    if config.data.task == "regression":
        config.train.monitor, config.train.mode = "mae", "min"
    config.parallel.frozen_dtype = "float32"
    if config.model.head != "linear":
        raise JaxftError(f"config.model.head is '{config.model.head}': a probe is a linear head: set it to 'linear'")
    if config.model.zero_shot:
        raise JaxftError("config.model.zero_shot is what training begins with: a probe is given texts by --text=FILE.npz")
    return config


def _methods(asked: Sequence[str], task: str, texts: bool) -> list[str]:
    of_classes = task == "classify"
    default = [*(["zero_shot"] if texts else []), *_WITHOUT_TEXTS] if of_classes else ["linear"]
    for name in asked:
        if name not in METHODS:
            raise JaxftError(f"no method is called '{name}'{near(name, METHODS)}; there are {', '.join(METHODS)}")
        if not of_classes and name != "linear":
            raise JaxftError(f"{name} tells classes apart: for the task '{task}' there is --method=linear alone")
        if name == "zero_shot" and not texts:
            raise JaxftError("zero_shot needs the embeddings of texts: give --text=FILE.npz")
    return [name for name in METHODS if name in (asked or default)]


def _texts(classifier: TextClassifier, plan: Plan, config: ConfigDict) -> tuple[TextClassifier, np.ndarray | None]:
    """The texts of the data's classes in their order, and the projection of features to their width."""
    if config.data.task != "classify":
        raise JaxftError(f"texts tell classes apart: the task is '{config.data.task}'")
    classifier = classifier.ordered(plan.splits.class_names)
    width, wanted = _width(plan), classifier.embeddings.shape[1]
    projection = image_projection(*network_and_weights(config))
    have = width if projection is None else projection.shape[1]
    if have != wanted:
        without = "; its weights hold no projection into the space of texts" if projection is None else ""
        raise JaxftError(
            f"the texts' embeddings are {wanted} wide, those of {plan.model.name}'s pictures {have}{without}: make the "
            "embeddings with the text tower of the same weights"
        )
    return classifier, projection


def _width(plan: Plan) -> int:
    size, channels = plan.model.preprocessing.size, plan.model.in_channels
    image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    outputs = jax.eval_shape(lambda *arrays: plan.model.apply(*arrays)[0], *plan.model.shapes, image)
    return int(outputs["features"].shape[-1])


def _given(frozen: Frozen, texts: TextClassifier | None, projection: np.ndarray | None) -> Given:
    plan, config = frozen.plan, frozen.config
    train, val = (
        Split(np.asarray(frozen.features(name, source), np.float32), source.labels)
        for name, source in (("train", plan.splits.train), ("val", plan.val))
    )
    both = config.probe.refit == "train+val"

    def embed(features: np.ndarray) -> np.ndarray:
        x = np.asarray(features, np.float32)
        return normalized(x if projection is None else x @ projection)

    return Given(
        train=train,
        val=val,
        support=train + val if both else train,
        classes=plan.model.num_classes,
        task=plan.task.name,
        texts=texts,
        embed=embed,
        settings=call(Settings, config.probe.to_dict(), "config.probe"),
        mesh=frozen.mesh,
        seed=config.seed,
    )


def _judged(chosen: dict[str, Chosen], given: Given, frozen: Frozen) -> list[Row]:
    """Opens the test split, once all settings are chosen."""
    source = frozen.plan.splits.test
    features = None if source is None else np.asarray(frozen.features("test", source), np.float32)
    rows = []
    for name, found in chosen.items():
        validation = _figure(values_of(given.task, given.val.labels, found.val_logits))
        test = None
        if source is not None and features is not None:
            test = _figure(values_of(given.task, source.labels, found.scorer(features)))
        rows.append(Row(name, found.setting, validation, test, found.sweep))
    return rows


def _figure(values: np.ndarray) -> tuple[float, float, float]:
    return (float(values.mean()), *bootstrap_interval(values))


def _found(rows: list[Row], chosen: dict[str, Chosen], plan: Plan, config: ConfigDict, workdir: Path) -> Probed:
    splits = {"train": plan.splits.train, "val": plan.val, "test": plan.splits.test}
    notes = [note for found in chosen.values() for note in found.notes]
    run = str(workdir) if "linear" in chosen else None
    if run:
        notes.append(f"{run}: the network with the linear probe for a head; use it: jaxft predict --workdir={run} PICTURE")
    return Probed(
        title=f"{plan.model.name} on {config.data.source}",
        figure="mean absolute error" if plan.task.name == "regression" else "accuracy",
        counts={name: len(source) for name, source in splits.items() if source is not None},
        rows=tuple(rows),
        run=run,
        notes=tuple(notes),
    )


def _write_run(
    found: Chosen,
    probed: Probed,
    plan: Plan,
    config: ConfigDict,
    mesh: Mesh,
    began: tuple[Any, Any],
    workdir: Path,
    say: Callable[[str], None],
) -> None:
    """The network with the linear probe for a head, as the checkpoint of step 1. What is there already is the same."""
    assert found.linear is not None
    (only,) = plan.phases
    params, model_state = began
    state = enter(plan, only, config, mesh, with_linear_head(plan.model, params, found.linear), model_state, 1)
    validation = next(row.validation[0] for row in probed.rows if row.method == "linear")
    better = -validation if plan.task.name == "regression" else validation
    standing = Standing(only.name, best_step=1, best=better)
    made = {"method": "linear", "setting": found.setting, "refit": config.probe.refit}
    checkpoints = Checkpoints(workdir / "checkpoints", say=say)
    try:
        checkpoints.save(state, {"run": {**plan.record, "probe": made}, "standing": dataclasses.asdict(standing)}, best_step=1)
        if not checkpoints.wait():
            raise SaveError(f"the linear probe is not saved in {workdir}")
    finally:
        checkpoints.close()


def _keep(found: Probed, workdir: Path) -> None:
    """Writes `probe.json`: with the rows of earlier probes of the same config, whose methods are not these."""
    file = workdir / "probe.json"
    rows = list(found.rows)
    if file.exists():
        now = {row.method for row in rows}
        earlier = [row for row in json.loads(file.read_text())["rows"] if row["method"] not in now]
        rows = sorted([*rows, *(Row(**row) for row in earlier)], key=lambda row: list(METHODS).index(row.method))
    write_whole(file, dataclasses.replace(found, rows=tuple(rows)).to_json() + "\n")
