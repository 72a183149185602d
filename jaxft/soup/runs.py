"""Soups of runs: from workdirs to a workdir that is used like any run's."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.checkpoint import Checkpoints
from jaxft.columns import aligned
from jaxft.config import to_json
from jaxft.errors import JaxftError, SaveError
from jaxft.files import write_whole
from jaxft.heap import keep_heap
from jaxft.paths import is_remote, open_path
from jaxft.plan import make_plan
from jaxft.soup.kitchen import Kitchen, Weights, check_alike, open_kitchen, plain
from jaxft.soup.weights import greedy_soup, interpolate, uniform_soup
from jaxft.standing import Standing
from jaxft.states import first_weights
from jaxft.train import TrainState
from jaxft.workdir import load_run, splits_file, workdir_of

#: Steps of a sweep between a network and its fine-tuned self.
ALPHAS = tuple(step / 10 for step in range(11))


@dataclasses.dataclass(frozen=True)
class Soup:
    """Weights that were put together, and how they judged.

    Attributes:
      out: the workdir they were written to; None where they were not.
      made_of: what the checkpoint's record says of it, JSON data.
      rows: a table of what was judged on the validation split, its head first.
      notes: what a user should know, a line each.
    """

    out: Path | None
    made_of: dict[str, Any]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        rows = [dict(zip(self.rows[0], row, strict=True)) for row in self.rows[1:]]
        return json.dumps(
            {"out": None if self.out is None else str(self.out), "made_of": self.made_of, "judged": rows}, indent=2
        )

    def __str__(self) -> str:
        made = self.made_of
        alpha = f" with alpha {made['alpha']:g}" if "alpha" in made else f" of {len(made['runs'])}"
        statistics = {"recomputed": "; BatchNorm statistics computed anew over the training split", "averaged": ""}
        lines = [
            *self.notes,
            *aligned(self.rows, right=tuple(range(1, len(self.rows[0])))),
            f"{made['kind']}{alpha}: validation {made['monitor']} {made['figure']:.4f}{statistics[made['statistics']]}",
        ]
        if self.out is not None:
            lines.append(f"{self.out}: judge it once: jaxft eval --workdir={self.out} --split=test")
        return "\n".join(lines)


def soup_runs(runs: Sequence[str | Path], out: str | Path, *, greedy: bool = False, update_bn: bool | None = None) -> Soup:
    """Puts the best checkpoints of runs together (Wortsman et al., Model soups, 2022) and writes them as a run.

    Args:
      runs: see `jaxft.load_run`; of one network, one data set and one split of it. One run is a soup too: with `update_bn` it
        gets statistics of its own.
      out: a new folder.
      greedy: a run is added where `config.train.monitor` of the first run does not fall on its validation split; else all are.
      update_bn: whether BatchNorm statistics are computed anew for each soup, over one pass of the training input, or averaged;
        None computes them where any run trained a BatchNorm and the soup is of several.

    Raises:
      JaxftError: runs that do not go together, or a folder that is not empty.
    """
    if not runs:
        raise JaxftError("a soup needs at least one run")
    target = _new_folder(out)
    kitchen = open_kitchen(runs)
    update = _updates(kitchen, update_bn, len(runs) > 1)
    weights: list[Weights] = [(run.params, run.model_state) for run in kitchen.runs]
    alone = [kitchen.judge(one) for one in weights]
    rows = [(str(path), figures) for path, figures in zip(runs, alone, strict=True)]

    def served(soup: Weights) -> Weights:
        return kitchen.updated(soup) if update else soup

    if greedy:
        tried: list[dict[str, float]] = []

        def judge(soup: Weights) -> float:
            tried.append(kitchen.judge(served(soup)))
            return kitchen.value(tried[-1])

        found = greedy_soup(weights, judge, [kitchen.value(figures) for figures in alone])
        chosen = found.chosen
        for (place, _), figures in zip(found.tried[1:], tried, strict=True):
            rows.append((f"{'with' if place in chosen else 'not with'} {runs[place]}", figures))
        soup = found.weights
    else:
        chosen, soup = tuple(range(len(runs))), uniform_soup(weights)
    # One run alone keeps the statistics that it was judged with, unless it is asked for others.
    soup = served(soup) if len(chosen) > 1 or update_bn else soup
    figures = kitchen.judge(soup)
    rows.append(("the soup", figures))
    made_of = {
        "kind": "greedy soup" if greedy else "uniform soup",
        "runs": [_ingredient(runs[place], kitchen, place) for place in chosen],
        "statistics": "recomputed" if update and (len(chosen) > 1 or update_bn) else "averaged",
        "monitor": kitchen.monitor,
        "figure": figures[kitchen.monitor],
    }
    _write(target, kitchen, soup, made_of, runs[0])
    return Soup(target, made_of, _table("run", rows), tuple(_notes(kitchen)))


def wise_run(
    run: str | Path,
    out: str | Path | None = None,
    *,
    alpha: float | None = None,
    start: str | Path | None = None,
    update_bn: bool | None = None,
) -> Soup:
    """A network between the one before fine-tuning and the fine-tuned one (WiSE-FT; Wortsman et al., 2022).

    Args:
      run: the fine-tuned one; see `jaxft.load_run`.
      out: a new folder; None writes nothing.
      alpha: the share of the fine-tuned one, in 0..1; None tries 0, 0.1, ..., 1 on the run's validation split and takes the
        best by `config.train.monitor`, of equals the largest.
      start: a run whose weights are the other end, of the head alone say; None are the pretrained weights of the run's config
        with the fine-tuned head, since they have none for these classes.
      update_bn: whether BatchNorm statistics are computed anew between the two ends, or interpolated; None computes them where
        the run trained a BatchNorm.

    Raises:
      JaxftError: an alpha beyond 0..1, a run that began with random weights and no `start`, runs that do not go together, or a
        folder that is not empty.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise JaxftError(f"alpha is {alpha:g}: it must lie between 0 (before fine-tuning) and 1 (the fine-tuned network)")
    target = None if out is None else _new_folder(out)
    kitchen = open_kitchen([run])
    update = _updates(kitchen, update_bn, True)
    end = (kitchen.runs[0].params, kitchen.runs[0].model_state)
    begin = _beginning(kitchen, run, start)
    rows, best = [], None
    for share in ALPHAS if alpha is None else (alpha,):
        weights = interpolate(begin, end, share)
        weights = kitchen.updated(weights) if update and 0 < share < 1 else weights
        figures = kitchen.judge(weights)
        rows.append((f"{share:g}", figures))
        if best is None or kitchen.value(figures) >= kitchen.value(best[1]):
            best = (share, figures, weights)
    assert best is not None
    made_of = {
        "kind": "WiSE-FT",
        "alpha": best[0],
        "runs": [_ingredient(run, kitchen, 0)],
        "start": str(start) if start is not None else f"{kitchen.config.model.pretrained}, with the fine-tuned head",
        "statistics": "recomputed" if update and 0 < best[0] < 1 else "averaged",
        "monitor": kitchen.monitor,
        "figure": best[1][kitchen.monitor],
    }
    if target is not None:
        _write(target, kitchen, best[2], made_of, run)
    return Soup(target, made_of, _table("alpha", rows))


