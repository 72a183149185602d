"""Files made to do harm, and damaged ones: each ends at once, in an error for the user or in plain arrays."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import hostile
import numpy as np
import pytest
import watched
from pth_bytes import RAW, checkpoint, make_legacy, make_zip, state_dict, tensor, text

from jaxft.errors import JaxftError
from jaxft.weights import UnsafeCheckpoint, read

HERE = Path(__file__).parent
CORPUS = {name: (make, reason) for name, make, reason in hostile.files()}


def watch(folder, home):
    """What became of each file of a folder, in a process with an audit hook: name -> reading."""
    command = [sys.executable, str(HERE / "watched.py"), str(folder)]
    environment = {**os.environ, "HARM": str(home / "harm")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=environment)
    assert done.returncode == 0, done.stderr
    return {name: watched.Reading(**reading) for name, reading in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def readings(made_once):
    """Name in the corpus -> what became of it; nothing but the files themselves may be in the folder afterwards."""

    def read_all(base):
        folder, home = base / "files", base / "home"
        folder.mkdir()
        home.mkdir()
        for number, (make, _) in enumerate(CORPUS.values()):
            (folder / f"{number:04}.pth").write_bytes(make())
        found = watch(folder, home)
        assert not list(home.iterdir())
        assert len(list(folder.iterdir())) == len(CORPUS)
        (base / "readings.json").write_text(json.dumps({name: dataclasses.asdict(each) for name, each in found.items()}))

    base = made_once("hostile", read_all)
    found = json.loads((base / "readings.json").read_text())
    files = [f"{number:04}.pth" for number in range(len(CORPUS))]
    return {
        name: (watched.Reading(**found[file]), (base / "files" / file).stat().st_size)
        for name, file in zip(CORPUS, files, strict=True)
    }


def test_the_corpus_aims_at_more_than_forty_things():
    assert len(set(hostile.AIMS)) == len(hostile.AIMS) >= 40


@pytest.mark.parametrize("make", [make_zip, make_legacy])
def test_the_corpus_starts_from_a_checkpoint_that_reads(make, tmp_path):
    (tmp_path / "x.pth").write_bytes(make(checkpoint(tensor()), {"0": RAW}))
    np.testing.assert_array_equal(read(tmp_path / "x.pth")["x"], np.arange(4, dtype=np.float32))


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_refused_for_what_it_is_or_reads_as_plain_arrays(name, readings):
    reading, _ = readings[name]
    reason = CORPUS[name][1]
    assert reading.error == ("refused" if reason else "")
    assert re.search(reason, reading.message)
    assert reading.names == ([] if reason else ["x"])
    assert "\n" not in reading.message
    assert len(reading.message) < 600


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_takes_under_a_second_and_twice_its_size(name, readings):
    reading, size = readings[name]
    assert reading.seconds < watched.SECONDS
    assert reading.peak < watched.allowed(size)


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_has_nothing_imported_opened_or_run(name, readings):
    assert readings[name][0].events == []


def test_good_files_have_nothing_imported_opened_or_run_and_take_no_more_than_hostile_ones(fixtures, tmp_path):
    for name, reading in watch(fixtures, tmp_path).items():
        if name.endswith(".pth"):
            assert reading.events == []
            assert reading.refused == name.startswith("refused")
            assert reading.seconds < watched.SECONDS
            assert reading.peak < watched.allowed((fixtures / name).stat().st_size)


def test_the_hook_sees_imports_other_files_processes_and_code(tmp_path):
    script = """
import sys
from watched import Watch
watch = Watch()
def harm():
    import this_is_no_module_at_all
actions = {
    "import": lambda: __import__("antigravity_of_no_kind"),
    "open": lambda: open(sys.argv[1]),
    "os.system": lambda: __import__("os").system("true"),
    "subprocess.Popen": lambda: __import__("subprocess").run(["true"]),
    "compile": lambda: compile("1", "x", "eval"),
    "exec": lambda: eval("1"),
    "pickle.find_class": lambda: __import__("pickle").loads(b"cbuiltins\\nlen\\n."),
    "socket.__new__": lambda: __import__("socket").socket(),
}
import os, pickle, socket, subprocess
for event, action in actions.items():
    try:
        _, events = watch.during("x.pth", action)
    except ImportError:
        events = watch._events
    assert any(seen.startswith(event) for seen in events), (event, events)
print("all seen")
"""
    (tmp_path / "other").write_text("")
    path = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, "-c", script, str(tmp_path / "other")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.stdout == "all seen\n", done.stderr


def test_a_call_in_place_of_all_tensors_is_said(tmp_path):
    for make in (make_zip, make_legacy):
        (tmp_path / "x.pth").write_bytes(make(b"\x80\x02" + hostile.CALLS["eval"] + b"."))
        with pytest.raises(UnsafeCheckpoint, match=r"an object \(builtins.eval\)"):
            read(tmp_path / "x.pth")


def test_a_name_of_a_million_prefixes_is_cut_a_few_times_only(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(make_zip(state_dict({"module." * 100_000 + "x": tensor()}), {"0": RAW}))
    start = time.process_time()
    assert list(read(path)) == ["module." * 99_996 + "x"]
    assert time.process_time() - start < watched.SECONDS


@pytest.mark.parametrize("make", [make_zip, make_legacy])
def test_a_message_quotes_no_control_characters_of_the_file(make, tmp_path):
    path = tmp_path / "x.pth"
    evil = text("a\x1b[2J\nb") + text("\u202edlo\ud800") + b"\x93)R"
    path.write_bytes(make(b"\x80\x02" + evil + b"."))
    with pytest.raises(UnsafeCheckpoint, match=r"an object \(a\?\[2J\?b\.\?dlo\?\)") as caught:
        read(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["scalars", "legacy_scalars"])
def test_a_file_cut_short_anywhere_is_refused(kind, fixtures, tmp_path):
    data, path = (fixtures / f"{kind}.pth").read_bytes(), tmp_path / "x.pth"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(JaxftError):
            read(path)


def adam(parameters, numel):
    """A network of so many parameters with the two averages and the step of Adam for each: a pickle, and its storages."""
    tensors, storages = {}, {}
    for number in range(parameters):
        for part, size in (("weight", numel), ("exp_avg", numel), ("exp_avg_sq", numel), ("step", 1)):
            key = str(len(storages))
            storages[key] = bytes(4 * size)
            strides = (1,) if size > 1 else ()
            tensors[f"blocks.{number}.attention.{part}"] = tensor((size,) * len(strides), strides, key=key, numel=size)
    return state_dict(tensors), storages


@pytest.mark.parametrize("make", [make_zip, make_legacy])
def test_three_thousand_parameters_with_their_adam_state_read_within_the_limits(make, tmp_path):
    data, storages = adam(3_000, 1_024)
    (tmp_path / "x.pth").write_bytes(make(data, storages))
    start = time.process_time()
    assert len(read(tmp_path / "x.pth")) == 12_000
    assert time.process_time() - start < 5
