"""What a run writes down: exact lines that survive a kill, event files without TensorFlow, clear errors."""

import json
import os
import struct
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxft.errors import JaxftError
from jaxft.log import JsonLines, RunLog, TensorBoard
from jaxft.paths import open_path


def _write(path, steps, resume_step=None):
    log = JsonLines(path, resume_step)
    for step in steps:
        log.write(step, split="train", loss=1 / (step + 1))
    log.close()
    return path.read_bytes()


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_line_is_an_object_with_the_step_first_and_numbers_that_read_back_exactly(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write(3, split="val", loss=0.1 + 0.2, accuracy=1.0)
    assert path.read_text() == '{"step": 3, "split": "val", "loss": 0.30000000000000004, "accuracy": 1.0}\n'  # at once
    log.close()
    assert json.loads(path.read_text())["loss"] == 0.1 + 0.2


def test_a_resumed_log_is_cut_after_its_step_and_ends_with_the_bytes_of_one_that_was_never_stopped(tmp_path):
    whole = _write(tmp_path / "whole.jsonl", range(0, 100, 10))
    path = tmp_path / "metrics.jsonl"
    for stopped, resumed in ((70, 40), (60, 60), (95, 0)):
        _write(path, range(0, stopped + 1, 10))
        assert _write(path, range(resumed + 10, 100, 10), resume_step=resumed) == whole
    assert not list(tmp_path.glob("*.tmp"))


def test_a_resume_between_two_lines_keeps_the_earlier_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, [10, 20, 20, 30])
    _write(path, [], resume_step=29)
    assert _steps(path) == [10, 20, 20]


def test_a_fresh_log_starts_empty_and_a_resumed_one_needs_no_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, [1, 2])
    _write(path, [5])
    assert _steps(path) == [5]
    _write(tmp_path / "other.jsonl", [7], resume_step=6)
    assert _steps(tmp_path / "other.jsonl") == [7]


def test_a_last_line_cut_short_anywhere_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good, last = b'{"step": 1, "loss": 0.5}\n', b'{"step": 2, "loss": 0.25, "lr": 1e-05}'
    for length in range(len(last)):
        path.write_bytes(good + last[:length])
        assert _write(path, [], resume_step=1) == good, last[:length]
        path.write_bytes(good + last[:length])
        assert _write(path, [], resume_step=2) == good, last[:length]
    # Only the line end is missing: the line is whole.
    path.write_bytes(good + last)
    assert _write(path, [], resume_step=2) == good + last + b"\n"


@pytest.mark.parametrize(
    "text", ["loss,accuracy\n1,2\n", '{"loss": 3}\n', "[1, 2]\n", "3\n", "step 3\n", '{"step": 1}\nhello\n']
)
def test_a_file_that_is_no_metric_log_is_refused_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(JaxftError, match=r"metrics.jsonl is not a metric log: '.*'; move it away to go on") as caught:
        JsonLines(path, resume_step=5)
    assert "\n" not in str(caught.value)
    assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_bytes_that_are_no_text_are_refused_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\x89PNG\xff\n")
    with pytest.raises(JaxftError, match="is not a metric log"):
        JsonLines(path, resume_step=5)
    assert path.read_bytes() == b"\x89PNG\xff\n"


def test_a_log_that_is_removed_under_a_run_is_said_and_goes_on_in_a_new_file(tmp_path):
    said, path = [], tmp_path / "run" / "metrics.jsonl"
    log = JsonLines(path, None, said.append)
    log.write(1, loss=1.0)
    path.unlink()
    path.parent.rmdir()
    log.write(2, loss=2.0)
    log.write(3, loss=3.0)
    log.close()
    assert path.read_text() == '{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 3.0}\n'
    assert said == [f"WARNING: {path} was removed: it begins anew"]


def test_a_log_that_is_gone_is_said_where_a_run_goes_on(tmp_path):
    said = []
    for step in (None, 5):
        JsonLines(tmp_path / f"{step}.jsonl", step, said.append).close()
    assert said == [f"WARNING: {tmp_path / '5.jsonl'} is gone: it begins anew after step 5"]


def _point(log, path):
    """From now on the log is written to another file, as a disk that fills up or is emptied under it."""
    target = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, log._file.fileno())
    os.close(target)


FULL = Path("/dev/full")
full_device = pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")