def _beginning(kitchen: Kitchen, run: str | Path, start: str | Path | None) -> Weights:
    """The network before fine-tuning."""
    tuned = kitchen.runs[0]
    if start is not None:
        other = plain(load_run(start))
        check_alike(run, tuned, start, other)
        return other.params, other.model_state
    if not kitchen.config.model.pretrained:
        raise JaxftError(
            f"{run} began with random weights: give a run to begin with, --start=RUN, one that trained the head say"
        )
    plan = make_plan(kitchen.config, manifest=splits_file(workdir_of(run)))
    params, model_state = first_weights(plan, plan.phases[0], kitchen.config, kitchen.mesh)
    *_, head = plan.model.stages
    flat, own = tree.flatten(params), tree.flatten(tuned.params)  # of merged adapters there is none
    return tree.unflatten({path: own[path] if plan.model.stage_of(path) == head else flat[path] for path in own}), model_state


def _updates(kitchen: Kitchen, update_bn: bool | None, several: bool) -> bool:
    if update_bn and not kitchen.trained_norms:
        raise JaxftError("no run trained a BatchNorm, so its statistics are those of all of them: leave --update-bn out")
    return kitchen.trained_norms and several if update_bn is None else update_bn


def _ingredient(path: str | Path, kitchen: Kitchen, place: int) -> dict[str, Any]:
    return {"workdir": str(path), "step": kitchen.runs[place].step}


def _notes(kitchen: Kitchen) -> list[str]:
    began = {str(run.record["config"]["model"]["pretrained"]) for run in kitchen.runs}
    if len(kitchen.runs) > 1 and (len(began) > 1 or "" in began):
        return ["WARNING: these runs did not begin with the same weights; the mean of such networks is mostly worth nothing"]
    return []


def _table(first: str, rows: Sequence[tuple[str, dict[str, float]]]) -> tuple[tuple[str, ...], ...]:
    names = tuple(rows[0][1])
    return ((first, *names), *((name, *(f"{figures[key]:.4f}" for key in names)) for name, figures in rows))


def _new_folder(out: str | Path) -> Path:
    target = open_path(out)
    if is_remote(target):
        raise JaxftError(f"{target} lies in a bucket: give a local --out, and copy it there")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise JaxftError(f"{target} is there already and not empty: give another --out")
    keep_heap()
    return target


def _write(out: Path, kitchen: Kitchen, weights: Weights, made_of: dict[str, Any], first: str | Path) -> None:
    """Writes a workdir: config, splits, one checkpoint. It appears under its name when it is whole."""
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    params, model_state = weights
    key = jax.random.key_data(jax.random.key(kitchen.config.seed))
    state = TrainState(jnp.int32(0), params, model_state, (), key, None)
    value = kitchen.value({kitchen.monitor: made_of["figure"]})
    standing = Standing([*kitchen.config.phases][-1], best_step=0, best=value)
    record = {**kitchen.runs[0].record, "made_of": made_of}
    failed: list[SaveError] = []
    try:
        unfinished.mkdir(parents=True)
        checkpoints = Checkpoints(unfinished / "checkpoints")
        checkpoints.failed = lambda step, error: failed.append(error)
        checkpoints.save(state, {"run": record, "standing": dataclasses.asdict(standing)}, best_step=0)
        checkpoints.wait()
        checkpoints.close()
        if failed:
            raise failed[0]
        write_whole(unfinished / "config.json", to_json(kitchen.config) + "\n")
        if splits := splits_file(workdir_of(first)):
            shutil.copyfile(splits, unfinished / "splits.json")
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    except OSError as error:
        raise JaxftError(f"cannot write {out}: {error.strerror}") from error
