"""Where a fault is tried: a folder with pictures, a recipe and a workdir, and the real command run in it."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from tiny_run import draw_folder, write_recipe

from jaxft.manifest import find_damage

ROOT = pathlib.Path(__file__).parent.parent.parent
STEPS = 12
SETTINGS = (
    "--config.loss.name=fault_loss:loss",
    "--config.train.accum_steps=1",
    "--config.train.log_every=1 steps",
    "--config.train.checkpoint_every=2 steps",
    "--config.train.eval_every=6 steps",
    f"--config.phases.phase1.length={STEPS} steps",
    "--config.phases.phase2.length=0 steps",
    "--config.parallel.lost_after=15",
)
#: Seconds after which a run that neither ends nor says what is waited for is a finding.
PATIENCE = 400
#: What Orbax writes after the hashes were taken.
LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended and what it said: `code` as a shell shows it, 128 and the signal's number for a signal."""

    code: int
    lines: tuple[str, ...]


class Life:
    """A process of `jaxft train`, its output read line by line."""

    def __init__(self, command, folder, variables, output):
        options = {"cwd": folder, "env": variables, "stderr": subprocess.STDOUT if output is None else subprocess.PIPE}
        self.process = subprocess.Popen(command, stdout=output or subprocess.PIPE, text=True, **options)
        self.lines = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout or self.process.stderr)

    def wait_for(self, seen):
        """Waits until `seen()`, and holds the process there (SIGSTOP); False where it ended first."""
        end = time.monotonic() + PATIENCE
        while not seen():
            if self.process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.001)
        self.process.send_signal(signal.SIGSTOP)
        return True

    def said(self, text):
        return any(text in line for line in list(self.lines))

    def hold_at(self, step):
        return self.wait_for(lambda: self.said(f"step {step}/"))

    def go(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.lines.append(f"(it did not end within {PATIENCE} s)")
            code = -signal.SIGKILL
        self._thread.join(60)
        return Ended(code if code >= 0 else 128 - code, tuple(self.lines))


class Stage:
    """A folder of its own for one fault.

    Attributes:
      workdir: of the run; absent at first.
      photos: the pictures.
      cleanup: what must be undone whatever happens (mounts, processes).
    """

    def __init__(self, folder, base, cleanup):
        self.folder, self.workdir, self.photos = folder, folder / "run", folder / "photos"
        self.cleanup, self._base = cleanup, base
        self.before, self.untouched = 0, False
        folder.mkdir(parents=True)
        shutil.copy(pathlib.Path(__file__).with_name("fault_loss.py"), folder)
        write_recipe(folder / "tiny.py", "photos")
        draw_folder(self.photos)

    @property
    def compiled(self):
        """Compiled steps, which all runs share."""
        return self._base / "cache"

    @property
    def checkpoints(self):
        return self.workdir / "checkpoints"

    def begin(self):
        """The workdir is that of a run that was stopped half way."""
        shutil.copytree(self._base / "begun" / "run", self.workdir)
        self.note()

    def note(self):
        """The fault comes now: what is whole at this moment."""
        self.before = self.newest_whole()

    def newest_whole(self):
        """The step of the newest checkpoint that is what was written; 0 where there is none."""
        names = [path.name for path in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        whole = [int(name) for name in names if name.isdigit() and not find_damage(self.checkpoints / name, later=LATER)]
        return max(whole, default=0)

    def start(self, *more, prefix=(), output=None, **variables):
        command = [sys.executable, "-m", "jaxft", "train", "--config=tiny.py", f"--workdir={self.workdir}", *SETTINGS, *more]
        given = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": str(self.compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **variables,
        }
        life = Life([*prefix, *command], self.folder, given, output)
        self.cleanup.callback(_put_down, life.process)
        return life

    def held(self, step, *more, **options):
        """Starts the command and holds it where it has logged `step` and has a checkpoint: the fault comes now."""
        life = self.start(*more, **options)
        life.wait_for(lambda: life.said(f"step {step}/") and self.has_checkpoint())
        self.note()
        return life

    def has_checkpoint(self):
        return self.checkpoints.is_dir() and any(path.name.isdigit() for path in self.checkpoints.iterdir())

    def is_saving(self):
        """Whether a checkpoint is being written."""
        return self.checkpoints.is_dir() and any(".orbax-checkpoint-tmp" in path.name for path in self.checkpoints.iterdir())

    def train(self, *more, **options):
        """Runs the command to its end."""
        return self.start(*more, **options).end()

    def refused(self, *more):
        """Gives the command, which is to end without having changed anything in the workdir."""
        self.note()
        before = self._files()
        ended = self.train(*more)
        self.untouched = self._files() == before
        return ended, None

    def _files(self):
        """What the workdir holds: names and hashes, but for the lock, which every run opens."""
        files = [path for path in (self.workdir, *self.workdir.rglob("*")) if path.is_file() and path.name != ".lock"]
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in files}

    def pair(self):
        """Two processes of one run."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
        return [self.start(**address, JAX_PROCESS_ID=str(index)) for index in range(2)]

    def mount(self, size):
        """The workdir is a file system of its own, of `size`, in memory."""
        self.workdir.mkdir()
        system("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.workdir)
        self.cleanup.callback(subprocess.run, ["umount", "-l", str(self.workdir)], check=False)

    def fill(self):
        """Fills the workdir's file system to the last byte; returns what has to go for room again."""
        filler = self.workdir / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        pass
        return filler

    def shown(self, line):
        """A line without what is this place's and this moment's alone."""
        line = re.sub(rf"{re.escape(str(self.workdir))}\b", "WORKDIR", line)
        line = re.sub(rf"{re.escape(str(self._base))}\S*", "PATH", line)
        return re.sub(r"127\.0\.0\.1:\d+", "HOST:PORT", " ".join(line.split()))


def system(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def can(*command):
    """Whether this machine lets us run a command."""
    try:
        system(*command)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _put_down(process):
    if process.poll() is None:
        process.kill()
        process.wait()