@full_device
def test_lines_that_a_full_disk_does_not_take_are_kept_said_once_and_written_with_the_next(tmp_path):
    whole = _write(tmp_path / "whole.jsonl", range(6))
    path, said = tmp_path / "metrics.jsonl", []
    log = JsonLines(path, say=said.append)
    for step in range(6):
        if step in (1, 4):
            _point(log, FULL)
        if step in (3, 5):
            _point(log, path)
        log.write(step, split="train", loss=1 / (step + 1))
        assert _steps(path) == {0: [0], 1: [0], 2: [0], 3: [0, 1, 2, 3], 4: [0, 1, 2, 3], 5: [0, 1, 2, 3, 4, 5]}[step]
        assert len(said) == {0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2}[step]  # once a time
    log.close()
    assert path.read_bytes() == whole
    assert said == [f"WARNING: {path} cannot be written (No space left on device): its lines are kept for later"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="makes a small disk with Linux's namespaces")
def test_of_a_line_that_fills_the_disk_in_its_middle_the_rest_comes_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    code = """
import subprocess, sys
from pathlib import Path
from jaxft.log import JsonLines
disk = Path(sys.argv[1])
log = JsonLines(disk / "metrics.jsonl")
for step in range(3000):
    if step == 2000:
        text = (disk / "metrics.jsonl").read_text()
        print("full after", text.count(chr(10)), "and a part" if text[-1] != chr(10) else "")
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    log.write(step, split="train", loss=1 / (step + 1))
log.close()
(disk.parent / "found.jsonl").write_bytes((disk / "metrics.jsonl").read_bytes())
"""
    mount = f'mount -t tmpfs -o size=64k tmpfs {disk} && exec {sys.executable} -c "$CODE" {disk}'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*command, f"mount -t tmpfs tmpfs {disk}"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces")
    env = {**os.environ, "CODE": code, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([*command, mount], check=True, capture_output=True, text=True, env=env)
    warning, full = done.stdout.splitlines()
    assert warning.endswith("metrics.jsonl cannot be written (No space left on device): its lines are kept for later")
    assert full.startswith("full after")
    assert full.endswith("and a part")
    assert (tmp_path / "found.jsonl").read_bytes() == _write(tmp_path / "whole.jsonl", range(3000))


@full_device
def test_a_full_disk_under_a_runs_log_is_said_for_each_file_and_ends_nothing(tmp_path):
    said = []
    log = RunLog(tmp_path, tensorboard=False, say=said.append)
    for file in log._files.values():
        _point(file, FULL)
    for step in (1, 2):
        log.metrics(step, "train", {"loss": 0.5})
        log.timing(step, {"wait_share": 0.5})
    assert [line.split(" cannot be")[0] for line in said] == [
        f"WARNING: {tmp_path / name}.jsonl" for name in ("metrics", "timing")
    ]
    for name, file in log._files.items():
        _point(file, tmp_path / f"{name}.jsonl")
    log.metrics(3, "train", {"loss": 0.5})
    log.timing(3, {"wait_share": 0.5})
    log.close()
    assert _steps(tmp_path / "metrics.jsonl") == _steps(tmp_path / "timing.jsonl") == [1, 2, 3]
    assert len(said) == 2


def test_another_writer_that_cannot_write_is_said_once_and_ends_nothing(tmp_path):
    class Broken:
        def write_scalars(self, step, scalars):
            raise OSError(28, os.strerror(28))

        def close(self):
            pass

    said = []
    log = RunLog(tmp_path, tensorboard=False, say=said.append)
    log._writers.append(Broken())
    for step in (1, 2):
        log.metrics(step, "train", {"loss": 0.5})
    log.close()
    assert said == ["WARNING: Broken cannot log (No space left on device); training goes on"]
    assert _steps(tmp_path / "metrics.jsonl") == [1, 2]


def test_without_a_workdir_nothing_is_logged(tmp_path, monkeypatch):
    # As in all processes but the first.
    monkeypatch.chdir(tmp_path)
    said = []
    log = RunLog(None, resume_step=3, wandb_project="pets", config={"seed": 3}, say=said.append)
    log.metrics(5, "train", {"loss": 0.5})
    log.timing(5, {"wait_share": 0.5})
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert said == []


def _records(path):
    """The records of a TFRecord file; every length and every record has a masked CRC32C."""
    data, at = path.read_bytes(), 0

    def check(part, masked):
        crc = crc32c(part)
        assert masked == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    while at < len(data):
        head = data[at : at + 8]
        (length,) = struct.unpack("<Q", head)
        check(head, *struct.unpack("<I", data[at + 8 : at + 12]))
        record = data[at + 12 : at + 12 + length]
        check(record, *struct.unpack("<I", data[at + 12 + length : at + 16 + length]))
        yield record
        at += 16 + length


def _events(directory):
    """All events of the folder's files, file by file, as TensorBoard reads them: by name."""
    files = sorted(directory.glob("*tfevents*"))
    return [[Event.FromString(record) for record in _records(file)] for file in files]


def _scalars(events):
    return [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]


def test_event_files_hold_version_steps_names_and_values(tmp_path):
    writer = TensorBoard(tmp_path, None)
    writer.write_scalars(10, {"train/loss": 0.5, "train/lr": 0.25})
    writer.write_scalars(20, {"val/accuracy": 0.75})
    writer.close()
    (events,) = _events(tmp_path)
    assert events[0].file_version == "brain.Event:2"
    assert _scalars(events) == [(10, "train/loss", 0.5), (10, "train/lr", 0.25), (20, "val/accuracy", 0.75)]
    assert all(event.wall_time > 1e9 for event in events)


def test_a_resumed_event_file_tells_tensorboard_to_forget_later_steps(tmp_path):
    first = TensorBoard(tmp_path, None)
    for step in (10, 20, 30):
        first.write_scalars(step, {"loss": float(step)})
    first.close()
    second = TensorBoard(tmp_path, 20)
    second.write_scalars(30, {"loss": 0.5})
    second.close()
    events = [event for file in _events(tmp_path) for event in file]
    (start,) = [event for event in events if event.session_log.status == SessionLog.START]
    assert start.step == 21
    assert [event.step for event in events[: events.index(start)] if event.summary.value] == [10, 20, 30]
    assert _scalars(events) == [(10, "loss", 10), (20, "loss", 20), (30, "loss", 30), (30, "loss", 0.5)]


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def test_a_runs_log_goes_to_two_files_and_to_tensorboard(tmp_path, without_tensorflow):
    log = RunLog(tmp_path)
    log.metrics(5, "train", {"loss": 0.5, "lr": 0.125})
    log.timing(5, {"images_per_second": 64.0})
    log.metrics(6, "val", {"accuracy": 0.25})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [
        '{"step": 5, "split": "train", "loss": 0.5, "lr": 0.125}',
        '{"step": 6, "split": "val", "accuracy": 0.25}',
    ]
    assert (tmp_path / "timing.jsonl").read_text() == '{"step": 5, "images_per_second": 64.0}\n'
    assert _scalars(_events(tmp_path / "tensorboard")[0]) == [
        (5, "train/loss", 0.5),
        (5, "train/lr", 0.125),
        (5, "timing/images_per_second", 64),
        (6, "val/accuracy", 0.25),
    ]


def test_a_resumed_runs_log_forgets_later_steps_everywhere(tmp_path, without_tensorflow):
    for resume_step in (None, 4):
        log = RunLog(tmp_path, resume_step=resume_step)
        for step in range((resume_step or 0) + 1, 9 if resume_step is None else 7):
            log.metrics(step, "train", {"loss": 1.0})
            log.timing(step, {"wait_share": 0.5})
        log.close()
    assert _steps(tmp_path / "metrics.jsonl") == _steps(tmp_path / "timing.jsonl") == [1, 2, 3, 4, 5, 6]
    events = [event for file in _events(tmp_path / "tensorboard") for event in file]
    assert [event.step for event in events if event.session_log.status == SessionLog.START] == [5]


def test_without_tensorboard_there_is_no_folder_for_it(tmp_path):
    log = RunLog(tmp_path, tensorboard=False)
    log.metrics(1, "train", {"loss": 1.0})
    log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "timing.jsonl"]


