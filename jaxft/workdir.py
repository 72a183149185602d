"""The folder of a run: what it holds, how it is opened for training, how a fine-tuned network is loaded from it.

config.json        the configuration the run was started with
.lock              held by the program that writes here (in a bucket: its name, see `jaxft.owner`)
splits.json        which file is in which split, where the split is ours
metrics.jsonl      training, validation and test figures by step; timing.jsonl the wall clock
tensorboard/       the same for TensorBoard
checkpoints/N/     the newest and the best; each says in its own record how to load it
report.md, report.json, predictions.csv, samples.png    once the run has finished
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from jaxft.adapter_file import is_adapter, load_adapter
from jaxft.adapters import with_adapter
from jaxft.checkpoint import Checkpoints
from jaxft.config import differences, to_json
from jaxft.data import Splits, write_manifest
from jaxft.errors import JaxftError
from jaxft.files import write_whole
from jaxft.finetuned import FineTuned
from jaxft.heap import keep_heap
from jaxft.models import build
from jaxft.owner import Owner
from jaxft.parallel import everyone, from_first, make_mesh, replicated
from jaxft.paths import is_remote, make_folder, open_path, reaching
from jaxft.preprocessing import Preprocessing


class Folder:
    """The folder of a run while it goes: of this program alone. Made by `open_workdir`.

    Attributes:
      manifest: the list of splits of the run that is to be continued; None where there is none.
      taken: a line about another run that this one takes the folder from; "" where there is none.
    """

    def __init__(self, workdir: Path) -> None:
        self.manifest: Path | None = None
        self._workdir = workdir
        file = workdir / ".lock"
        self._lock: FileLock | Owner = Owner(file) if is_remote(workdir) else FileLock(file, timeout=0)

    @property
    def taken(self) -> str:
        return self._lock.before if isinstance(self._lock, Owner) else ""

    def is_ours(self) -> bool:
        """Whether this run may still write. Only in a bucket another one can take the folder; the first process is asked."""
        return not isinstance(self._lock, Owner) or self._lock.is_ours()

    def check_ours(self) -> None:
        """Raises JaxftError in all processes where `is_ours` found that another run has the folder."""
        if from_first(lambda: isinstance(self._lock, Owner) and self._lock.lost):
            raise JaxftError(
                f"another run was started in {self._workdir} and has taken it over: this one ends, and writes no more"
            )

    def lock(self) -> None:
        """Takes the folder for this program; the system gives it back when the program ends, however it ends.

        Raises:
          JaxftError: another program has it.
        """
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire()
        except Timeout:
            raise JaxftError(
                f"another run is writing to {self._workdir}: wait for its end, or give another --workdir"
            ) from None
        except NotImplementedError as error:
            raise JaxftError(f"{self._workdir} cannot be locked ({error}): give a --workdir on another file system") from error

    def claim(self, config: ConfigDict, splits: Splits) -> None:
        """Makes the folder and writes splits and config into it: from now on it holds a run. The first process does it.

        Raises:
          JaxftError: the folder cannot be written, or another run was quicker.
        """
        from_first(lambda: self._claim(config, splits))
        with reaching(self._workdir):
            there = (self._workdir / "config.json").exists()
        if not everyone(there):
            raise JaxftError(f"{self._workdir} must lie on a file system that all processes share; for some it is not there")

    def _claim(self, config: ConfigDict, splits: Splits) -> None:
        try:
            make_folder(self._workdir)
            _check(self._workdir, config)  # nothing is taken from a run of another config
            self.lock()
            _check(self._workdir, config)  # another one may have been quicker
            if splits.ours:
                write_manifest(self._workdir / "splits.json", splits.ours, splits.settings)
            write_whole(self._workdir / "config.json", to_json(config) + "\n")
        except OSError as error:
            raise JaxftError(f"cannot use {self._workdir} as workdir: {error.strerror}") from error

    def open(self, config: ConfigDict) -> str | None:
        try:
            with reaching(self._workdir):
                if not (self._workdir / "config.json").exists():
                    return None
            _check(self._workdir, config)
            self.lock()
        except OSError as error:
            raise JaxftError(f"cannot use {self._workdir} as workdir: {error.strerror}") from error
        file = splits_file(self._workdir)
        return None if file is None else str(file)

    def close(self) -> None:
        self._lock.release()


@contextlib.contextmanager
def open_workdir(workdir: Path, config: ConfigDict) -> Iterator[Folder]:
    """Makes sure that a run of `config` may use the folder; writes nothing where there is no run yet.

    Raises:
      JaxftError: it holds a run of another config, or another program is writing to it.
    """
    folder = Folder(workdir)
    try:
        manifest = from_first(lambda: folder.open(config))
        folder.manifest = None if manifest is None else open_path(manifest)
        yield folder
    finally:
        folder.close()


def _check(workdir: Path, config: ConfigDict) -> None:
    config_file = workdir / "config.json"
    try:
        with reaching(config_file):
            content = config_file.read_text()
        changed = differences(json.loads(content), json.loads(to_json(config)))
    except FileNotFoundError:
        return
    except OSError as error:
        raise JaxftError(f"cannot use {workdir} as workdir: {error}") from error
    except ValueError as error:
        raise JaxftError(
            f"{config_file} is damaged ({error}): give another --workdir, or remove it to go on with this config"
        ) from error
    if changed:
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise JaxftError(f"{workdir} holds a run of another config: {'; '.join(changed[:3])}{more}; give another --workdir")


def splits_file(workdir: Path) -> Path | None:
    """The run's list of splits, where they were made by us."""
    file = workdir / "splits.json"
    with reaching(file):
        return file if file.exists() else None


