"""Kills runs with SIGKILL again and again, lets them go on, and compares what they end with to a run that nothing happened to.

Everything random is on: augmentation, dropout, stochastic depth; and BatchNorm, averages, accumulation, early stopping. Each
life of a run ends at a moment that is drawn from its progress, not from the clock:

  step    inside the n-th computation of the loss, on the device
  line    some milliseconds after the n-th new line of its log
  save    when the n-th file of a checkpoint that is being written appears
  start   some milliseconds after the process began

A run is whole if parameters, optimizer state, statistics, averages and clock of its last checkpoint, and the bytes of its
metric log, are those of the unbroken run, and no life ended otherwise than by SIGKILL or well. Needs nothing but jaxft:

  python scripts/kill_campaign.py --kills 500 --lanes 2 --result docs/kills.json
  python scripts/kill_campaign.py --minutes 3 --lanes 2        # as CI does
"""

import argparse
import collections
import datetime
import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import queue
import random
import re
import shutil
import signal
import sys
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAXFT_HEAP"] = "off"

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "run")]

from tiny_run import draw_folder, write_recipe  # noqa: E402

import jaxft.run  # noqa: E402, F401 - imported once, before every life is forked off; no backend is started
from jaxft.cli.main import main as jaxft_main  # noqa: E402

INTERVAL = 2  # steps between checkpoints
SETTINGS = (
    "--config.loss.name=kill_loss:loss",
    "--config.model.dropout=0.1",
    f"--config.train.checkpoint_every={INTERVAL} steps",
    "--config.train.log_every=1 steps",
    "--config.train.eval_every=4 steps",
    "--config.train.patience=2",
    "--config.phases.phase1.length=6 steps",
    "--config.phases.phase2.length=30 steps",
)
#: How often each kind is drawn.
KINDS = {"step": 4, "line": 3, "save": 4, "start": 1}
#: A life that is left alone.
NONE = "none"
#: Losses a step: one for each microbatch.
LOSSES = 2


def life(recipe, workdir, output, kill_after):
    """Forks a process that trains as `jaxft train` does; returns its id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # The program with the counter in it is the same in all lives; in most it never comes to that number.
    os.environ["KILL_AFTER"] = str(kill_after or 10**9)
    code = 1
    try:
        code = jaxft_main(["train", f"--config={recipe}", f"--workdir={workdir}", *SETTINGS])
        sys.stdout.flush()
    finally:
        os._exit(code)


def steps_logged(workdir):
    """How many lines the metric log has, and the step of the last whole one."""
    try:
        lines = (workdir / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        return 0, 0
    return len(lines), json.loads(lines[-1])["step"] if lines else 0


def files_of_a_save(workdir):
    """How many files of a checkpoint under way there are; 0 where none is."""
    try:
        begun = [path for path in (workdir / "checkpoints").iterdir() if ".orbax-checkpoint-tmp" in path.name]
        return sum(len(files) for folder in begun for _, _, files in os.walk(folder))
    except OSError:
        return 0


def newest_checkpoint(workdir):
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def live(recipe, workdir, kind, rng):
    """One life; returns whether it was killed, and its exit status."""
    before, begun = steps_logged(workdir)[0], time.monotonic()
    child = life(recipe, workdir, output_of(workdir), rng.randint(1, 5 * LOSSES) if kind == "step" else 0)
    wanted = rng.randint(1, {"line": 6, "save": 40}.get(kind, 1))
    delay = rng.uniform(0, {"line": 0.2, "start": 4.0}.get(kind, 0.0))
    due = begun + delay if kind == "start" else None
    killed = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return killed or (kind == "step" and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), status
        if due is None and (
            (kind == "line" and steps_logged(workdir)[0] >= before + wanted)
            or (kind == "save" and files_of_a_save(workdir) >= wanted)
        ):
            due = time.monotonic() + delay
        if due is not None and not killed and time.monotonic() >= due:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.001)


def output_of(workdir):
    return workdir.with_name(f"{workdir.name}.txt")


def contents(workdir):
    """Hashes of all that a finished run has. It reads with JAX: a process that forks calls it in one of its own."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    newest, log = newest_checkpoint(workdir), workdir / "metrics.jsonl"
    found = {"step": newest, "log": hashlib.sha256(log.read_bytes()).hexdigest() if log.exists() else None}
    for item in ("clock", "params", "model_state", "opt_state", "ema"):
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore((workdir / "checkpoints" / str(newest) / item).absolute())
        total = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]:
            array = np.asarray(leaf)
            total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        found[item] = total.hexdigest()
    return found