def test_a_runs_log_imports_no_tensorflow(tmp_path):
    code = """
import sys
from pathlib import Path
sys.modules["tensorflow"] = None  # an import of it would fail
from jaxft.log import RunLog
log = RunLog(Path(sys.argv[1]))
log.metrics(1, "train", {"loss": 1.0})
log.close()
assert not [name for name in sys.modules if name.startswith(("tensorflow.", "torch"))]
"""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env)
    assert _scalars(_events(tmp_path / "tensorboard")[0]) == [(1, "train/loss", 1)]


def test_a_wandb_project_without_wandb_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(JaxftError, match=r"wandb_project is set, but wandb is missing: pip install 'jaxft\[tracking\]'"):
        RunLog(tmp_path, tensorboard=False, wandb_project="pets")


def test_a_resumed_run_stays_one_run_of_weights_and_biases(tmp_path, monkeypatch):
    started, logged = [], []

    def init(**settings):
        started.append(settings)
        run = types.SimpleNamespace(id=settings["id"] or "abc123")
        run.log = lambda values, step: logged.append((step, values))
        run.finish = lambda: logged.append("finished")
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for step, resume_step in ((1, None), (2, 1)):
        log = RunLog(tmp_path, resume_step=resume_step, tensorboard=False, wandb_project="pets", config={"seed": 3})
        log.metrics(step, "train", {"loss": 0.5})
        log.close()
    assert [settings["id"] for settings in started] == [None, "abc123"]
    assert all((settings["project"], settings["config"]) == ("pets", {"seed": 3}) for settings in started)
    assert logged == [(1, {"train/loss": 0.5}), "finished", (2, {"train/loss": 0.5}), "finished"]


