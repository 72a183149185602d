import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.explain import Ahead, PhaseAhead, ahead, compile_for
from jaxft.explain.collectives import Collective
from jaxft.explain.remedies import Remedy, candidates
from jaxft.explain.roofline import roofline
from jaxft.explain.step import compile_step
from jaxft.parallel import Memory, make_mesh, memory_of, targets
from jaxft.parallel.targets import FIGURES, TooLarge
from jaxft.plan import make_plan

#: A head on eight devices, twice as many examples.
HEAD = ("--config.train.accum_steps=1", "--config.phases.phase2.length=0 steps")
#: The bytes of a head's gradients: 512 features, three classes, a bias.
GRADIENTS = 4 * (512 * 3 + 3)


@pytest.fixture
def compiled_here(monkeypatch):
    """The devices present stand for the target's; what it would compile, they do."""
    monkeypatch.setattr(ahead, "prepare", lambda target: None)
    monkeypatch.setattr(ahead, "target_devices", lambda target: None)


@pytest.mark.usefixtures("compiled_here", "quick_compiles")
class TestWithoutACompiler:
    def test_a_step_is_told_with_its_collectives_and_the_least_time(self, recipe):
        said = []
        found = compile_for(read_config(str(recipe), HEAD), "h100:8", say=said.append)
        (phase,) = found.phases
        assert said == ["compiling phase1 for h100:8"]
        assert found.fits
        assert not phase.refused
        assert phase.needed == phase.memory.peak < phase.usable == FIGURES["h100"].usable
        (reduced,) = phase.collectives
        assert GRADIENTS < reduced.nbytes <= GRADIENTS + 200
        assert phase.link_bytes == pytest.approx(2 * 7 / 8 * reduced.nbytes)
        assert phase.network_bytes == 0
        assert phase.main_memory_bytes > phase.memory.arguments
        line = phase.roofline
        assert line.compute == pytest.approx(phase.flops / 8 / FIGURES["h100"].float32)
        assert line.seconds == line.memory == pytest.approx(phase.main_memory_bytes / FIGURES["h100"].bandwidth)
        assert line.images_per_second == pytest.approx(16 / line.seconds)
        assert phase.try_next == phase.remedies == ()

    def test_the_step_is_the_one_that_the_run_compiles(self, recipe):
        config = read_config(str(recipe), (*HEAD, "--config.parallel.mesh=2x4x1"))
        found = compile_for(config, "h100:8")
        plan = make_plan(config, weights=False)
        assert found.phases[0].memory == memory_of(compile_step(plan, plan.phases[0], config))
        assert found.mesh == {"data": 2, "fsdp": 4, "tensor": 1}

    def test_what_does_not_fit_is_reported_in_full_and_ends_with_2(self, recipe, capsys, monkeypatch, tmp_path):
        tight = dataclasses.replace(FIGURES["h100"], usable=1_000_000)
        monkeypatch.setitem(targets.FIGURES, "h100", tight)
        file = tmp_path / "found.json"
        command = ["compile", "--target=h100:8", f"--config={recipe}", *HEAD, "--mesh=8x1x1", f"--json={file}"]
        monkeypatch.setattr("jaxft.cli.commands.prepare", lambda target: None)
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert "does NOT fit" in out
        assert "try --config.train.accum_steps=2 or more, up to 2" in out
        assert "try --config.model.remat=all" in out
        assert "try --config.parallel.mesh=1x8x1" in out
        assert re.search(r"^jaxft: the step does not fit on h100:8: phase1 needs .* of 1.00 MB on each device$", err, re.M)
        found = json.loads(file.read_text())
        assert found["phases"][0]["fits"] is False
        assert found["phases"][0]["collectives"][0]["kind"] == "all-reduce"

    def test_a_refusal_of_the_compiler_is_a_verdict_and_remedies_are_compiled(self, recipe, monkeypatch):
        compiled = []

        def compiler(plan, phase, config, mesh):
            compiled.append((config.train.accum_steps, config.model.remat, config.model.dtype, config.parallel.mesh))
            raise_it = config.parallel.mesh == "" or config.train.accum_steps == 2
            if raise_it:
                message = "Ran out of memory in memory space hbm. Used 30.50G of 15.75G hbm."
                raise ahead.jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")
            return compile_step(plan, phase, config, mesh)

        monkeypatch.setattr(ahead, "compile_step", compiler)
        found = compile_for(read_config(str(recipe), HEAD), "v5e:2x4", remedies=True)
        (phase,) = found.phases
        assert (phase.refused, phase.fits, phase.roofline, phase.memory, phase.collectives) == (True, False, None, None, ())
        assert (phase.needed, phase.usable) == (int(30.5 * 2**30), int(15.75 * 2**30))
        assert phase.flops > 0
        changes = {remedy.change: remedy.fits for remedy in phase.remedies}
        assert changes == {
            "--config.train.accum_steps=2": False,
            "--config.model.remat=all": False,
            "--config.model.dtype=bfloat16": False,
            "--config.parallel.mesh=1x8x1": True,
        }
        assert compiled[0] == (1, "", "float32", "")
        assert "refused for want of memory" in str(found)

    def test_another_error_of_the_compiler_is_one_line(self, recipe, monkeypatch):
        def compiler(*arguments):
            raise ahead.jax.errors.JaxRuntimeError("UNIMPLEMENTED: no such thing\nand much more")

        monkeypatch.setattr(ahead, "compile_step", compiler)
        with pytest.raises(ahead.JaxftError, match="^phase1 does not compile for v5e:2x4: UNIMPLEMENTED: no such thing$"):
            compile_for(read_config(str(recipe), HEAD), "v5e:2x4")


