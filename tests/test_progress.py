"""What a run shows, how it measures its time, and how it is asked to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from jaxft import progress
from jaxft.progress import Progress, StopSignals, Stopwatch

VALUES = {"loss": 1.23456, "lr": 3e-4, "accuracy": 0.5}
TIMING = {"images_per_second": 123.4, "seconds_per_step": 0.1, "wait_share": 0.25}
SHOWN = ["loss 1.2346", "lr 3.00e-04", "images/s 123", "waiting 25%"]


class Clock:
    """A clock that moves when told to."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_stopwatch_tells_images_a_second_and_the_share_of_waiting(clock):
    watch = Stopwatch(images_per_step=32)
    for _ in range(4):
        with watch.waiting():
            clock.now += 0.5
        clock.now += 1.5
        watch.step()
    assert watch.read() == pytest.approx({"images_per_second": 16, "seconds_per_step": 2, "wait_share": 0.25})


def test_evaluations_do_not_count_as_training_time(clock):
    watch = Stopwatch(images_per_step=10)
    clock.now += 2
    watch.step()
    with watch.paused():
        clock.now += 1000
    with watch.waiting():
        clock.now += 2
    watch.step()
    assert watch.read() == pytest.approx({"images_per_second": 5, "seconds_per_step": 2, "wait_share": 0.5})


def test_each_reading_begins_a_new_window(clock):
    watch = Stopwatch(images_per_step=1)
    with watch.waiting():
        clock.now += 7
    with watch.paused():
        clock.now += 7
    watch.step()
    watch.read()
    clock.now += 4
    watch.step()
    watch.step()
    assert watch.read() == pytest.approx({"images_per_second": 0.5, "seconds_per_step": 2, "wait_share": 0})


def test_a_reading_without_a_step_or_without_time_is_finite(clock):
    watch = Stopwatch(images_per_step=8)
    found = watch.read()
    assert found["images_per_second"] == 0
    assert found["wait_share"] == 0
    clock.now += 3
    assert watch.read() == pytest.approx({"images_per_second": 0, "seconds_per_step": 3, "wait_share": 0})
    watch.step()
    assert 0 < watch.read()["images_per_second"] < float("inf")


def test_a_stopwatch_measures_real_time():
    watch = Stopwatch(images_per_step=1)
    with watch.waiting():
        time.sleep(0.05)
    watch.step()
    found = watch.read()
    assert found["seconds_per_step"] >= 0.05
    assert 0 < found["wait_share"] <= 1


class Busy:
    """Stands for an array that a device has still to make."""

    def __init__(self, seconds):
        self.ready = time.perf_counter() + seconds

    def is_ready(self):
        return time.perf_counter() >= self.ready

    def block_until_ready(self):
        time.sleep(max(self.ready - time.perf_counter(), 0))


def test_waiting_counts_only_while_the_device_has_nothing_to_do():
    made = jax.numpy.ones(3).block_until_ready()
    watch = Stopwatch(images_per_step=1)
    with watch.waiting(Busy(0.3)):
        time.sleep(0.05)
    watch.step()
    assert watch.read()["wait_share"] == 0
    with watch.waiting(made):
        time.sleep(0.05)
    watch.step()
    assert watch.read()["wait_share"] > 0.9
    with watch.waiting(Busy(0.1)):
        time.sleep(0.3)
    watch.step()
    found = watch.read()
    watch.close()
    assert 0.15 < found["wait_share"] * found["seconds_per_step"] < 0.25


def test_without_a_terminal_there_are_plain_lines(capsys):
    shown = Progress(200)
    shown.begin(20)
    shown.say("weights: all of them")
    shown.say("")
    shown.update(40, VALUES, TIMING)
    shown.close()
    assert capsys.readouterr().out.splitlines() == ["weights: all of them", "step 40/200  " + "  ".join(SHOWN)]


def test_lines_come_out_at_once_also_through_a_pipe():
    # _exit flushes nothing.
    code = "from jaxft.progress import Progress; import os; Progress(9).say('here'); os._exit(0)"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert found.stdout == "here\n"


SPEAKING = "from jaxft.progress import Progress; p = Progress(9); [p.say('a line') for _ in range(9)]; print('and more')"


def test_an_output_whose_reader_is_gone_or_whose_disk_is_full_ends_nothing_and_is_said_once():
    reader, writer = os.pipe()
    os.close(reader)
    for output, reason in ((writer, "Broken pipe"), (os.open("/dev/full", os.O_WRONLY), "No space left on device")):
        found = subprocess.run([sys.executable, "-c", SPEAKING], stdout=output, stderr=subprocess.PIPE, text=True)
        os.close(output)
        assert found.returncode == 0
        assert found.stderr == f"jaxft: the output takes no more ({reason}): the run goes on without it\n"


def test_a_silent_progress_shows_nothing(capsys):
    shown = Progress(200, show=False)
    shown.say("a line before")
    shown.begin(20)
    shown.say("a line")
    shown.update(40, VALUES, TIMING)
    shown.close()
    assert capsys.readouterr() == ("", "")


