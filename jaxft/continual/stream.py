"""A stream of tasks: each an ordinary run that begins where the one before ended, and what becomes of the earlier ones."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.config import call, to_json
from jaxft.continual.fisher import fisher_diagonal
from jaxft.continual.result import Stream
from jaxft.data import Source, Splits, eval_batches, open_data
from jaxft.errors import JaxftError, near
from jaxft.files import write_whole
from jaxft.finetuned import FineTuned
from jaxft.fixed import read_importance
from jaxft.paths import is_remote, open_path
from jaxft.plan import make_plan
from jaxft.predict import run_over
from jaxft.run import train
from jaxft.weights import save_safetensors
from jaxft.workdir import load_run, splits_file

#: How earlier tasks are kept, and the strength each has where none is given.
METHODS = {"finetune": None, "l2_sp": 0.01, "ewc": 1000.0, "lwf": 1.0, "replay": None}
#: Softness of answers that are compared, of Li & Hoiem (2016).
TEMPERATURE = 2.0
IMPORTANCE = "importance.safetensors"


def learn(
    config: ConfigDict,
    tasks: Sequence[str],
    workdir: str | Path,
    *,
    method: str = "finetune",
    strength: float | None = None,
    memory: int = 20,
    gamma: float = 1.0,
    examples: int = 500,
    say: Callable[[str], None] = print,
) -> Stream:
    """Learns one task after the other, each in a run of its own, `WORKDIR/task1`, `task2`, ...

    The first run is the config's. Every later one begins with the best checkpoint of the one before, and

    - "finetune": nothing else; what forgets.
    - "l2_sp": is pulled to it (`config.optim.l2_sp`; Li et al., 2018).
    - "ewc": is pulled to it where that matters, by the Fisher diagonals of all tasks before (Kirkpatrick et al., 2017), which
      are added up with one anchor, those before the last times `gamma` (online EWC; Schwarz et al., 2018).
    - "lwf": answers the new pictures as it did, among the classes so far (Li & Hoiem, 2016).
    - "replay": sees pictures of earlier tasks again (`config.data.replay`).

    The head has the classes of all tasks from the start, so all tasks must be known; those with the same classes are data that
    drift. A stream that was stopped goes on with the same call.

    Args:
      config: of each run; its `data.source` is not read.
      tasks: sources, see `jaxft.open_data`.
      workdir: a folder.
      method: see above.
      strength: of the pull, or of the old answers' loss; None is `METHODS`' own.
      memory: of "replay": pictures of each earlier class.
      gamma: see above.
      examples: of "ewc": how many training pictures of a task the Fisher diagonal is the mean over.
      say: is given lines for the user.

    Raises:
      JaxftError: something does not fit, with what to do.
    """
    folder = open_path(workdir)
    _check(config, tasks, folder, method, strength, memory, gamma, examples)
    opened = [_open(config, task) for task in tasks]
    classes = tuple(dict.fromkeys(name for splits in opened for name in splits.class_names))
    names = tuple(f"task{number}" for number in range(1, len(tasks) + 1))
    force = METHODS[method] if strength is None else strength
    _claim(folder, config, tasks, {"method": method, "strength": force, "memory": memory, "gamma": gamma, "examples": examples})
    rows = _rows(folder)
    stream = _Tasks(config, tuple(tasks), classes, tuple(opened), folder, method, force, memory, gamma, examples)
    split = tuple("test" if splits.test is not None else "val" for splits in opened)

    def found(status: str) -> Stream:
        shape = (len(rows), len(tasks))
        accuracy, within = (np.array([row[kind] for row in rows], float).reshape(shape) for kind in ("accuracy", "within"))
        return Stream(status, names, split, accuracy, within, method)

    for number in range(len(rows), len(tasks)):
        say(f"{names[number]}: {tasks[number]}")
        if train(stream.config(number), folder / names[number], test=False).status != "finished":
            return found("interrupted")
        tuned = load_run(folder / names[number])
        if method == "ewc" and number + 1 < len(tasks):
            stream.write_importance(number, tuned)
        rows.append(stream.judge(tuned, number, split))
        write_whole(folder / "rows.json", json.dumps(rows) + "\n")
        say(str(found("going on")))
    result = found("finished")
    write_whole(folder / "continual.json", result.to_json() + "\n")
    write_whole(folder / "continual.md", f"```\n{result}\n```\n")
    return result


@dataclasses.dataclass(frozen=True)
class _Tasks:
    """What the runs of a stream are made of."""

    base: ConfigDict
    tasks: tuple[str, ...]
    classes: tuple[str, ...]
    opened: tuple[Splits, ...]
    folder: Path
    method: str
    strength: float | None
    memory: int
    gamma: float
    examples: int

    def place(self, number: int) -> Path:
        return self.folder / f"task{number + 1}"

    def config(self, number: int) -> ConfigDict:
        """The run of a task."""
        config = copy.deepcopy(self.base)
        config.data.source, config.data.classes = self.tasks[number], self.classes
        if number == 0:
            return config
        before = self.place(number - 1)
        config.model.pretrained = f"run:{before}"
        if self.method == "l2_sp":
            config.optim.l2_sp, config.optim.weight_decay, config.optim.l2_sp_head = self.strength, 0.0, None
        elif self.method == "ewc":
            config.loss.name, config.anchor.importance = "ewc", str(before / IMPORTANCE)
            config.loss.options = ConfigDict({**config.loss.options, "strength": self.strength})
        elif self.method == "lwf":
            assert self.strength is not None
            config.loss.name, config.teacher.run = "distillation", str(before)
            # (1 - w) * cross-entropy + w * T^2 * KL is a multiple of cross-entropy + strength * KL.
            weight = self.strength / (self.strength + TEMPERATURE**2)
            softened = {"temperature": TEMPERATURE, "weight": weight, "classes": self.known(number)}
            config.loss.options = ConfigDict({**config.loss.options, **softened})
        elif self.method == "replay":
            config.data.replay, config.data.replay_per_class = self.tasks[:number], self.memory
        return config

    def known(self, number: int) -> tuple[int, ...]:
        """The places of the classes of the tasks before one."""
        seen = {name for splits in self.opened[:number] for name in splits.class_names}
        return tuple(place for place, name in enumerate(self.classes) if name in seen)

    def write_importance(self, number: int, tuned: FineTuned) -> None:
        """The Fisher diagonal of a task, and what is left of those before, beside its run."""
        config = self.config(number)
        plan = make_plan(config, manifest=splits_file(self.place(number)), weights=False)
        masks = [tree.flatten(phase.mask) for phase in plan.phases]
        mask = tree.map_with_path(lambda path, _: any(one[path] for one in masks), plan.phases[0].mask)
        source: Source = plan.splits.train
        drawn = np.random.default_rng([config.seed, number]).permutation(len(source))[: self.examples]
        batches = eval_batches(
            source.subset(np.sort(drawn)),
            tuned.model.preprocessing,
            batch_size=config.input.eval_batch_size,
            channels=tuned.model.in_channels,
            threads=config.input.threads,
        )
        importance = fisher_diagonal(tuned.apply, tuned.params, tuned.model_state, batches, mask)
        if number:
            earlier = read_importance(self.place(number - 1) / IMPORTANCE)
            importance = {path: leaf + self.gamma * earlier[path] for path, leaf in importance.items()}
        about = {"examples": str(len(drawn)), "tasks": str(number + 1), "gamma": str(self.gamma)}
        save_safetensors(self.place(number) / IMPORTANCE, importance, about)

    def judge(self, tuned: FineTuned, number: int, split: Sequence[str]) -> dict[str, list[float | None]]:
        """Accuracies of the tasks so far, and None of later ones."""
        row: dict[str, list[float | None]] = {"accuracy": [], "within": []}
        seen = self.known(number + 1)
        compiled = jax.jit(lambda *given: {"logits": tuned.apply(*given, train=False, rng=None)[0]["logits"]})
        for task, splits in enumerate(self.opened):
            if task > number:
                for figures in row.values():
                    figures.append(None)
                continue
            source = getattr(splits, split[task])
            logits = run_over(tuned, source, compiled, batch_size=self.base.input.eval_batch_size)["logits"]
            places = np.array([self.classes.index(name) for name in splits.class_names])
            labels = places[source.labels]
            for kind, among in (("accuracy", np.array(seen)), ("within", places)):
                right = among[logits[:, among].argmax(-1)] == labels
                row[kind].append(float(right.mean()))
        return row


def _open(config: ConfigDict, task: str) -> Splits:
    """A task's data with its own classes."""
    section = {**config.data.to_dict(), "source": task, "classes": None, "replay": None}
    found: Splits = call(open_data, section, "config.data")
    if found.val is None:
        raise JaxftError(f"'{task}' has no validation split; set config.data.val_fraction")
    return found


