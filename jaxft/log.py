"""What a run writes while it goes: metrics.jsonl (exact, resumable), timing.jsonl (wall clock), TensorBoard, Weights & Biases.

`metrics.jsonl` holds only what is a function of (config, seed, step), so that a run that was killed and continued leaves the
same bytes as one that was not; whatever depends on the clock goes to `timing.jsonl`.

Nothing can be appended to an object in a bucket: there each log is written whole, before each checkpoint and once a minute.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxft.errors import JaxftError
from jaxft.files import write_whole
from jaxft.paths import is_remote, reaching

#: Seconds after which logs in a bucket are written even where no checkpoint is due.
_OFTEN = 60


class ScalarWriter(Protocol):
    """Something that takes scalars by step."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line, `step` first. Lines after `resume_step` are cut off: those steps will be run again.

    A line that cannot be written is kept and written with the next. In a bucket all are kept until `flush`.
    """

    def __init__(self, path: Path, resume_step: int | None = None, say: Callable[[str], None] = print):
        with reaching(path):
            there = resume_step is not None and path.exists()
            # What is no text is said as a line that is no line of a log.
            lines = path.read_bytes().decode(errors="replace").splitlines() if there else []
        if resume_step and not there:
            say(f"WARNING: {path} is gone: it begins anew after step {resume_step}")
        kept = [line for line in lines if _step_of(line, path) <= (resume_step or 0)]
        self._written = "".join(line + "\n" for line in kept)
        write_whole(path, self._written)
        self._path, self._say, self._waiting, self._failing = path, say, b"", False
        self._last = kept[-1] if kept else ""  # a run that is started again at its end says its last line again
        self._file = None if is_remote(path) else path.open("ab", buffering=0)

    def write(self, step: int, **values: Any) -> None:
        line, last, self._last = json.dumps({"step": step, **values}), self._last, ""
        if line == last:
            return
        self._waiting += f"{line}\n".encode()
        if self._file is not None:
            self.flush()

    def flush(self) -> bool:
        """Writes what waits; returns whether that could be done."""
        try:
            if self._file is None and self._waiting:
                whole = self._written + self._waiting.decode()
                write_whole(self._path, whole)
                self._written, self._waiting = whole, b""
            elif self._file is not None and not os.fstat(self._file.fileno()).st_nlink:
                self._say(f"WARNING: {self._path} was removed: it begins anew")
                self._file.close()
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            # Of a line that is written half, the rest comes next time.
            while self._file is not None and self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not self._failing:
                self._say(f"WARNING: {self._path} cannot be written ({error.strerror}): its lines are kept for later")
            self._failing = True
        else:
            self._failing = False
        return not self._failing

    def close(self) -> None:
        """The last try on this computer; in a bucket only `flush` writes."""
        if self._file is not None:
            self._failing = False  # what cannot be written now is said again
            self.flush()
            self._file.close()


_BEGIN = '{"step"'


def _step_of(line: str, path: Path) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        # A kill can cut the last line short, anywhere; it belongs to a step that will be run again.
        if line.startswith(_BEGIN) or _BEGIN.startswith(line):
            return float("inf")
        raise JaxftError(f"{path} is not a metric log: {line[:60]!r}; move it away to go on") from None


class TensorBoard:
    """TensorBoard event files through tensorboardX: no TensorFlow."""

    def __init__(self, directory: Path, resume_step: int | None):
        from tensorboardX import SummaryWriter

        # Files are named by the second they are begun in: a quick resume must not write over what was there.
        self._writer = SummaryWriter(
            str(directory),
            purge_step=None if resume_step is None else resume_step + 1,
            filename_suffix="" if resume_step is None else f".resumed{resume_step}",
        )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class CluWriter:
    """clu's own TensorBoard writer, which needs TensorFlow (the `tf` extra)."""

    def __init__(self, directory: Path):
        from clu import metric_writers

        self._writer = metric_writers.SummaryWriter(str(directory))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._writer.write_scalars(step, dict(scalars))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Weights & Biases (the `tracking` extra). The run's id is kept in the workdir, so a resumed run stays one run."""

    def __init__(self, workdir: Path, project: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise JaxftError("config.log.wandb_project is set, but wandb is missing: pip install 'jaxft[tracking]'") from error
        id_file = workdir / "wandb_id"
        with reaching(id_file):
            known = id_file.read_text() if id_file.exists() else None
        folder = None if is_remote(workdir) else str(workdir)
        try:
            self._run = wandb.init(project=project, dir=folder, config=dict(config), id=known, resume="allow")
        except wandb.errors.Error as error:
            raise JaxftError(f"Weights & Biases does not start ({error}); WANDB_MODE=offline keeps it local") from error
        write_whole(id_file, self._run.id)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def flush(self) -> None:
        """It sends by itself."""

    def close(self) -> None:
        self._run.finish()


class RunLog:
    """All of a run's logs. With `resume_step` set, what was logged after that step is forgotten.

    Args:
      workdir: of the run; None: nothing is logged, as in all processes but the first.
      resume_step: the run goes on from there.
      tensorboard: write event files.
      wandb_project: of Weights & Biases; "" is none.
      config: is told to Weights & Biases.
      say: is given a line when a log cannot be written.
      is_ours: whether the workdir is this run's still; asked before logs in a bucket are written.
    """

    def __init__(
        self,
        workdir: Path | None,
        *,
        resume_step: int | None = None,
        tensorboard: bool = True,
        wandb_project: str = "",
        config: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = print,
        is_ours: Callable[[], bool] = lambda: True,
    ):
        self._files: dict[str, JsonLines] = {}
        self._writers: list[ScalarWriter] = []
        self._say, self._lost, self._is_ours = say, False, is_ours
        self._bucket: Path | None = None  # the workdir, where it lies in one
        self._events: tempfile.TemporaryDirectory[str] | None = None
        self._due = time.monotonic() + _OFTEN
        if workdir is None:
            return
        if is_remote(workdir):
            self._bucket = workdir
        self._files = {name: JsonLines(workdir / f"{name}.jsonl", resume_step, say) for name in ("metrics", "timing")}
        if tensorboard:
            whole = all(importlib.util.find_spec(name) is not None for name in ("tensorflow", "tensorboard"))
            directory = workdir / "tensorboard"
            if self._bucket is not None:  # event files grow: they are written here and copied
                self._events = tempfile.TemporaryDirectory(prefix="jaxft-tensorboard-")
                directory = Path(self._events.name)
            self._writers.append(CluWriter(directory) if whole else TensorBoard(directory, resume_step))
        if wandb_project:
            self._writers.append(WeightsAndBiases(workdir, wandb_project, config or {}))

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs `values` of `split` ("train", "val", "test") after `step` steps."""
        self._write("metrics", step, {"split": split, **values}, {f"{split}/{name}": value for name, value in values.items()})

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Logs what depends on the clock: images a second, share of time waiting for data."""
        self._write("timing", step, values, {f"timing/{name}": value for name, value in values.items()})

    def _write(self, name: str, step: int, line: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        if name in self._files:
            self._files[name].write(step, **line)
        for writer in self._writers:
            try:
                writer.write_scalars(step, scalars)
            except OSError as error:
                if not self._lost:
                    self._say(f"WARNING: {type(writer).__name__} cannot log ({error.strerror}); training goes on")
                self._lost = True
        if self._bucket is not None and time.monotonic() > self._due:
            self.flush()

    def flush(self) -> None:
        """Brings to a bucket what was logged; on a disk it is already.

        A try to reach a bucket that is away takes long: after one that fails, the next is made when this is called again.
        """
        if self._bucket is None:
            return
        well = self._is_ours() and all(file.flush() for file in self._files.values())
        well = well and self._copy_events(self._bucket / "tensorboard")
        self._due = time.monotonic() + _OFTEN if well else float("inf")

    def _copy_events(self, to: Path) -> bool:
        """Each start has event files of its own: nothing is read back."""
        if self._events is None:
            return True
        for writer in self._writers:
            writer.flush()
        try:
            for file in Path(self._events.name).iterdir():
                with reaching(to):
                    (to / file.name).write_bytes(file.read_bytes())
        except OSError as error:
            if not self._lost:
                self._say(f"WARNING: {to} cannot be written ({error.strerror}): it is copied later")
            self._lost = True
            return False
        return True

    def close(self) -> None:
        self.flush()
        for file in self._files.values():
            file.close()
        for writer in self._writers:
            writer.close()
        if self._events is not None:
            self._events.cleanup()