def workdir_of(path: str | Path) -> Path:
    """The workdir of what `load_run` takes: itself, its `checkpoints` folder, or one checkpoint in it."""
    path = open_path(path)
    if path.name.isdigit() and path.parent.name == "checkpoints":
        path = path.parent
    return path.parent if path.name == "checkpoints" else path


def load_run(path: str | Path, *, step: int | None = None) -> FineTuned:
    """Loads a fine-tuned network; nothing but the folder is needed.

    Args:
      path: a workdir, its `checkpoints` folder, or one checkpoint in it; a folder or `gs://BUCKET/FOLDER`. Or an adapter: a
        file of `jaxft export --to=adapter`, or a folder of PEFT's.
      step: which checkpoint; None is the best (the newest where none was judged yet).

    Raises:
      JaxftError: no checkpoint there, or a damaged one.
    """
    keep_heap()
    if is_adapter(path):
        return load_adapter(path)
    path = open_path(path)
    if path.name.isdigit() and path.parent.name == "checkpoints":
        path, step = path.parent, int(path.name)
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    with reaching(directory):
        there = directory.is_dir()
    if not there:
        raise JaxftError(f"no run in {path}: a workdir of `jaxft train` has a folder 'checkpoints'")
    checkpoints = Checkpoints(directory, read_only=True)
    try:
        newest = checkpoints.newest()
        if newest is None:
            raise JaxftError(f"{directory} has no complete checkpoint yet")
        if step is not None and step not in checkpoints.steps():
            raise JaxftError(f"{directory} has no checkpoint {step}, only {checkpoints.steps()}")
        if step is None:
            checkpoints.check(newest)  # its record says which is the best
        chosen = step if step is not None else checkpoints.meta(newest)["standing"]["best_step"] or newest
        record = checkpoints.meta(chosen)["run"]
        preprocessing = Preprocessing.from_json(record["preprocessing"])
        model = dataclasses.replace(build(**record["model"], size=preprocessing.size), preprocessing=preprocessing)
        if adapter := record.get("adapter"):
            model = with_adapter(model, adapter["name"], **adapter["options"])
        sharding = replicated(make_mesh())
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            model.shapes,
        )
        params, model_state = checkpoints.restore_weights(chosen, *abstract)
    finally:
        checkpoints.close()
    return FineTuned(model, params, model_state, tuple(record["class_names"]), record["task"], chosen, record)
