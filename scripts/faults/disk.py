"""Disks that are full, read-only, limited; folders and outputs that go away."""

import functools
import pathlib
import shutil
import subprocess
import tempfile

from faults.stage import can, system
from faults.table import ITSELF, LOG_LOST, UNTOUCHED, fault


@functools.cache
def mounts():
    with tempfile.TemporaryDirectory() as folder:
        return can("mount", "-t", "tmpfs", "tmpfs", folder) and can("umount", folder)


@functools.cache
def immutable():
    with tempfile.TemporaryDirectory() as folder:
        return can("chattr", "+i", folder) and can("chattr", "-i", folder)


def limits():
    return can("prlimit", "--version")


@fault("a disk with room for no checkpoint", code=1, says="checkpoints is full (needs", needs=mounts)
def small_disk(stage):
    stage.mount("8m")
    stage.note()
    return stage.train(), lambda: system("mount", "-o", "remount,size=400m", stage.workdir)


@fault(
    "the disk fills up while a checkpoint is written; room again at step 8",
    code=0,
    says="is full (No space left on device): checkpoint",
    then=ITSELF,
    traceback=True,
    needs=mounts,
)
def full_in_a_save(stage):
    stage.mount("400m")
    life = stage.held(4)
    life.go()
    life.wait_for(stage.is_saving)
    stage.note()
    filler = stage.fill()
    life.go()
    life.hold_at(8)
    filler.unlink()
    life.go()
    return life.end(), None


@fault("the disk is full from step 4 on", code=1, says="checkpoints is full (needs", needs=mounts)
def full_for_good(stage):
    stage.mount("400m")
    life = stage.held(4)
    filler = stage.fill()
    life.go()
    return life.end(), filler.unlink


@fault("the folder of checkpoints is read-only from step 4 on", code=1, says="Read-only file system", needs=mounts)
def read_only_checkpoints(stage):
    life = stage.held(4)
    system("mount", "--bind", stage.checkpoints, stage.checkpoints)
    stage.cleanup.callback(subprocess.run, ["umount", "-l", str(stage.checkpoints)], check=False, stderr=subprocess.DEVNULL)
    system("mount", "-o", "remount,bind,ro", stage.checkpoints)
    life.go()
    return life.end(), lambda: system("umount", "-l", stage.checkpoints)


@fault(
    "nothing may be made in the folder of checkpoints (chattr +i) from step 4 to 8",
    code=0,
    says="Operation not permitted",
    then=ITSELF,
    needs=immutable,
)
def forbidden_folder(stage):
    life = stage.held(4)
    system("chattr", "+i", stage.checkpoints)
    stage.cleanup.callback(subprocess.run, ["chattr", "-i", str(stage.checkpoints)], check=False, stderr=subprocess.DEVNULL)
    life.go()
    life.hold_at(8)
    system("chattr", "-i", stage.checkpoints)
    life.go()
    return life.end(), None


@fault(
    "the workdir is on a disk that is read-only", code=2, says="as workdir: Read-only file system", then=UNTOUCHED, needs=mounts
)
def read_only_workdir(stage):
    stage.mount("400m")
    system("mount", "-o", "remount,ro", stage.workdir)
    return stage.refused()


@fault("the workdir is a file", code=2, says="as workdir: ", then=UNTOUCHED)
def workdir_is_a_file(stage):
    stage.workdir.write_text("x")
    return stage.refused()


@fault(
    "no file may be longer than 1 MB (RLIMIT_FSIZE)",
    code=1,
    says="was not saved in WORKDIR/checkpoints: OUT_OF_RANGE",
    traceback=True,
    needs=limits,
)
def short_files(stage):
    stage.begin()
    return stage.train(prefix=("prlimit", "--fsize=1000000")), None


@fault(
    "no file may grow, neither a checkpoint's nor the log, from step 4 to 8",
    code=0,
    says="its lines are kept for later",
    then=ITSELF,
    traceback=True,
    needs=limits,
)
def short_log(stage):
    life = stage.held(4)
    system("prlimit", "--pid", life.process.pid, "--fsize=100:")
    life.go()
    life.hold_at(8)
    system("prlimit", "--pid", life.process.pid, "--fsize=unlimited:")
    life.go()
    return life.end(), None


@fault("the process may open only 24 files (RLIMIT_NOFILE)", code=1, says="Too many open files", needs=limits, traceback=True)
def few_files(stage):
    stage.begin()
    return stage.train(prefix=("prlimit", "--nofile=24")), None


@fault("the folder of checkpoints is removed at step 4", code=0, says="step 12/12", then=ITSELF)
def checkpoints_vanish(stage):
    life = stage.held(4)
    shutil.rmtree(stage.checkpoints)
    life.go()
    return life.end(), None


@fault("the whole workdir is removed at step 4", code=0, says="metrics.jsonl was removed: it begins anew", then=LOG_LOST)
def workdir_vanishes(stage):
    life = stage.held(4)
    shutil.rmtree(stage.workdir)
    life.go()
    return life.end(), None


@fault("whoever reads the output stops after a line (jaxft train | head -1)", code=0, says="", then=ITSELF)
def closed_output(stage):
    stage.note()
    reader = subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    life = stage.start(output=reader.stdin)
    reader.stdin.close()
    ended = life.end()
    reader.wait()
    return ended, None


@fault("the output goes to a full disk (/dev/full)", code=0, says="", then=ITSELF, needs=pathlib.Path("/dev/full").exists)
def full_output(stage):
    stage.note()
    with open("/dev/full", "w") as full:
        return stage.train(output=full), None
