"""A phase that reads kept features trains as it would on pictures, also interrupted, and says what it does."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import types
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxft import inputs, tree
from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.errors import JaxftError
from jaxft.inputs import features_folder, features_of
from jaxft.parallel import make_mesh, replicated
from jaxft.paths import open_path
from jaxft.plan import make_plan
from jaxft.run import train
from jaxft.tuning import FreezeSpec, make_mask

# Five steps of 16 are 3.3 epochs of 24 examples; dropout, stochastic depth, accumulation and averages are on. A small network
# on one device: what costs time here is compiling.
SETTINGS = (
    "--config.model.name=resnet10t",
    "--config.model.pretrained=",
    "--config.model.dropout=0.2",
    "--config.phases.phase1.length=5 steps",
    "--config.phases.phase2.length=2 steps",
    "--config.phases.phase2.train=layer4/0/bn2,head",
)
CACHED = (*SETTINGS, "--config.features.cache=True", "--config.features.views=9")

pytestmark = pytest.mark.usefixtures("quick_compiles")


def arrays(workdir):
    """All arrays of the newest checkpoint by path."""
    folder = workdir / "checkpoints"
    newest = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    found = {}
    for item in ("clock", "params", "model_state", "opt_state", "ema"):
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore((folder / str(newest) / item).absolute())
        for path, leaf in jax.tree_util.tree_flatten_with_path(restored)[0]:
            found[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


def figures(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cached(tmp_path_factory, recipe, one_device):
    workdir = tmp_path_factory.mktemp("cached") / "run"
    assert train(read_config(str(recipe), CACHED), workdir, strict=True).status == "finished"  # each function compiled once
    return workdir


def test_training_on_features_gives_the_parameters_and_figures_of_training_on_pictures(cached, recipe, tmp_path):
    train(read_config(str(recipe), SETTINGS), tmp_path / "run")
    found, expected = arrays(cached), arrays(tmp_path / "run")
    assert found.keys() == expected.keys()
    start = planned(recipe).params
    moved = 0
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    for head in ("kernel", "bias"):
        moved += np.abs(expected[f"params['fc']['{head}']"] - start["fc"][head]).max()
    assert moved > 1e-2
    assert len(figures(cached)) == len(figures(tmp_path / "run")) > 6
    for one, other in zip(figures(cached), figures(tmp_path / "run"), strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name] == (pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value), name


def test_a_run_interrupted_while_filling_and_while_training_goes_on_bit_for_bit(
    cached, recipe, one_device, tmp_path, monkeypatch, capsys
):
    config, workdir = read_config(str(recipe), CACHED), tmp_path / "run"
    batches, computed = inputs.feature_batches, []

    def interrupting(rows, compute, *arguments, **options):
        def counting(image):
            computed.append(len(image))
            if len(computed) == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return compute(image)

        return fill(rows, counting, *arguments, **options)

    fill = inputs.fill
    monkeypatch.setattr(inputs, "fill", interrupting)
    result = train(config, workdir)
    assert (result.status, result.step, len(computed)) == ("interrupted", 0, 4)

    def stepping(*arguments, **options):
        for number, batch in enumerate(batches(*arguments, **options)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(inputs, "feature_batches", stepping)
    result = train(config, workdir)
    assert (result.status, result.step) == ("interrupted", 4)
    # 4 epochs of 24 and 3 to validate in batches of 8: none was computed twice.
    assert len(computed) == 12 + 1
    monkeypatch.setattr(inputs, "feature_batches", batches)
    assert train(config, workdir).status == "finished"
    found, expected = arrays(workdir), arrays(cached)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert figures(workdir) == figures(cached)
    text = capsys.readouterr().out
    assert "features before 'head': 24 examples x 4 views and 3 to validate x 512 float32 = 0.2 MB in" in text
    assert "stopped at step 0; everything is saved: the same command goes on from there" in text
    assert "stopped at step 4; everything is saved: the same command goes on from there" in text
    assert "features before 'stage4': 24 examples x 2 views and 3 to validate x 2x2x256 float32 = 0.2 MB in" in text


MESH = make_mesh(devices=jax.devices()[:3])


@functools.cache
def planned(recipe, *more):
    """A plan whose network was drawn."""
    plan = make_plan(read_config(str(recipe), [*CACHED, *more]))
    params, state = plan.begin(jax.tree.map(lambda _: replicated(MESH), (dict(plan.params), dict(plan.model_state))))
    return dataclasses.replace(plan, params=params, model_state=state)


def prepared(recipe, folder, *more, changes_plan=False):
    """Prepares phase 1; returns what it reads, what it says, and the files in `folder`."""
    config = read_config(str(recipe), [*CACHED, f"--config.features.dir={folder}", *more])
    plan = planned(recipe, *(more if changes_plan else ()))
    lines = []
    given = inputs.phase_input(
        plan, plan.phases[0], config, MESH, None, plan.params, plan.model_state,
        workdir=Path("nowhere"), say=lines.append, stop=lambda: False, watch=lambda function, name: function,
    )  # fmt: skip
    return given, lines, {file.name for file in Path(folder).glob("*.rows")}


def test_features_are_shared_by_runs_that_differ_in_nothing_they_depend_on(recipe, tmp_path, monkeypatch):
    # Which files are looked for is the question here: nothing is computed.
    monkeypatch.setattr(inputs, "fill", lambda rows, *arguments, **options: rows.reserve() or True)
    had = prepared(recipe, tmp_path)[2]
    for setting, changes_plan, changed in (
        ("input.augment=light", True, {"train"}),
        ("input.scaled_decode=False", False, {"train"}),
        ("seed=1", False, {"train"}),
        ("features.views=2", False, {"train"}),
        ("features.dtype=bfloat16", False, {"train", "val"}),
        ("model.size=40", True, {"train", "val"}),
        ("data.split_seed=1", True, {"train", "val"}),
        ("optim.lr=1e-4", False, set()),
        ("input.eval_batch_size=5", False, set()),
        ("input.threads=1", False, set()),
        ("input.processes=2", False, set()),
    ):
        found = prepared(recipe, tmp_path, f"--config.{setting}", changes_plan=changes_plan)[2]
        assert sorted(name.split("-")[0] for name in found - had) == sorted(changed), setting
        had |= found
    plan = planned(recipe)
    moved = tree.map_with_path(lambda path, leaf: leaf + (path == "batch_stats/bn1/mean"), plan.model_state)
    other = dataclasses.replace(plan, model_state=moved)
    monkeypatch.setitem(globals(), "planned", lambda recipe: other)
    assert {name.split("-")[0] for name in prepared(recipe, tmp_path)[2] - had} == {"train", "val"}


def test_bfloat16_features_take_half_the_room_and_are_close(recipe, tmp_path):
    one, lines, files = prepared(recipe, tmp_path / "f32", "--config.features.views=1")
    half, half_lines, half_files = prepared(
        recipe, tmp_path / "bf16", "--config.features.views=1", "--config.features.dtype=bfloat16"
    )
    assert "24 examples x 1 view and 3 to validate x 512 float32 = 0.1 MB in" in lines[0]
    assert "x 512 bfloat16 = 0.0 MB in" in half_lines[0]
    room = [
        sum((tmp_path / kind / name).stat().st_size for name in names) for kind, names in (("f32", files), ("bf16", half_files))
    ]
    assert room == [27 * 512 * 4, 27 * 512 * 2]
    batch, other = next(one.batches(1)), next(half.batches(1))
    np.testing.assert_array_equal(batch["index"], other["index"])
    assert other["image"].dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(batch["image"], other["image"].astype(np.float32), rtol=2**-8)
    plan = planned(recipe)
    figures = [given.evaluate(plan.params, plan.model_state).metrics["loss"] for given in (one, half)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-2)


def reading(recipe, train_part, loss=None):
    config = read_config(str(recipe), CACHED)
    plan = planned(recipe)
    if loss is not None:
        plan = dataclasses.replace(plan, loss=loss)
    spec = FreezeSpec.parse(train_part)
    phase = dataclasses.replace(plan.phases[0], mask=make_mask(spec, plan.params, plan.model.stages))
    return features_of(plan, phase, config)


def test_a_phase_that_cannot_read_features_says_why_and_reads_pictures(recipe):
    assert reading(recipe, "full") == (None, "phase1 trains the first stage: it reads pictures, no features")
    assert reading(recipe, "head,conv1")[0] is None
    found, line = reading(recipe, "head", loss=lambda outputs, batch, *, forward, params: outputs["logits"].sum(-1))
    assert found is None
    assert line == "phase1 reads pictures, no features: its loss asks for passes of its own over them"
    found, line = reading(recipe, "from:stage3")
    assert (found.prefix.stage, found.views.count) == ("stage3", 4)
    assert "x 4x4x128 float32" in line


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--config.features.views=0", "config.features.views is 0: it must be at least 1"),
        ("--config.features.dtype=float16", "config.features.dtype is 'float16', not 'float32' or 'bfloat16'"),
        ("--config.features.cach=True", "cache"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_is_done(recipe, tmp_path, capsys, setting, message):
    assert main(["train", f"--config={recipe}", f"--workdir={tmp_path / 'run'}", setting]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_features_in_several_processes_are_refused(recipe, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(JaxftError, match="config.features.cache works in one process, not in 2: set it to False"):
        make_plan(read_config(str(recipe), CACHED))


def test_damaged_features_are_said_and_mended(recipe, tmp_path):
    first, _, files = prepared(recipe, tmp_path)
    expected = next(first.batches(0))["image"]
    for name in files:
        if name.startswith("train"):
            (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-10])
    again, lines, _ = prepared(recipe, tmp_path)
    assert lines[1].startswith("features: 1 damaged blocks in ")
    np.testing.assert_array_equal(next(again.batches(0))["image"], expected)


def test_a_full_disk_is_one_line_and_leaves_a_run_to_go_on_with(recipe, tmp_path, monkeypatch, capsys):
    command = ["train", f"--config={recipe}", f"--workdir={tmp_path / 'run'}", *CACHED]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    for _ in range(2):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"jaxft: the disk of {tmp_path / 'run' / 'features'} is full (needs 0.2 MB, has 0.0 MB)")
        assert "start it again" in error
        assert error.count("\n") == 1
    assert list((tmp_path / "run" / "features").iterdir()) == []


def test_inspect_says_the_size_and_the_cost_of_a_step_on_features(recipe, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", f"--config={recipe}", *CACHED, "--config.phases.phase2.length=0 steps"]) == 0
    text = capsys.readouterr().out
    assert "features before 'head': 24 examples x 4 views and 3 to validate x 512 float32 = 0.2 MB" in text
    assert float(text.split("GFLOP")[0].split()[-1]) < 0.01  # with the frozen stages it is 0.02
    assert list(tmp_path.iterdir()) == []


def test_features_of_a_run_in_a_bucket_need_a_folder_on_a_disk(recipe, tmp_path):
    workdir = open_path("gs://bucket/run")
    elsewhere = f"--config.features.dir={tmp_path}"
    assert features_folder(workdir, read_config(str(recipe), [elsewhere])) == tmp_path
    for more in ([], ["--config.features.dir=gs://bucket/run/features"]):
        with pytest.raises(JaxftError, match="^features are read like memory, which gs://bucket/run/features is not: "):
            features_folder(workdir, read_config(str(recipe), more))