@contextlib.contextmanager
def _terminal():
    """Makes stdout a terminal of 120 columns; gives a function that tells what was written since it last did."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 120))
    with os.fdopen(slave, "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):

        def written():
            stream.write("\0")  # marks the end: a terminal tells its reader of none
            stream.flush()
            found = b""
            while not found.endswith(b"\0"):
                found += os.read(master, 4096)
            return found[:-1].decode()

        yield written
    os.close(master)


def test_on_a_terminal_there_is_a_bar_that_starts_where_the_run_resumes():
    with _terminal() as written:
        shown = Progress(200)
        shown.begin(50)
        assert "50/200" in written()
        shown.update(100, VALUES, TIMING)
        bar = written().split("\r")[-1]
        for part in ("50%", "100/200", "loss=1.2346", "lr=3.00e-04", "images/s=123", "waiting=25%"):
            assert part in bar
        shown.update(200, VALUES, TIMING)
        assert "200/200" in written()
        shown.close()


def test_on_a_terminal_lines_stand_above_the_bar():
    with _terminal() as written:
        shown = Progress(10)
        shown.begin(0)
        written()
        shown.say("step 3  validation  accuracy 0.5000")
        line, bar = written().split("\n")
        assert line.rstrip("\r").split("\r")[-1] == "step 3  validation  accuracy 0.5000"
        assert "0/10" in bar
        shown.close()


def test_on_a_terminal_there_is_no_bar_before_the_steps_begin():
    with _terminal() as written:
        shown = Progress(10)
        shown.say("checkpoint 4 is damaged")
        assert written() == "checkpoint 4 is damaged\r\n"
        shown.close()
        assert written() == ""


def test_on_a_terminal_a_silent_progress_shows_nothing_either():
    with _terminal() as written:
        shown = Progress(10, show=False)
        shown.begin(0)
        shown.say("a line")
        shown.update(5, VALUES, TIMING)
        shown.close()
        assert written() == ""


CHILD = """
import contextlib, signal, time
from jaxft.progress import StopSignals

# What a shell starts in the background is born with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with contextlib.closing(StopSignals(4)) as stop:
    step = 4
    print("running", stop.asked(), stop.asked_at(step), flush=True)
    while not stop.asked_at(step):
        step += 1
        time.sleep(0.01)
    try:
        print("asked", stop.asked(), stop.asked_at(step + 1), flush=True)
        time.sleep(60)
        print("never ended", flush=True)
    except KeyboardInterrupt:
        print("ended", flush=True)
try:
    print("after", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("python's own again", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_first_signal_asks_the_second_ends_at_once_and_then_all_is_as_before(name):
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True, env=env) as child:
        try:
            assert child.stdout.readline() == "running False False\n"
            child.send_signal(getattr(signal, name))
            assert child.stdout.readline() == "asked True True\n"
            child.send_signal(getattr(signal, name))
            assert child.stdout.readline() == "ended\n"
            assert child.stdout.readline() == "after\n"
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "python's own again\n"
            assert child.wait(30) == 0
        finally:
            child.kill()


def _raise(number):
    """A real signal to this process; its handler has run when this returns."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_signals_of_either_kind_add_up(handlers, first, second):
    with contextlib.closing(StopSignals(0)) as stop:
        assert not stop.asked()
        assert not stop.asked_at(1)
        _raise(getattr(signal, first))
        assert stop.asked()
        assert stop.asked_at(2)
        with pytest.raises(KeyboardInterrupt):
            _raise(getattr(signal, second))
        assert stop.asked()
    assert handlers == {number: signal.getsignal(number) for number in handlers}


def test_a_closed_terminal_asks_once_however_often_it_says_so(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with contextlib.closing(StopSignals(0)) as stop:
        _raise(signal.SIGHUP)
        assert stop.asked()
        _raise(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            _raise(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_a_closed_terminal_asks_nothing(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.closing(StopSignals(0)) as stop:
        _raise(signal.SIGHUP)
        assert not stop.asked()


def test_handlers_are_put_back_after_an_error_and_a_new_run_is_not_asked(handlers):
    def own(number, frame):
        raise AssertionError("not to be called")

    signal.signal(signal.SIGTERM, own)

    def broken_run():
        with contextlib.closing(StopSignals(0)) as stop:
            _raise(signal.SIGTERM)
            raise RuntimeError(f"broken, asked: {stop.asked()}")

    with pytest.raises(RuntimeError, match="broken, asked: True"):
        broken_run()
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is handlers[signal.SIGINT]
    with contextlib.closing(StopSignals(0)) as stop:
        assert not stop.asked()
        assert not stop.asked_at(1)


def test_outside_the_main_thread_nothing_is_caught(handlers):
    found = []

    def run():
        with contextlib.closing(StopSignals(0)) as stop:
            found.append((stop.asked(), stop.asked_at(1), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(False, False, handlers[signal.SIGINT])]
    assert handlers == {number: signal.getsignal(number) for number in handlers}