def _check(
    config: ConfigDict,
    tasks: Sequence[str],
    folder: Path,
    method: str,
    strength: float | None,
    memory: int,
    gamma: float,
    examples: int,
) -> None:
    if method not in METHODS:
        raise JaxftError(f"no method is called '{method}'{near(method, METHODS)}; there are {', '.join(METHODS)}")
    if len(tasks) < 2:
        raise JaxftError(f"a stream has at least two tasks, not {len(tasks)}: give --task=SOURCE for each")
    if config.data.task != "classify":
        raise JaxftError(f"a stream is of the task 'classify', not '{config.data.task}'")
    if is_remote(folder):
        raise JaxftError(f"a stream lies in a local folder, which {folder} is not")
    if jax.process_count() > 1:
        raise JaxftError(f"a stream is learnt in one process, not in {jax.process_count()}")
    if strength is not None and (METHODS[method] is None or not strength >= 0):
        takes = "takes no strength" if METHODS[method] is None else "needs a strength of at least 0"
        raise JaxftError(f"strength is {strength}, and the method '{method}' {takes}")
    if memory < 1 or examples < 1 or not 0 <= gamma <= 1:
        raise JaxftError(f"memory ({memory}) and examples ({examples}) must be at least 1, gamma ({gamma}) between 0 and 1")
    for key, value in (("loss.name", config.loss.name), ("teacher.run", config.teacher.run)):
        if value and method in ("ewc", "lwf"):
            raise JaxftError(f"config.{key} is '{value}', and the method '{method}' sets it: set it to ''")


def _claim(folder: Path, config: ConfigDict, tasks: Sequence[str], settings: dict[str, Any]) -> None:
    """Writes down what the stream is; one that is there must be the same."""
    asked = json.dumps({"tasks": list(tasks), **settings, "config": json.loads(to_json(config))}, indent=1, sort_keys=True)
    file = folder / "stream.json"
    try:
        if file.exists():
            if file.read_text().strip() != asked:
                raise JaxftError(f"{folder} holds another stream (see stream.json there): give another --workdir")
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, asked + "\n")
    except OSError as error:
        raise JaxftError(f"cannot use {folder} as workdir: {error.strerror}") from error


def _rows(folder: Path) -> list[dict[str, list[float | None]]]:
    """What was judged before."""
    file = folder / "rows.json"
    if not file.exists():
        return []
    try:
        rows: list[dict[str, list[float | None]]] = json.loads(file.read_text())
    except ValueError as error:
        raise JaxftError(f"{file} is damaged ({error}): remove it, and all finished tasks are judged again") from error
    return rows
