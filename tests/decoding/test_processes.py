"""Processes that decode give the pixels of this one, say what they cannot read, and end with whoever asked."""

import signal
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, png_file, smooth

from jaxft.data import BadImage
from jaxft.decoding import memory, processes
from jaxft.decoding.processes import Process
from jaxft.decoding.reading import Reading
from jaxft.decoding.window import Window
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

SMALL = Preprocessing(size=20, resize=24)
TRAINING = Reading(SMALL, window=Window((0.3, 1.0)), seed=5)


@pytest.fixture(scope="module")
def pictures_of(tmp_path_factory):
    """Paths and bytes of several formats and sizes."""
    root = tmp_path_factory.mktemp("pictures")
    made = []
    for number, kind in enumerate(["PNG", "JPEG", "GIF", "BMP", "WEBP"] * 2):
        data = encode(smooth(30 + 9 * number, 90 - 5 * number), kind)
        if number % 2:
            made.append(data)
        else:
            made.append(root / f"{number}.bin")
            made[-1].write_bytes(data)
    return made


@pytest.fixture(scope="module")
def training():
    with Process(TRAINING, 1.0) as process:
        yield process


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pid, within=20.0):
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("reading", [TRAINING, Reading(SMALL), Reading(SMALL, channels=1)], ids=["train", "eval", "grey"])
def test_a_process_reads_the_pixels_that_are_read_here(pictures_of, reading):
    tasks = [(image, shown, index) for shown in (0, 3) for index, image in enumerate(pictures_of)]
    with Process(reading, 0.5) as process:
        found = process.read(tasks)
        assert process.computing > 0
    assert len(found) == len(tasks)
    for task, pixels in zip(tasks, found, strict=True):
        assert pixels.shape == (20, 20, reading.channels)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, reading(*task))


def test_more_pictures_than_are_shared_at_once(pictures_of, monkeypatch):
    monkeypatch.setattr(processes, "_SHARED", 3 * 20 * 20 * 3)
    tasks = [(image, 0, index) for index, image in enumerate(pictures_of)]
    with Process(TRAINING, 1.0) as process:
        found = process.read(tasks)
        assert process.read([]) == []
    for task, pixels in zip(tasks, found, strict=True):
        np.testing.assert_array_equal(pixels, TRAINING(*task))


def test_pictures_are_the_callers_own(training, pictures_of):
    (first,) = training.read([(pictures_of[0], 0, 0)])
    kept = first.copy()
    training.read([(pictures_of[1], 0, 1)])
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writable


def test_what_cannot_be_read_stands_among_what_can(training, pictures_of, tmp_path):
    damaged = encode(smooth(40, 40), "PNG")[:-40]
    tasks = [(pictures_of[0], 0, 0), (damaged, 0, 1), (tmp_path / "none.png", 0, 2), (pictures_of[1], 0, 3)]
    first, cut, missing, last = training.read(tasks)
    assert isinstance(cut, BadImage)
    assert "cut short" in str(cut)
    assert isinstance(missing, BadImage)
    assert str(missing) == "the file does not exist"
    np.testing.assert_array_equal(first, TRAINING(*tasks[0]))
    np.testing.assert_array_equal(last, TRAINING(*tasks[3]))


def test_an_error_that_nobody_expects_comes_with_where_it_was(training):
    (error,) = training.read([(3.5, 0, 0)])
    assert isinstance(error, Exception)
    assert "In a process that decodes:\nTraceback" in error.__notes__[0]


def test_a_picture_beyond_the_share_of_memory_is_given_back(pictures_of):
    large = png_file(3000, 3000, 8, 0, zlib.compress(b"\0" * 3001 * 3000, 1))  # 144 MB, as decoding is counted
    with Process(Reading(SMALL), 100e6 / memory.MAX_BYTES) as process:
        refused, small = process.read([(large, 0, 0), (pictures_of[0], 0, 1)])
    assert isinstance(refused, memory.TooMuch)
    assert small.shape == (20, 20, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of processes from /proc")
def test_a_process_is_small(training, pictures_of):
    training.read([(image, 0, index) for index, image in enumerate(pictures_of)])
    status = Path(f"/proc/{training._process.pid}/status").read_text()
    assert 10 < int(status.partition("VmHWM:")[2].split()[0]) / 1024 < 60  # docs/data.md: some 40 MB; with JAX four times that


def test_a_process_that_is_killed_is_said_to_be(pictures_of):
    process = Process(TRAINING, 1.0)
    process.read([(pictures_of[0], 0, 0)])
    process._process.send_signal(signal.SIGKILL)
    with pytest.raises(JaxftError, match=r"was ended by signal 9: the system ends processes when memory is short. Fewer"):
        process.read([(pictures_of[0], 0, 0)])
    process.close()


def test_a_process_that_does_not_start_is_said_to_be(monkeypatch, capfd):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(JaxftError, match=r"a process that decodes pictures ended with 1, see above"):
        Process(TRAINING, 1.0).read([(b"", 0, 0)])
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(JaxftError, match=r"no process to decode pictures could be started: No such file"):
        Process(TRAINING, 1.0)


def test_closing_ends_it_and_may_be_repeated(pictures_of):
    process = Process(TRAINING, 1.0)
    process.close()
    process.close()
    assert process._process.returncode == 0


def test_one_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.2)
    process = Process(TRAINING, 1.0)
    process._process.send_signal(signal.SIGSTOP)
    process.close()
    assert process._process.returncode == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads the state of processes from /proc")
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "os._exit(3)", "raise SystemExit"])
def test_it_ends_with_the_process_that_asks_however_that_ends(ending):
    code = f"""
        import os
        from jaxft.decoding.processes import Process
        from jaxft.decoding.reading import Reading
        from jaxft.preprocessing import Preprocessing
        many = [Process(Reading(Preprocessing()), 1 / 2) for _ in range(2)]
        for one in many:
            one.read([])
        print(*(one._process.pid for one in many), flush=True)
        {ending}
    """
    asked = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert not asked.stderr
    pids = [int(pid) for pid in asked.stdout.split()]
    assert len(pids) == 2
    assert all(ended(pid) for pid in pids)


def test_it_serves_on_when_its_group_is_told_to_stop(training, pictures_of):
    training.read([(pictures_of[0], 0, 0)])  # it has come so far as to heed signals
    for told in (signal.SIGTERM, signal.SIGINT):
        training._process.send_signal(told)
    np.testing.assert_array_equal(training.read([(pictures_of[0], 0, 0)])[0], TRAINING(pictures_of[0], 0, 0))
