"""What a run says when its device waits for data: how long pictures take, and which knob helps."""

import threading

from jaxft.data import LoadTimes, advice


def times(*, pictures=1000, busy=0.02, computing=0.015, workers=2):
    return LoadTimes(workers=workers, pictures=pictures, busy=pictures * busy, computing=pictures * computing)


def test_where_nothing_waits_nothing_is_said():
    assert advice(times(), 500.0, 0.05, cores=2) == ""
    assert advice(LoadTimes(), 500.0, 0.9, cores=2) == ""


def test_where_the_cores_are_the_limit_smaller_files_are_advised():
    line = advice(times(), 100.0, 0.5, cores=2)
    assert "waits for data 50% of the time" in line
    assert "a picture takes 15.0 ms of a core, and 20.0 ms in one of 2 threads" in line
    assert "200 a second would be shown, and 2 cores make 133" in line
    assert "jaxft data convert --max-side" in line
    assert "config.features.cache" in line


def test_where_storage_is_the_limit_more_threads_are_advised():
    line = advice(times(computing=0.001), 100.0, 0.5, cores=8)
    assert "the cores are not the limit: set config.input.threads above 2" in line
    assert "config.input.processes=8" in line
    assert "processes" not in advice(times(computing=0.001, workers=1), 100.0, 0.5, cores=8), "one thread waits for no other"


def test_a_device_that_only_waits_is_no_division_by_zero():
    assert "100% of the time" in advice(times(), 10.0, 1.0, cores=2)


def test_the_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(5)), raising=False)
    assert "5 cores make" in advice(times(), 300.0, 0.3)


def test_where_processes_read_more_of_them_are_advised():
    kept = times(computing=0.001)
    kept.processes = True
    line = advice(kept, 100.0, 0.5, cores=8)
    assert "20.0 ms in one of 2 processes" in line
    assert line.endswith("set config.input.processes above 2, or read from a faster disk")


def test_workers_add_up_what_they_take():
    kept = LoadTimes(workers=4)
    workers = [threading.Thread(target=lambda: [kept.add(2, 0.5, 0.25) for _ in range(1000)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (kept.pictures, kept.busy, kept.computing) == (8000, 2000.0, 1000.0)
