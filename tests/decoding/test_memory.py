"""Threads that decode large pictures take turns: memory stays below an allowance."""

import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pictures import png_file

from jaxft.decoding import memory


@pytest.fixture
def allow(monkeypatch):
    monkeypatch.setattr(memory, "MAX_BYTES", 100)


def most_at_once(sizes, threads=8):
    """The largest sum of what was held at one time, and the largest number of holders."""
    lock, now, sums, counts = threading.Lock(), [], [], []

    def work(size):
        with memory.held(size):
            with lock:
                now.append(size)
                sums.append(sum(now))
                counts.append(len(now))
            time.sleep(0.001)
            with lock:
                now.remove(size)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, sizes))
    return max(sums), max(counts)


def test_never_more_than_the_allowance_is_held(allow):
    assert most_at_once([40, 30, 70, 10, 100, 1, 0, 55] * 10)[0] <= 100


def test_what_fits_is_held_side_by_side(allow):
    assert most_at_once([25] * 40) == (100, 4)


def test_what_is_larger_than_all_goes_alone_and_is_not_passed_for_ever(allow):
    total, _ = most_at_once([1000, 10, 10, 10] * 5)
    assert total == 1000


def test_an_error_gives_back_what_was_held(allow):
    for _ in range(5):
        with pytest.raises(RuntimeError), memory.held(80):
            raise RuntimeError
    assert memory._held == 0


CODE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from jaxft.data import decode
from jaxft.decoding import memory
threads, memory.MAX_BYTES = int(sys.argv[1]), int(sys.argv[2])
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
before = peak()
with ThreadPoolExecutor(threads) as pool:
    shapes = set(pool.map(lambda _: decode(Path("large.png")).shape, range(12)))
print(shapes == {(1400, 1400, 3)}, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_eight_threads_of_large_pictures_stay_below_the_allowance(tmp_path):
    rows = zlib.compress((b"\0" + bytes(range(224)) * 25) * 1400, 1)
    (tmp_path / "large.png").write_bytes(png_file(1400, 1400, 8, 6, rows))  # 2 million pixels of RGBA: 47 megabytes each

    def growth(threads, allowance):
        command = [sys.executable, "-c", CODE, str(threads), str(allowance)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        right, megabytes = done.stdout.split()
        assert right == "True"
        return float(megabytes)

    free = growth(8, 1 << 40)
    bounded = growth(8, 100 << 20)
    # The arrays that are done, 6 megabytes each, wait to be looked at; the allowance does not count them.
    assert bounded < 100 + 12 * 6
    assert bounded < 0.8 * free