def _bucket_log(resume_step=None, **options):
    return RunLog(open_path("gs://bucket/run"), resume_step=resume_step, **{"tensorboard": False, **options})


def _bucket_steps(bucket, name="metrics"):
    return [json.loads(line)["step"] for line in bucket.read(f"run/{name}.jsonl").splitlines()]


def test_in_a_bucket_lines_come_with_a_flush_and_are_the_same_bytes(bucket, tmp_path):
    logs = [_bucket_log(), RunLog(tmp_path, tensorboard=False)]
    for log in logs:
        log.metrics(1, "train", {"loss": 0.5})
        log.timing(1, {"wait_share": 0.5})
    assert bucket.read("run/metrics.jsonl") == b""
    for log in logs:
        log.flush()
    assert bucket.read("run/metrics.jsonl") == (tmp_path / "metrics.jsonl").read_bytes()
    for log in logs:
        log.metrics(2, "val", {"accuracy": 0.25})
        log.close()
    for name in ("metrics.jsonl", "timing.jsonl"):
        assert bucket.read(f"run/{name}") == (tmp_path / name).read_bytes()


def test_in_a_bucket_a_resumed_log_forgets_later_steps(bucket):
    for resume_step, steps in ((None, range(1, 9)), (4, range(5, 7))):
        log = _bucket_log(resume_step)
        for step in steps:
            log.metrics(step, "train", {"loss": 1.0})
        log.close()
    assert _bucket_steps(bucket) == [1, 2, 3, 4, 5, 6]


def test_in_a_bucket_lines_come_once_a_minute_where_no_flush_is_asked_for(bucket, monkeypatch):
    monkeypatch.setattr("jaxft.log._OFTEN", 0.05)
    log = _bucket_log()
    time.sleep(0.06)
    log.metrics(1, "train", {"loss": 0.5})
    assert _bucket_steps(bucket) == [1]
    log.metrics(2, "train", {"loss": 0.5})
    assert _bucket_steps(bucket) == [1]


def test_a_bucket_that_is_away_is_said_once_and_gets_all_lines_when_it_is_back(bucket, monkeypatch):
    monkeypatch.setattr("jaxft.log._OFTEN", 0)
    said = []
    log = _bucket_log(say=said.append)
    log.metrics(1, "train", {"loss": 0.5})
    bucket.fault = lambda method, name: 404
    bucket.asked.clear()
    for step in (2, 3, 4):
        log.metrics(step, "train", {"loss": 0.5})
    assert len(bucket.asked) == 1  # each try may take half a minute: the next is made when it is asked for
    log.flush()
    assert len(bucket.asked) == 2
    assert len(said) == 1
    assert said[0].startswith("WARNING: gs://bucket/run/metrics.jsonl cannot be written (there is no ")
    bucket.fault = lambda method, name: 0
    log.flush()
    log.close()
    assert _bucket_steps(bucket) == [1, 2, 3, 4]
    assert len(said) == 1


def test_a_run_that_another_has_taken_over_writes_no_logs(bucket):
    ours = True
    log = _bucket_log(is_ours=lambda: ours)
    log.metrics(1, "train", {"loss": 0.5})
    log.flush()
    ours = False
    log.metrics(2, "train", {"loss": 0.5})
    log.flush()
    log.close()
    assert _bucket_steps(bucket) == [1]


def test_event_files_are_copied_to_a_bucket_one_for_each_start(bucket, tmp_path, without_tensorflow):
    for resume_step, step in ((None, 1), (1, 2)):
        log = _bucket_log(resume_step, tensorboard=True)
        log.metrics(step, "train", {"loss": float(step)})
        log.flush()
        assert len(bucket.names("run/tensorboard/")) == step
        log.metrics(step, "val", {"loss": float(step)})
        log.close()
    for name in bucket.names("run/tensorboard/"):
        (tmp_path / name).write_bytes(bucket.read(f"run/tensorboard/{name}"))
    found = sorted(scalar for events in _events(tmp_path) for scalar in _scalars(events))
    assert found == [(1, "train/loss", 1), (1, "val/loss", 1), (2, "train/loss", 2), (2, "val/loss", 2)]
