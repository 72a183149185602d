"""A run that begins with the weights of another one."""

import shutil

import jax
import numpy as np
import pytest
from small_run import refuses_another_run

from jaxft import tree
from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.errors import JaxftError
from jaxft.plan import make_plan
from jaxft.run import train
from jaxft.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compiles", "one_device")


def _config(small, small_run):
    config = read_config(str(small))
    config.model.pretrained = f"run:{small_run}"
    config.phases.phase1.length = "2 steps"
    return config


def test_all_of_a_run_of_the_same_classes_goes_on_and_the_step_is_zero(small, small_run):
    plan, tuned = make_plan(_config(small, small_run)), load_run(small_run)
    for ours, theirs in ((plan.params, tuned.params), (plan.model_state, tuned.model_state)):
        jax.tree.map(np.testing.assert_array_equal, dict(ours), jax.device_get(dict(theirs)))
    assert f"of the run in {small_run}" in plan.weights
    assert plan.total_steps == 2
    assert "new" not in plan.weights


def test_another_set_of_classes_or_another_head_makes_the_head_new(small, small_run, photos, tmp_path):
    for name in ("circle", "cross"):
        shutil.copytree(photos / name, tmp_path / "two" / name)
    config = _config(small, small_run)
    config.data.source = f"folder:{tmp_path / 'two'}"
    fewer = make_plan(config)
    other = _config(small, small_run)
    other.model.head = "mlp"
    tuned = load_run(small_run)
    for plan in (fewer, make_plan(other)):
        assert "new: head" in plan.weights
        ours, theirs = tree.flatten(plan.params), tree.flatten(tuned.params)
        same = [path for path in ours if not path.startswith("head")]
        assert same
        for path in same:
            np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    assert fewer.params["head"]["kernel"].shape == (64, 2)


def test_such_a_run_trains_goes_on_and_is_exported_whole(small, small_run, tmp_path):
    config = _config(small, small_run)
    assert train(config, tmp_path / "run", go_on=lambda step, figures: False).status in ("finished", "interrupted")
    assert train(config, tmp_path / "run").status == "finished"
    tuned = load_run(tmp_path / "run")
    assert tuned.record["config"]["model"]["pretrained"] == f"run:{small_run}"
    # Another machine does not have the first run: an adapter file holds all.
    assert main(["export", f"--workdir={tmp_path / 'run'}", str(tmp_path / "all.safetensors"), "--to=adapter"]) == 0
    again = load_run(tmp_path / "all.safetensors")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(dict(again.params)), jax.device_get(dict(tuned.params)))


def test_the_command_line_names_a_run_and_inspect_reads_no_weights(small, small_run, capsys):
    assert main(["inspect", f"--config={small}", f"--config.model.pretrained=run:{small_run}"]) == 0
    assert "stage1" in capsys.readouterr().out


def test_a_folder_without_a_run_and_a_run_of_another_network_are_clear_errors(small, small_run, tmp_path):
    config = _config(small, tmp_path / "nothing")
    with pytest.raises(JaxftError, match="no run in"):
        make_plan(config)
    config = _config(small, small_run)
    config.model.name = "tiny_nets:tiny_vit"
    config.model.size = 32
    with pytest.raises(JaxftError, match="is of examples.custom_architecture:small: set config.model.name"):
        make_plan(config)


def test_without_weights_the_plan_has_the_runs_own_size(small, small_run):
    config = _config(small, small_run)
    config.model.size = None  # the network's own is 224
    assert make_plan(config, weights=False).model.preprocessing == make_plan(config).model.preprocessing
    assert make_plan(config, weights=False).model.preprocessing.size == 16


def test_a_run_goes_on_only_from_the_weights_it_began_with(small, small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "first")
    config = _config(small, tmp_path / "first")
    refuses_another_run(small, config, tmp_path / "first", "config.model.pretrained", tmp_path / "run")