def digest_of(workdir):
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=lambda: there.send(contents(workdir)))
    process.start()
    found = here.recv() if here.poll(120) else None
    process.join()
    return found


def lane(number, recipe, base, expected, seed, results, over):
    """Runs, one after the other, until it is over."""
    rng = random.Random(f"{seed}/{number}")
    for run in itertools.count():
        if over.value:
            return
        workdir = base / f"lane{number}-run{run}"
        lost, killed, status, said = [], True, 0, 0
        while killed:
            kind = NONE if over.value else rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
            reached = steps_logged(workdir)[1]
            killed, status = live(recipe, workdir, kind, rng)
            text = output_of(workdir).read_text()[said:]
            said += len(text)
            resumed = re.search(r"^resuming at step (\d+)", text, re.M)
            if re.search(r"^phase\d: ", text, re.M):  # it came so far that it trained
                lost.append(max(reached - int(resumed[1] if resumed else 0), 0))
            if killed:
                results.put({"kind": kind})
        whole = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 and digest_of(workdir) == expected
        results.put({"run": workdir.name, "whole": whole, "lost": max(lost, default=0)})
        if whole:
            shutil.rmtree(workdir)
            output_of(workdir).unlink()
        else:
            print(f"{workdir} is not whole:\n{output_of(workdir).read_text()[-3000:]}", flush=True)
            over.value = True


def campaign(base, kills, minutes, lanes, seed):
    """Kills until there were `kills`, or for `minutes`; returns the figures."""
    recipe = write_recipe(base / "tiny.py", draw_folder(base / "photos"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(base / "cache")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    begun = time.monotonic()
    _, status = live(recipe, base / "unbroken", NONE, random.Random(0))
    text = output_of(base / "unbroken").read_text()
    if status or "stops early" not in text:
        sys.exit(f"the run that nothing happens to does not end as it should:\n{text[-3000:]}")
    expected = digest_of(base / "unbroken")
    results, over = multiprocessing.Queue(), multiprocessing.Value("b", False)
    workers = [
        multiprocessing.get_context("fork").Process(target=lane, args=(n, recipe, base, expected, seed, results, over))
        for n in range(lanes)
    ]
    for worker in workers:
        worker.start()
    counts, runs = collections.Counter(), []
    while any(worker.is_alive() for worker in workers) or not results.empty():
        try:
            found = results.get(timeout=1)
        except queue.Empty:
            found = {}
        if "kind" in found:
            counts[found["kind"]] += 1
        elif found:
            runs.append(found)
            print(f"{found['run']}: {'whole' if found['whole'] else 'NOT WHOLE'}; kills so far {dict(counts)}", flush=True)
        if (kills and counts.total() >= kills) or (minutes and time.monotonic() - begun >= 60 * minutes):
            over.value = True
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint")},
        "seed": seed,
        "kills": dict(counts) | {"all": counts.total()},
        "runs": len(runs),
        "whole": sum(run["whole"] for run in runs),
        "save_interval": INTERVAL,
        "most_steps_lost": max((run["lost"] for run in runs), default=0),
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="how many at least")
    parser.add_argument("--minutes", type=float, default=0, help="instead: for how long; runs under way then end")
    parser.add_argument("--lanes", type=int, default=2, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=pathlib.Path, help="a JSON file for the figures")
    options = parser.parse_args()
    if not options.kills and not options.minutes:
        parser.error("give --kills or --minutes")
    with tempfile.TemporaryDirectory(prefix="jaxft-kills-") as folder:
        found = campaign(pathlib.Path(folder), options.kills, options.minutes, options.lanes, options.seed)
    print(json.dumps(found, indent=2))
    if options.result:
        options.result.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if found["runs"] and found["whole"] == found["runs"] else 1)


if __name__ == "__main__":
    main()