def test_without_the_compiler_the_extra_is_named(recipe, capsys, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    assert main(["compile", "--target=v5e:4x4", f"--config={recipe}"]) == 2
    assert "pip install 'jaxft[compile-tpu]'" in capsys.readouterr().err
    assert main(["compile", "--target=h100:8", f"--config={recipe}"]) == 2
    assert "pip install 'jaxft[compile-cuda]'" in capsys.readouterr().err


def test_a_target_that_is_none_and_a_folder_that_is_none_are_found_first(capsys, tmp_path):
    assert main(["compile", "--target=v5e", "--config=nowhere.py"]) == 2
    assert "the target is 'v5e': write v5e:4x4" in capsys.readouterr().err
    assert main(["compile", "--target=v5e:4x4", "--config=nowhere.py", f"--json={tmp_path}/none/found.json"]) == 2
    assert "no folder" in capsys.readouterr().err


def test_candidates_leave_each_device_the_same_number_of_examples_and_split_what_is_whole(recipe):
    config = read_config(str(recipe), ("--config.input.batch_size=32", "--config.train.accum_steps=1"))
    steps, others = candidates(config, make_mesh())
    assert steps == [2, 4]
    assert others == {"model__remat": "all", "model__dtype": "bfloat16", "parallel__mesh": "1x8x1"}
    config = read_config(str(recipe), ("--config.model.remat=all", "--config.model.dtype=bfloat16"))
    assert candidates(config, make_mesh("2x4x1"))[1] == {}


def test_the_text_tells_networks_between_slices_and_what_is_not_known():
    figures = FIGURES["v4"]
    line = roofline(figures, flops=1e12, dtype="float32", nbytes=1e9, link_bytes=1e6, network_bytes=5e5, batch_size=64)
    phase = PhaseAhead(
        "phase1", 10, 20, 80.0, False, Memory(1, 2, 2, 5), 6, figures.usable, True,
        (Collective("send", 2, 500_000),), 8 * 10**12, 10**9, 1e6, 5e5, line, (), (),
    )  # fmt: skip
    found = Ahead(
        "2xv4:2x2x1", 8, 2, 2, figures, {"data": 8, "fsdp": 1, "tensor": 1}, "net", 32, 64, 2, "float32", {"jax": "1"}, (phase,)
    )
    text = str(found)
    assert "8 x TPU v4 of 2 hosts in 2 slices (data 8, fsdp 1, tensor 1)" in text
    assert "collectives    2 sends 0.50 MB on each device" in text
    assert re.search(r"network\s+unknown\s+0.50 MB sent between slices: its speed is not published", text)
    assert "an upper bound from published figures, bound by compute; never run" in text
    assert max(map(len, text.splitlines())) <= 140
    short = dataclasses.replace(phase, fits=False, remedies=(Remedy("--config.model.remat=all", 10**9, True),))
    assert "--config.model.remat=all: 1.00 GB, fits" in str(dataclasses.replace(found, phases=(short,)))
    assert TooLarge(2, 1).needed == 2


COMPILERS = {"libtpu": ("v5e:2x4", "2xv5e:2x2"), "jax_plugins": ("h100:8", "h100:2x4")}


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, marks=pytest.mark.skipif(not importlib.util.find_spec(needed), reason=f"takes {needed}"))
        for needed, found in COMPILERS.items()
        for target in found
    ],
)
def test_a_frozen_network_tells_its_heads_gradients_and_metrics_once(recipe, tmp_path, target):
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "jaxft", "compile", f"--target={target}", f"--config={recipe}", f"--json={file}", *HEAD]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_PLATFORMS", "TPU_", "XLA_FLAGS"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=bare)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(file.read_text())
    (phase,) = found["phases"]
    kinds = {one["kind"]: one for one in phase["collectives"]}
    if found["slices"] > 1:
        assert kinds["send"]["nbytes"] > 0
        assert phase["network_bytes"] > 0
    else:
        assert list(kinds) == ["all-reduce"]
        assert kinds["all-reduce"]["count"] == 1
        assert GRADIENTS < kinds["all-reduce"]["nbytes"] <= GRADIENTS + 200
    assert phase["fits"] is True
    assert phase["roofline"]["images_per_second"] > 1000
    assert "fits" in done.stdout


RECORD = Path(__file__).parent.parent.parent / "docs" / "aot.json"


def test_what_was_recorded_of_real_networks_has_one_collective_where_the_network_is_frozen():
    recorded = json.loads(RECORD.read_text())
    frozen = [name for name in recorded if " head " in name]
    assert {"v5e:2x4", "v5e:16x16", "h100:8"} <= {recorded[name]["target"] for name in frozen}
    for name in frozen:
        (phase,) = recorded[name]["phases"]
        assert recorded[name]["exit_code"] == 0
        assert phase["trained"] == 20_490
        if recorded[name]["slices"] == 1:
            (reduced,) = phase["collectives"]
            assert (reduced["kind"], reduced["count"]) == ("all-reduce", 1)
            assert 4 * 20_490 < reduced["nbytes"] <= 4 * 20_490 + 200
