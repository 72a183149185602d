"""Numbers that are none, losses that fail, signals, lost processes, clocks, memory."""

import functools
import pathlib
import shutil
import signal
import subprocess
import tempfile

from faults.stage import can
from faults.table import FINITE, ITSELF, fault

POLICY = "--config.train.nonfinite={}"


@fault("NaN at step 5, nonfinite=stop", code=2, says="step 5 is not finite: the loss")
def nan_stops(stage):
    return stage.train(FAULT="nan@5"), None


@fault("Inf at step 5, nonfinite=stop", code=2, says="step 5 is not finite: the loss")
def inf_stops(stage):
    return stage.train(FAULT="inf@5"), None


@fault("NaN at step 5, nonfinite=skip", code=0, says="it is skipped", then=FINITE)
def nan_skipped(stage):
    return stage.train(POLICY.format("skip"), FAULT="nan@5"), None


@fault("NaN at step 5, nonfinite=rollback", code=0, says="going back to the newest checkpoint", then=FINITE)
def nan_rolled_back(stage):
    return stage.train(POLICY.format("rollback"), FAULT="nan@5"), None


@fault("NaN at step 1, nonfinite=rollback, nothing to go back to", code=2, says="there is no checkpoint to go back to")
def nan_at_once(stage):
    ended = stage.train(POLICY.format("rollback"), FAULT="nan@1")
    return ended, lambda: shutil.rmtree(stage.workdir)


@fault("the user's loss raises at step 5", code=1, says="the loss of a user failed at this step", traceback=True)
def loss_raises(stage):
    return stage.train(FAULT="raise@5"), None


@fault("SIGTERM", code=75, says="everything is saved: the same command goes on from there")
def terminated(stage):
    return signalled(stage, signal.SIGTERM)


@fault("SIGTERM twice", code=75, says="the same command goes on from there")
def terminated_twice(stage):
    life = stage.held(5)
    life.process.send_signal(signal.SIGTERM)
    life.go()
    life.process.send_signal(signal.SIGTERM)
    return life.end(), None


@fault("the terminal is closed (SIGHUP)", code=75, says="everything is saved: the same command goes on from there")
def hung_up(stage):
    return signalled(stage, signal.SIGHUP, prefix=("env", "--default-signal=HUP"))  # the campaign itself may run under nohup


@fault("SIGKILL inside a step", code=137, says="step 5/")
def killed(stage):
    return signalled(stage, signal.SIGKILL)


def signalled(stage, number, **options):
    life = stage.held(5, **options)
    life.process.send_signal(number)
    life.go()
    return life.end(), None


def lose(stage, index, number, heard):
    """Sends a signal to one of two processes; how the other ended."""
    lives = stage.pair()
    lives[0].hold_at(4)
    stage.note()
    lives[index].process.send_signal(number)
    lives[0].go() if index else lives[1].go()
    ended = lives[heard].end()
    for life in lives:
        if life.process.poll() is None:
            life.process.kill()
        life.end()
    return ended, None


@fault("the second of two processes is killed", code=69, says="start the job again", processes=2)
def worker_killed(stage):
    return lose(stage, 1, signal.SIGKILL, heard=0)


@fault("the second of two processes stands still (SIGSTOP)", code=69, says="has given no sign of life for 15 s", processes=2)
def worker_stopped(stage):
    return lose(stage, 1, signal.SIGSTOP, heard=0)


@fault("the first of two processes is killed", code=134, says="leader", processes=2)
def coordinator_killed(stage):
    return lose(stage, 0, signal.SIGKILL, heard=1)


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long jump(void) {
  const char *file = getenv("JUMP_FILE"), *by = getenv("JUMP_BY");
  return file && by && !access(file, F_OK) ? atol(by) : 0;
}
int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, at);
  if (!failed && id == CLOCK_REALTIME) at->tv_sec += jump();
  return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  int failed = clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
  return failed;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


def build_clock(folder):
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@functools.cache
def compiler():
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "a.c").write_text("int a;\n")
        return can("cc", "-shared", "-fPIC", "-o", f"{folder}/a.so", f"{folder}/a.c")


@fault("the clock jumps a year ahead at step 5", code=0, says="step 12/12", then=ITSELF, needs=compiler)
def clock_ahead(stage):
    return jumping(stage, 365 * 86400)


@fault("the clock jumps a year back at step 5", code=0, says="step 12/12", then=ITSELF, needs=compiler)
def clock_back(stage):
    return jumping(stage, -365 * 86400)


def jumping(stage, seconds):
    """The wall clock that the process sees (LD_PRELOAD) jumps; the monotonic one cannot."""
    now = stage.folder / "now"
    life = stage.held(5, LD_PRELOAD=str(build_clock(stage.folder)), JUMP_FILE=str(now), JUMP_BY=str(seconds))
    now.touch()
    life.go()
    return life.end(), None


@fault("all compiled steps kept on disk are damaged", code=0, says="step 12/12", then=ITSELF)
def damaged_cache(stage):
    cache = stage.folder / "cache"
    shutil.copytree(stage.compiled, cache)
    for file in cache.glob("*-cache"):
        file.write_bytes(file.read_bytes()[:100])
    stage.note()
    return stage.train(JAX_COMPILATION_CACHE_DIR=str(cache)), None
