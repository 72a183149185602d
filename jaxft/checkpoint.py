"""Checkpoints through Orbax: the newest and the best are kept, each whole, each loadable without a config.

A checkpoint of step n is the folder `checkpoints/n` with one Orbax item for each part of the `TrainState`; `meta`, a JSON
record that says what the run is (model, classes, preprocessing, config) and where it stands; and `MANIFEST`, the hashes of all
files, which are compared before any is read. Saving is asynchronous; the folder appears under its final name only when it is
complete, so a kill at any moment leaves the one before it usable. In a bucket, where no folder is renamed, it lies under its
final name from the start, and is complete when `commit_success.txt` is there. What is found damaged is moved to
`checkpoints/damaged-n`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxft import tree
from jaxft.errors import JaxftError, SaveError
from jaxft.items import ITEMS, difference, items_of, one_copy, saved_items
from jaxft.manifest import find_damage, write_manifest
from jaxft.parallel import everyone, from_first, is_first
from jaxft.paths import is_remote, make_folder, reaching, remove_folder
from jaxft.train import TrainState, with_averages

# Orbax reports each save and each handler it tries through absl, and a failure, which is raised too, with a traceback a thread.
logging.getLogger("absl").setLevel(logging.CRITICAL)
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the same, once more for each write that was under way

_TEMPORARY = ".orbax-checkpoint-tmp"
#: What Orbax writes as the very last, after the hashes were taken: they come onto the list when it is done.
_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")
#: Seconds in which all processes must have written their part of a checkpoint.
_SAVE_SECONDS = 1200


class Checkpoints:
    """The checkpoints of one run. Keeps the newest and the best, and never deletes one for the sake of the other.

    Args:
      directory: of the run's checkpoints.
      read_only: nothing is written; the folder must be there.
      say: is given a line when an older checkpoint cannot be removed.

    Attributes:
      failed: is told of a save that failed: (step, error). The run can go on, and so can later saves.
    """

    def __init__(self, directory: Path, *, read_only: bool = False, say: Callable[[str], None] = print) -> None:
        self._directory = directory if is_remote(directory) else directory.absolute()
        self.failed: Callable[[int, SaveError], None] = lambda step, error: None
        self._say = say
        self._saving: int | None = None  # the step whose save was begun last, until it is known how it ended
        self._well = True  # how the last one ended
        self._best: int | None = None  # what that checkpoint calls the best
        self._unsealed: OSError | None = None
        self._lost: set[int] = set()  # steps that were not saved, though Orbax may count them
        if not read_only:
            make_folder(self._directory)
        writing = ocp.AsyncOptions(timeout_secs=_SAVE_SECONDS, post_finalization_callback=self._seal)
        options = ocp.CheckpointManagerOptions(
            create=False,
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            cleanup_tmp_directories=not read_only,
            async_options=None if read_only else writing,
            multiprocessing_options=_processes(),
        )
        with reaching(self._directory):
            self._manager = ocp.CheckpointManager(self._directory, item_handlers=_handlers(), options=options)

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        return sorted({*self._manager.all_steps()} - self._lost)

    def newest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return max(self.steps(), default=None)

    def newest_whole(self, say: Callable[[str], None] = lambda line: None) -> int | None:
        """Step of the newest checkpoint whose files are what was written; None where there is none.

        Damaged ones that are newer are moved out of the way.

        Args:
          say: is given a line for each.

        Raises:
          JaxftError: there are checkpoints, but none is whole.
        """
        steps = self.steps()
        for step in reversed(steps):
            damage = self.damage(step)
            if not damage:
                return step
            where = from_first(functools.partial(self._set_aside, step))
            self._manager.reload()  # else it would count as there, and not be saved again
            say(f"checkpoint {step} is damaged ({damage}); it was moved to {where}")
        if steps:
            raise JaxftError(f"no checkpoint in {self._directory} is whole: start anew in another --workdir")
        return None

    def check(self, step: int) -> None:
        """Raises JaxftError where a checkpoint's files are not what was written."""
        if damage := self.damage(step):
            raise JaxftError(f"checkpoint {step} in {self._directory} is damaged ({damage}){self._hint(step)}")

    def damage(self, step: int) -> str:
        """What is wrong with a checkpoint's files, as one line; "" where nothing is. The first process looks."""
        found: str = from_first(lambda: find_damage(self._directory / str(step), later=_LATER))
        return found

    def _set_aside(self, step: int) -> str:
        with reaching(self._directory):
            aside = self._directory / f"damaged-{step}"
            number = 1
            while aside.exists():
                number += 1
                aside = self._directory / f"damaged-{step}-{number}"
            (self._directory / str(step)).rename(aside)
        return str(aside)

    def save(self, state: TrainState, meta: dict[str, Any], *, best_step: int | None) -> None:
        """Starts saving `state`; returns when the arrays are copied, not when they are written.

        A failure, of this save or the one before, is told to `failed`; nothing that was saved is lost by it.

        Args:
          state: saved under its own step.
          meta: JSON data.
          best_step: the step that must be kept beside the newest.
        """
        self.wait()
        step = int(state.step)
        self._well = True
        if step in self.steps():  # begun from here: it is there already
            return
        self._saving, self._best, self._unsealed = step, best_step, None
        self._lost.discard(step)
        failure: Exception | None = None
        try:
            from_first(lambda: self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(saved_items(state)))))
            items = {name: ocp.args.StandardSave(jax.tree.map(one_copy, part)) for name, part in saved_items(state).items()}
            with reaching(self._directory):
                self._manager.save(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)), force=True)
        except (OSError, ValueError, RuntimeError) as error:
            failure = error
        if not everyone(failure is None):
            self._fail(failure)

    def wait(self) -> bool:
        """Waits for the last save. Where it ended well, older checkpoints go, but what it calls the best stays: if the next
        save never ends, a resumed run starts from it.

        Returns:
          Whether it ended well, or there was none.
        """
        if self._saving is None:
            return self._well
        failure: Exception | None = None
        try:
            with reaching(self._directory):
                self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            failure = error
        if everyone(failure is None):
            try:
                from_first(self._complete)
            except OSError as error:  # in all processes
                failure = error
            else:
                self._saving = None
                self._forget_lost()
                self.prune(self._best)
                return True
        self._fail(failure)
        return False

    def _complete(self) -> None:
        if self._unsealed is not None:
            raise self._unsealed
        with contextlib.suppress(OSError):  # whole without it: a disk that has just filled up must not cost a checkpoint
            write_manifest(self._directory / str(self._saving))

    def _fail(self, failure: Exception | None) -> None:
        """The save failed, in this process or in another."""
        step, self._saving, self._well = self._saving, None, False
        assert step is not None
        self.failed(step, self._save_error(step, failure or OSError(errno.EIO, "another process could not write its part")))

    def prune(self, best_step: int | None) -> None:
        """Leaves only the newest and the best. What cannot be removed is tried again the next time."""
        for old in self.steps()[:-1]:
            if old != best_step:
                try:
                    with reaching(self._directory):
                        self._manager.delete(old)
                except OSError as error:
                    self._say(f"WARNING: checkpoint {old} in {self._directory} cannot be removed ({error.strerror})")

    def _forget_lost(self) -> None:
        """Once a save ended well: what is left of those that failed, while a bucket was away say, is removed."""
        if self._lost:
            for step in self._lost if is_first() else ():
                remove_folder(self._directory / str(step))
            self._reload()
            self._lost &= {*self._manager.all_steps()}

    def _reload(self) -> None:
        """Lets Orbax look again which checkpoints there are. A bucket that cannot be reached still has what it had."""
        with contextlib.suppress(OSError, ValueError, RuntimeError), reaching(self._directory):
            next(iter(self._directory.iterdir()), None)
            self._manager.reload()

    def _unfinished(self, step: int | None) -> list[Path]:
        """Where Orbax writes a checkpoint until it is complete."""
        if is_remote(self._directory):
            return [self._directory / str(step)]
        return list(self._directory.glob(f"{step}{_TEMPORARY}*"))

    def _seal(self) -> None:
        """Lists the hashes of what was written. Orbax calls it in the first process, before the folder gets its final name."""
        try:
            (folder,) = self._unfinished(self._saving)
            write_manifest(folder, leave_out=_LATER)
        except (OSError, ValueError) as error:  # raised here, it would leave the other processes waiting
            self._unsealed = error if isinstance(error, OSError) else OSError(errno.EIO, str(error))

    def _check_space(self, needed: int) -> None:
        """A disk that cannot hold the checkpoint is said before it is filled up. A bucket is never full."""
        if is_remote(self._directory):
            return
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"needs {needed / 1e6:.0f} MB, has {free / 1e6:.0f} MB")

    def _save_error(self, step: int, error: Exception) -> SaveError:
        """Says why a save failed. What it left behind is removed: on a full disk above all that is in the way."""
        if is_first():
            for leftover in {*self._unfinished(step), self._directory / str(step)}:
                remove_folder(leftover)
        self._lost.add(step)
        self._reload()
        said = error.strerror if isinstance(error, OSError) and is_remote(self._directory) else str(error)
        text = said.splitlines()[0][:200] if said else repr(error)
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        full = any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain)
        where = f"checkpoint {step} was not saved"
        if full or "RESOURCE_EXHAUSTED" in text or "No space left" in text:
            size = f" ({error.strerror})" if isinstance(error, OSError) else ""
            return SaveError(f"the disk of {self._directory} is full{size}: {where}; make room")
        return SaveError(f"{where} in {self._directory}: {text}")

    def close(self) -> None:
        # A save still runs only where an error ends the run: that one is to be heard, not what becomes of the save.
        with contextlib.suppress(OSError, ValueError, RuntimeError), reaching(self._directory):
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
          JaxftError: other names, shapes or dtypes than `target`'s, or a checkpoint that cannot be read.
        """
        parts = items_of(target)
        self._check(step, parts, dtypes=True)
        found = self._restore(step, {name: ocp.args.StandardRestore(part) for name, part in parts.items()})
        clock = found["clock"]
        return dataclasses.replace(target, **clock, **{name: found[name] for name in parts if name != "clock"})

    def restore_weights(self, step: int, params: Any, model_state: Any) -> tuple[Any, Any]:
        """Restores what a prediction needs: parameters and statistics, averaged ones where there are.

        Args:
          step: which checkpoint.
          params, model_state: abstract trees with the shardings wanted.

        Raises:
          JaxftError: the checkpoint is damaged, or of another network.
        """
        self.check(step)
        parts = {"params": params, "model_state": model_state}
        parts = {name: part for name, part in parts.items() if jax.tree.leaves(part)}
        self._check(step, parts, dtypes=False)  # frozen kernels may be kept in bfloat16
        found = self._restore(step, {name: ocp.args.StandardRestore(part) for name, part in parts.items()})
        restored, statistics = found["params"], found.get("model_state", model_state)
        averaged = _item(self._metadata(step), "ema")
        if averaged is None:
            return restored, statistics
        flat = tree.flatten({"params": params, "model_state": model_state})
        wanted = tree.unflatten({path: flat[path] for path in tree.flatten(averaged.tree) if path in flat})
        self._check(step, {"ema": wanted}, dtypes=False)
        return with_averages(restored, statistics, self._restore(step, {"ema": ocp.args.StandardRestore(wanted)})["ema"])

    def _check(self, step: int, parts: dict[str, Any], *, dtypes: bool) -> None:
        """Compares trees before any array is read, so that a mismatch is a readable line. Orbax casts dtypes without one."""
        metadata = self._metadata(step)
        for name, part in parts.items():
            item = _item(metadata, name)
            if item is not None and (found := difference(name, part, item.tree, dtypes=dtypes)):
                raise JaxftError(f"checkpoint {step} in {self._directory} is of {found}{self._hint(step)}")

    def _metadata(self, step: int) -> Any:
        with self._readable(step):
            if not is_remote(self._directory) or jax.process_count() == 1:
                return self._manager.item_metadata(step)
            # In all processes but the first Orbax takes items it has saved in a bucket for unfinished ever after.
            options = ocp.CheckpointManagerOptions(create=False, read_only=True, multiprocessing_options=_processes())
            with ocp.CheckpointManager(self._directory, item_handlers=_handlers(), options=options) as reader:
                return reader.item_metadata(step)

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
            raise JaxftError(f"checkpoint {step} in {self._directory} cannot be read ({reason}){self._hint(step)}") from error

    def _hint(self, step: int) -> str:
        others = [other for other in self.steps() if other != step]
        return f"; step {others[-1]} is kept too: {self._directory / str(others[-1])}" if others else ""


def _handlers() -> dict[str, Any]:
    """Handlers, not only names: else a manager that has saved nothing gives no metadata, and nothing could be checked."""
    return {**{name: ocp.StandardCheckpointHandler() for name in ITEMS}, "meta": ocp.JsonCheckpointHandler()}


def _processes() -> Any:
    """Barriers between processes through the distributed runtime: Orbax's collectives would not end with a lost process."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    everyone = set(range(jax.process_count()))
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes=everyone, barrier_sync_key_prefix="jaxft")


def _item(metadata: Any, name: str) -> Any:
    """An item's metadata; None where the checkpoint has no such item."""
    return metadata[name] if name in metadata.keys() else None  # noqa: SIM118 - not a mapping, it only has keys
