import json
import os
import subprocess
import sys

import pytest

from jaxft import tree
from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.explain import explain_step
from jaxft.explain.program import module_of, modules_of
from jaxft.explain.step import judge_step, step_needs, step_ops
from jaxft.plan import make_plan

ONE_PHASE = ("--config.train.accum_steps=1", "--config.phases.phase2.length=0 steps")


@pytest.fixture(scope="module")
def explained(recipe, quick_compiles):
    """The head of a ResNet on eight devices that have next to no memory."""
    return explain_step(read_config(str(recipe), ONE_PHASE), memory=1e6)


def test_cost_and_what_freezing_saves_stand_beside_each_other(explained):
    (phase,) = explained.phases
    head = 2 * 16 * 512 * 3
    assert phase.step.flops == phase.verdict.forward + head
    assert phase.full.flops > 2.5 * phase.step.flops
    assert phase.step.xla_flops == pytest.approx(phase.forward_xla_flops + head, rel=0.02)
    # Weights are on each device once; a frozen one has no gradient, moments or average beside it.
    weights = 4 * phase.parameters
    assert weights < phase.step.memory.arguments < 1.1 * weights
    assert 3.9 * weights < phase.full.memory.arguments < 4.1 * weights
    assert phase.step.memory.peak < phase.full.memory.peak
    assert 0 < phase.step.bytes_accessed < phase.full.bytes_accessed
    assert phase.step.recomputed == 0


def test_the_step_of_a_frozen_network_sends_the_heads_gradients_and_a_few_figures(explained):
    (phase,) = explained.phases
    (reduced,) = phase.step.collectives
    head = 4 * (512 * 3 + 3)
    assert reduced.kind == "all-reduce"
    assert reduced.count <= 3
    assert head < reduced.nbytes <= head + 200
    assert phase.full.sent > 4 * phase.parameters


def test_no_frozen_work_is_left(explained):
    verdict = explained.phases[0].verdict
    assert verdict.clean
    assert verdict.found == verdict.needed == 2 * 16 * 512 * 3


def test_what_does_not_fit_comes_with_changes_each_measured(explained):
    (phase,) = explained.phases
    assert phase.fits is False
    changes = {remedy.change: remedy for remedy in phase.remedies}
    assert changes["--config.train.accum_steps=2"].peak < phase.step.memory.peak
    assert {"--config.model.dtype=bfloat16", "--config.model.remat=all"} < changes.keys()
    assert list(changes)[-1].startswith("--config.train.accum_steps=2 ")
    assert not any(remedy.fits for remedy in phase.remedies)


@pytest.mark.parametrize(("train", "stages"), [("head", 0), ("from:stage3", 2), ("full", 4)])
def test_only_blocks_with_a_backward_pass_are_recomputed(recipe, train, stages):
    config = read_config(str(recipe), (*ONE_PHASE, "--config.model.remat=all", f"--config.phases.phase1.train={train}"))
    plan = make_plan(config, weights=False)
    ops, _ = step_ops(plan, plan.phases[0], config)
    modules = modules_of(tree.paths(plan.params))
    again = {module_of(op.name, modules).split("/")[0] for op in ops if op.recomputed and op.flops}
    assert again == {f"layer{number}" for number in range(5 - stages, 5)}
    needs, _ = step_needs(plan, plan.phases[0], config)
    verdict = judge_step(plan.phases[0], ops, needs, "")
    assert verdict.clean
    assert verdict.found == verdict.needed
    assert verdict.recomputed < verdict.forward
    assert (verdict.recomputed > 0) == (stages > 0)


def test_the_table_says_all_of_it(explained):
    text = str(explained)
    (phase,) = explained.phases
    assert "resnet10t at 32 pixels, float32, batch 16, 8 x cpu" in text
    assert f"phase1: 1,539 of {phase.parameters:,} parameters trained" in text
    assert "frozen work    none is left in the backward pass" in text
    assert "of 1.00 MB on each device" in text
    assert "does NOT fit within 90 %" in text
    saved = next(line for line in text.splitlines() if line.startswith("FLOPs of products")).split()[-1]
    assert saved == f"{1 - phase.step.flops / phase.full.flops:.1%}"
    assert max(map(len, text.splitlines())) <= 160


def test_json_holds_the_figures_and_what_follows_from_them(explained):
    found = json.loads(explained.to_json())
    (phase,) = found["phases"]
    memory = phase["step"]["memory"]
    assert memory["peak"] == memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]
    assert phase["verdict"]["clean"] is True
    assert phase["step"]["collectives"][0]["kind"] == "all-reduce"


def test_the_command_explains_one_phase_and_writes_json(recipe, tmp_path, capsys):
    file = tmp_path / "explained.json"
    steps = ["--config.phases.phase2.length=5 steps", "--config.phases.phase2.train=full", "--memory-gb=2", "--run"]
    assert main(["explain-step", f"--config={recipe}", *ONE_PHASE, *steps, "--phase=phase2", f"--json={file}"]) == 0
    text = capsys.readouterr().out
    assert "phase2: " in text
    assert "phase1: " not in text
    assert "all trained" not in text
    (phase,) = json.loads(file.read_text())["phases"]
    assert phase["full"] is None
    assert phase["fits"] is True
    assert phase["limit"] == {"nbytes": 2_000_000_000, "certain": True}
    # Eight simulated devices at 32 pixels: the weights and their copies outweigh what the process needs besides.
    assert phase["actual_peak"] == pytest.approx(phase["step"]["memory"]["peak"], rel=0.3)


def test_an_unknown_phase_is_an_error_that_names_the_nearest(recipe, capsys):
    assert main(["explain-step", f"--config={recipe}", *ONE_PHASE, "--phase=phase11"]) == 2
    assert "no phase 'phase11'" in capsys.readouterr().err


MEASURED = """
import jax, jax.numpy as jnp
from jaxft.explain.actual import actual_peak
from jaxft.parallel import memory_of
shape = jax.ShapeDtypeStruct((4000, 4000), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
step = lambda state, batch: (state + jnp.sin(state @ batch), batch.sum())
compiled = jax.jit(step, donate_argnums=0).lower(shape, shape).compile()
print(actual_peak(compiled, shape, shape), memory_of(compiled).peak)
"""


def test_the_memory_that_a_run_takes_is_measured():
    # In a process of its own, whose heap no other test has left full of holes.
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run([sys.executable, "-c", MEASURED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    actual, predicted = map(int, done.stdout.split())
    assert actual == pytest.approx(predicted, rel=0.15)


def test_a_step_of_sam_is_judged_by_its_two_passes(recipe):
    verdicts = []
    for more in ((), ("--config.train.sam_rho=0.05",)):
        config = read_config(str(recipe), (*ONE_PHASE, "--config.phases.phase1.train=from:stage4", *more))
        plan = make_plan(config, weights=False)
        (ops, _), (needs, _) = step_ops(plan, plan.phases[0], config), step_needs(plan, plan.phases[0], config)
        verdicts.append(judge_step(plan.phases[0], ops, needs, ""))
    plain, sam = verdicts
    assert sam.clean, sam
    assert (sam.forward, sam.found, sam.needed) == (2 * plain.forward, 2 * plain.found, 2 * plain.needed)
