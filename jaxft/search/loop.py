"""A search over keys of a config: every trial is an ordinary run, and they are compared by their validation figure alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from jaxft.config import check_config, differences, to_json
from jaxft.errors import JaxftError, SaveError, near
from jaxft.files import write_whole
from jaxft.paths import is_remote, open_path
from jaxft.search import study as kept
from jaxft.search.process import Ended, Stopping, run_trial
from jaxft.search.result import Sweep, trial_folder
from jaxft.search.space import Space, draw, parse_search, with_overrides

METHODS = ("random", "asha")
#: So many trials that fail before their first evaluation, and no other, are no chance.
_HOPELESS = 3
#: Seconds in which a trial that was told to stop has saved and is gone.
_PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class _Search:
    """What all trials of a sweep share."""

    config: ConfigDict
    workdir: Path
    settings: dict[str, Any]
    spaces: dict[str, Space]
    study: Any
    most: int
    say: Callable[[str], None]
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    stopping: Stopping = dataclasses.field(default_factory=Stopping)

    def read(self, status: str) -> Sweep:
        trials = kept.read_trials(self.study, self.spaces, self.settings["seed"])
        return Sweep(status, self.workdir, self.settings, trials)


def sweep(
    config: ConfigDict,
    workdir: str | Path,
    search: Mapping[str, str] | Sequence[str],
    *,
    trials: int = 20,
    method: str = "random",
    jobs: int = 1,
    seed: int = 0,
    reduction_factor: int = 4,
    say: Callable[[str], None] = print,
) -> Sweep:
    """Searches over keys of a config, or goes on with a search that was begun in `workdir`.

        jaxft.sweep(config, "runs/search", {"config.optim.lr": "log(1e-5, 1e-2)"})

    A trial is a run in a process of its own, in `workdir/trials/NNN`. Its figure is that of `config.train.monitor` on the
    validation split, of its best checkpoint; the test split stays closed in all of them. Its values are a function of (seed,
    number, key): with one job a search is the same again, also one that was killed in between.

    Args:
      config: what all trials share.
      workdir: a folder on this computer; a search in it goes on, its finished trials are kept, `trials` may be more.
      search: key -> values, or "KEY=VALUES" each; see `jaxft.search.space.parse_search`.
      trials: how many, those of before included.
      method: "random", or "asha" (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020): after 1,
        `reduction_factor`, `reduction_factor`^2, ... evaluations a trial is stopped that is not in the best 1 /
        `reduction_factor` of those that came so far; Optuna's SuccessiveHalvingPruner.
      jobs: trials at a time. Each sees all devices.
      seed: of the values.
      reduction_factor: of "asha".
      say: is given a line when a trial begins and ends.

    Raises:
      JaxftError: something given does not fit, or the first three trials all fail.
      SaveError: a trial could not be saved.
    """
    check_config(config)
    if method not in METHODS:
        raise JaxftError(f"no method of a sweep is called '{method}'{near(method, METHODS)}; there are {', '.join(METHODS)}")
    for name, value, least in (
        ("trials", trials, 1),
        ("jobs", jobs, 1),
        ("seed", seed, 0),
        ("reduction_factor", reduction_factor, 2),
    ):
        if value < least:
            raise JaxftError(f"{name} is {value}: it must be at least {least}")
    spaces = parse_search(search, config)
    kept.import_optuna()
    folder = open_path(workdir)
    if is_remote(folder):
        raise JaxftError(f"a sweep is kept in a folder of this computer, not in {folder}")
    settings = {
        "search": {key: str(space) for key, space in spaces.items()},
        "method": method,
        "seed": seed,
        "reduction_factor": reduction_factor,
        "monitor": config.train.monitor,
        "mode": config.train.mode,
        "config": json.loads(to_json(config)),
    }
    with _locked(folder, settings):
        study = kept.open_study(
            folder / "journal.log", method=method, mode=config.train.mode, reduction_factor=reduction_factor
        )
        shared = _Search(config, folder, settings, spaces, study, trials, say)
        with _signals(shared.stopping):
            _run_all(shared, jobs)
        _check_hopeless(shared)
        found = shared.read("interrupted" if shared.stopping.asked.is_set() else "finished")
        write_whole(folder / "sweep.json", found.to_json())
    return found


def _run_all(shared: _Search, jobs: int) -> None:
    begun = kept.unfinished(shared.study)

    def work() -> None:
        while not shared.stopping.asked.is_set():
            with shared.lock:
                _check_hopeless(shared)
                drawn = (shared.study, shared.spaces, shared.settings["seed"], shared.most)
                trial = begun.pop(0) if begun else kept.next_trial(*drawn)
            if trial is None:
                return
            _run_one(shared, trial)
            with shared.lock:
                write_whole(shared.workdir / "sweep.json", shared.read("").to_json())

    with ThreadPoolExecutor(jobs, thread_name_prefix="jaxft-sweep") as pool:
        done, _ = wait([pool.submit(work) for _ in range(jobs)], return_when=FIRST_EXCEPTION)
        for error in filter(None, (future.exception() for future in done)):
            shared.stopping.asked.set()  # the other jobs' trials are saved
            raise error


def _run_one(shared: _Search, trial: Any) -> None:
    values = draw(shared.spaces, shared.settings["seed"], trial.number)
    name, monitor = f"trial {trial.number:03d}", shared.settings["monitor"]
    shared.say("  ".join([name, *(f"{key.removeprefix('config.')}={value}" for key, value in values.items())]))

    def go_on(step: int, figures: Mapping[str, float]) -> bool:
        return kept.report(trial, step, figures[monitor])

    folder = trial_folder(shared.workdir, trial.number)
    _wait_for(folder)
    for step, figure in _evaluations(folder / "metrics.jsonl", monitor):
        kept.report(trial, step, figure)
    ended = Ended()
    if not kept.is_to_be_pruned(trial):
        log = shared.workdir / "logs" / f"{trial.number:03d}.txt"
        config = with_overrides(shared.config, values)
        ended = run_trial(config, folder, log, go_on=go_on, stopping=shared.stopping)
    if ended.saving:
        raise SaveError(f"{name}: {ended.error}; the same command goes on with it")
    if ended.error:
        kept.fail(shared.study, trial, ended.error)
        shared.say(f"{name} failed: {ended.error}")
    elif ended.best_step is not None:
        kept.finish(shared.study, trial, ended.figures[monitor], ended.best_step)
        shared.say(f"{name} finished: {monitor} {ended.figures[monitor]:.4f} at step {ended.best_step}")
    elif kept.is_to_be_pruned(trial):
        kept.prune(shared.study, trial)
        shared.say(f"{name} pruned after {len(trial.user_attrs['steps'])} evaluations")
    else:
        shared.say(f"{name} stopped; everything is saved")


def _wait_for(folder: Path) -> None:
    """Until a process of the same trial, left behind by a sweep that was killed, has saved and is gone: it may still judge.

    Raises:
      JaxftError: it does not end.
    """
    if not folder.exists():
        return
    try:
        with FileLock(folder / ".lock", timeout=_PATIENCE):
            return
    except Timeout:
        raise JaxftError(f"another run is writing to {folder}: wait for its end, then start the sweep again") from None


def _evaluations(file: Path, monitor: str) -> list[tuple[int, float]]:
    """The evaluations that a trial made before, [(step, figure)]: a sweep that was killed may not have heard of the last."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):  # cut short by a kill: it is made again
            figures = json.loads(line)
            if figures["split"] == "val":
                found.append((figures["step"], figures[monitor]))
    return found


