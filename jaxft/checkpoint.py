"""Checkpoints through Orbax: the newest and the best are kept, each whole, each loadable without a config.

A checkpoint of step n is the folder `checkpoints/n` with one Orbax item for each part of the `TrainState` and `meta`, a JSON
record that says what the run is (model, classes, preprocessing, config) and where it stands. Saving is asynchronous; the
folder appears under its final name only when it is complete, so a kill at any moment leaves the one before it usable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxft import tree
from jaxft.errors import JaxftError, SaveError
from jaxft.train import TrainState

# Orbax reports each save and each handler it tries through absl, and a failure, which is raised too, with a traceback a thread.
logging.getLogger("absl").setLevel(logging.CRITICAL)

_ITEMS = ("clock", "params", "model_state", "opt_state", "ema")


class Checkpoints:
    """The checkpoints of one run. Keeps the newest and the best, and never deletes one for the sake of the other."""

    def __init__(self, directory: Path, *, read_only: bool = False):
        self._directory = directory
        self._saving = 0  # the step saved last, and which step it calls the best
        self._best: int | None = None
        options = ocp.CheckpointManagerOptions(
            create=not read_only, read_only=read_only, enable_async_checkpointing=not read_only
        )
        # Handlers, not only names: else a manager that has saved nothing gives no metadata, and nothing could be checked.
        handlers: dict[str, Any] = {name: ocp.StandardCheckpointHandler() for name in _ITEMS}
        handlers["meta"] = ocp.JsonCheckpointHandler()
        self._manager = ocp.CheckpointManager(directory.absolute(), item_handlers=handlers, options=options)

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def newest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return max(self.steps(), default=None)

    def save(self, state: TrainState, meta: dict[str, Any], *, best_step: int | None) -> None:
        """Starts saving `state`; returns when the arrays are copied, not when they are written.

        Args:
          state: saved under its own step.
          meta: JSON data.
          best_step: the step that must be kept beside the newest.

        Raises:
          SaveError: this save cannot start, or the one before it did not end well.
        """
        self._wait()
        # The one before is complete now, and older ones may go, but not what it calls the best: if this save never ends, a
        # resumed run starts from it. A process that has saved nothing yet does not know, and leaves all.
        if self._saving:
            self._prune(self._best)
        self._saving, self._best = int(state.step), best_step
        try:
            self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
            items = {name: ocp.args.StandardSave(jax.tree.map(_one_copy, part)) for name, part in _parts(state).items()}
            self._manager.save(self._saving, args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)), force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._save_error(error) from error

    def finish(self, *, best_step: int | None) -> None:
        """Waits for the last save and leaves only the newest and the best."""
        self._wait()
        self._prune(best_step)

    def _wait(self) -> None:
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._save_error(error) from error

    def _prune(self, best_step: int | None) -> None:
        for old in self.steps()[:-1]:
            if old != best_step:
                self._manager.delete(old)

    def _check_space(self, needed: int) -> None:
        """A disk that cannot hold the checkpoint is said before it is filled up."""
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"needs {needed / 1e6:.0f} MB, has {free / 1e6:.0f} MB")

    def _save_error(self, error: Exception) -> SaveError:
        """Says why a save failed. What it left behind is removed: on a full disk above all that is in the way."""
        for leftover in self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)
        text = str(error).splitlines()[0][:200] if str(error) else repr(error)
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        full = any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain)
        where = f"checkpoint {self._saving} was not saved"
        if full or "RESOURCE_EXHAUSTED" in text or "No space left" in text:
            size = f" ({error.strerror})" if isinstance(error, OSError) else ""
            return SaveError(f"the disk of {self._directory} is full{size}: {where}; free space and use --resume")
        return SaveError(f"{where} in {self._directory}: {text}")

    def close(self) -> None:
        self._manager.close()

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON record of the checkpoint of `step`."""
        return self._restore(step, {"meta": ocp.args.JsonRestore()})["meta"]

    def restore(self, step: int, target: TrainState) -> TrainState:
        """Restores everything, strictly: the tree on disk must be the tree of `target`.

        Args:
          step: which checkpoint.
          target: abstract state: `jax.ShapeDtypeStruct` leaves with the shardings wanted, on any mesh.

        Raises:
          JaxftError: other names, shapes or dtypes than `target`'s, or a damaged checkpoint.
        """
        parts = _parts(target)
        self._check(step, parts)
        found = self._restore(step, {name: ocp.args.StandardRestore(part) for name, part in parts.items()})
        clock = found["clock"]
        return dataclasses.replace(target, **clock, **{name: found[name] for name in parts if name != "clock"})

    def restore_weights(self, step: int, params: Any, model_state: Any) -> tuple[Any, Any]:
        """Restores what a prediction needs: parameters (averaged ones where there are) and statistics.

        Args:
          step: which checkpoint.
          params, model_state: abstract trees with the shardings wanted.
        """
        parts = {"params": params, "model_state": model_state}
        parts = {name: part for name, part in parts.items() if jax.tree.leaves(part)}
        self._check(step, parts)
        found = self._restore(step, {name: ocp.args.StandardRestore(part) for name, part in parts.items()})
        restored = found["params"]
        averaged = _item(self._metadata(step), "ema")
        if averaged is not None:
            flat = tree.flatten(params)
            wanted = tree.unflatten({path: flat[path] for path in tree.flatten(averaged.tree)})
            ema = self._restore(step, {"ema": ocp.args.StandardRestore(wanted)})["ema"]
            restored = tree.unflatten({**tree.flatten(restored), **tree.flatten(ema)})
        return restored, found["model_state"] if "model_state" in parts else model_state

    def _check(self, step: int, parts: dict[str, Any]) -> None:
        """Compares names and shapes before any array is read, so that a mismatch is a readable line."""
        metadata = self._metadata(step)
        for name in ("params", "model_state"):
            item = _item(metadata, name)
            if name in parts and item is not None:
                found = tree.diff(parts[name], dict(item.tree), dtypes=False)
                if found:
                    raise JaxftError(f"checkpoint {step} in {self._directory} is of another network: {found}")

    def _metadata(self, step: int) -> Any:
        with self._readable(step):
            return self._manager.item_metadata(step)

    def _restore(self, step: int, items: dict[str, Any]) -> Any:
        with self._readable(step):
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Turns whatever reading raises into one line."""
        try:
            yield
        except Exception as error:  # what Orbax and tensorstore raise on damaged bytes is no closed list
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            others = [other for other in self.steps() if other != step]
            hint = f"; step {others[-1]} is kept too: remove {self._directory / str(step)} to go on from it" if others else ""
            raise JaxftError(f"checkpoint {step} in {self._directory} cannot be read ({reason}){hint}") from error


def _parts(state: TrainState) -> dict[str, Any]:
    """The items of a state. A part without arrays has no item: Orbax refuses empty trees."""
    parts = {name: getattr(state, name) for name in _ITEMS if name != "clock"}
    parts["clock"] = {"step": state.step, "rng": state.rng}
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def _one_copy(leaf: jax.Array) -> jax.Array:
    """The first device's copy of an array that all devices of the only process have whole.

    Given all, Orbax saves a slice of each copy, and every slice of every shape is a program that is compiled and run first.
    """
    whole = leaf.is_fully_replicated and leaf.is_fully_addressable
    return leaf.addressable_shards[0].data if whole else leaf


def _item(metadata: Any, name: str) -> Any:
    """An item's metadata; None where the checkpoint has no such item."""
    return metadata[name] if name in metadata.keys() else None  # noqa: SIM118 - not a mapping, it only has keys