def _check_hopeless(shared: _Search) -> None:
    """Raises JaxftError where the first trials failed, all of them, before they were judged once."""
    ended = [trial for trial in shared.read("").trials if trial.state != "unfinished"]
    if len(ended) >= min(_HOPELESS, shared.most) and all(trial.state == "failed" and not trial.evaluations for trial in ended):
        raise JaxftError(
            f"the first {len(ended)} trials failed before they were judged, the last of them: {ended[-1].error}; mend that and "
            "give another --workdir"
        )


@contextlib.contextmanager
def _locked(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """The folder is this sweep's alone, and holds no other's.

    Raises:
      JaxftError: it is not, or cannot be written.
    """
    lock, file = FileLock(folder / ".lock", timeout=0), folder / "sweep.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise JaxftError(f"another sweep is going on in {folder}: wait for its end, or give another --workdir") from None
    except OSError as error:
        raise JaxftError(f"cannot use {folder} as workdir: {error.strerror}") from error
    try:
        if file.exists():
            _check_same(file, settings)
        else:
            write_whole(file, Sweep("", folder, dict(settings), ()).to_json())
        yield
    finally:
        lock.release()


def _check_same(file: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = json.loads(file.read_text())
        was = {key: before[key] for key in settings}
    except (ValueError, KeyError, TypeError) as error:
        raise JaxftError(f"{file} is damaged ({error}): give another --workdir") from error
    changed = differences(was.pop("config"), settings["config"])
    changed += [f"{key} was {was[key]}, is {settings[key]}" for key in was if was[key] != settings[key]]
    if changed:
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise JaxftError(f"{file.parent} holds another sweep: {'; '.join(changed[:3])}{more}; give another --workdir")


@contextlib.contextmanager
def _signals(stopping: Stopping) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM has the trials saved and the sweep ended; a second one does not wait for that."""

    def handle(number: int, frame: FrameType | None) -> None:
        (stopping.at_once if stopping.asked.is_set() else stopping.asked).set()

    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers there
        yield
        return
    caught = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
