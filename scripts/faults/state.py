"""What a run left and goes on from: checkpoints, config, splits, logs, lock."""

import json
import os
import shutil
import signal
import time

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
from faults.table import ITSELF, LOG_LOST, UNTOUCHED, fault

from jaxft.manifest import write_manifest


def edit(stage, item, change):
    """Changes the arrays of the newest checkpoint as Orbax itself would have written them, and lists the hashes anew."""
    folder = stage.checkpoints / str(stage.before)
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.restore(folder / item)
    change(tree)
    shutil.rmtree(folder / item)
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder / item, tree)
    (folder / "MANIFEST").unlink()
    write_manifest(folder)


def edited(stage, item, change):
    """Goes on from an edited checkpoint."""
    stage.begin()
    edit(stage, item, change)
    return stage.refused()


@fault("a leaf is missing in the checkpoint", code=2, says="1 missing (params/fc/bias)", then=UNTOUCHED)
def missing_leaf(stage):
    return edited(stage, "params", lambda tree: tree["fc"].pop("bias"))


@fault("the checkpoint has a leaf too many", code=2, says="1 unexpected (fc/scale)", then=UNTOUCHED)
def extra_leaf(stage):
    return edited(stage, "params", lambda tree: tree["fc"].update(scale=np.ones(3, np.float32)))


@fault("a leaf of the checkpoint has another shape", code=2, says="fc/bias is float32[4], not float32[3]", then=UNTOUCHED)
def other_shape(stage):
    return edited(stage, "params", lambda tree: tree["fc"].update(bias=np.zeros(4, np.float32)))


@fault("a leaf of the checkpoint has another dtype", code=2, says="is bfloat16[512,3], not float32[512,3]", then=UNTOUCHED)
def other_dtype(stage):
    return edited(stage, "params", lambda tree: tree["fc"].update(kernel=tree["fc"]["kernel"].astype(ml_dtypes.bfloat16)))


@fault("an average (EMA) is missing in the checkpoint", code=2, says="1 missing (params/fc/bias)", then=UNTOUCHED)
def missing_average(stage):
    return edited(stage, "ema", lambda tree: tree["params"]["fc"].pop("bias"))


@fault(
    "other parts train (another freeze mask), and config.json says so too",
    code=2,
    says="of other trained parts: 18 missing",
    then=UNTOUCHED,
)
def other_mask(stage):
    stage.begin()
    file = stage.workdir / "config.json"
    config = json.loads(file.read_text())
    config["phases"]["phase1"]["train"] = "from:stage4"
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")  # as jaxft writes it
    return stage.refused("--config.phases.phase1.train=from:stage4")


@fault("one bit of the newest checkpoint is flipped", code=0, says="is damaged", then=ITSELF)
def flipped_bit(stage):
    stage.begin()
    flip(stage.checkpoints / str(stage.before))
    return stage.train(), None


def flip(folder):
    file = max((path for path in (folder / "params").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@fault("all checkpoints are damaged", code=2, says="no checkpoint in WORKDIR/checkpoints is whole")
def all_damaged(stage):
    stage.begin()
    for folder in list(stage.checkpoints.iterdir()):
        flip(folder)
    return stage.train(), lambda: shutil.rmtree(stage.checkpoints)


@fault("all checkpoints are gone, the rest of the workdir is there", code=0, says="step 1/12", then=ITSELF)
def no_checkpoints(stage):
    stage.begin()
    shutil.rmtree(stage.checkpoints)
    return stage.train(), None


@fault("killed (SIGKILL) while a checkpoint is written", code=137, says="step ")
def killed_in_a_save(stage):
    life = stage.held(4)
    life.go()
    life.wait_for(stage.is_saving)
    stage.note()
    life.process.kill()
    return life.end(), None


@fault("config.json is cut short", code=2, says="config.json", then=UNTOUCHED)
def cut_config(stage):
    return cut(stage, "config.json")


@fault("splits.json is cut short", code=2, says="the list of splits WORKDIR/splits.json is damaged", then=UNTOUCHED)
def cut_splits(stage):
    return cut(stage, "splits.json")


def cut(stage, name):
    stage.begin()
    file = stage.workdir / name
    os.truncate(file, file.stat().st_size // 2)
    return stage.refused()


@fault("config.json is gone", code=0, says="resuming at step", then=ITSELF)
def no_config(stage):
    stage.begin()
    (stage.workdir / "config.json").unlink()
    return stage.train(), None


@fault("splits.json is gone", code=0, says="split by us", then=ITSELF)
def no_splits(stage):
    stage.begin()
    (stage.workdir / "splits.json").unlink()
    return stage.train(), None


@fault("the last line of metrics.jsonl is cut short", code=0, says="resuming at step", then=ITSELF)
def torn_log(stage):
    life = stage.held(7)
    life.process.kill()
    life.end()
    file = stage.workdir / "metrics.jsonl"
    os.truncate(file, file.stat().st_size - 20)
    return stage.train(), None


@fault("metrics.jsonl holds something else", code=2, says="is not a metric log", then=UNTOUCHED)
def foreign_log(stage):
    stage.begin()
    file = stage.workdir / "metrics.jsonl"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\xff\xfe" + file.read_bytes())
    return stage.refused()


@fault("metrics.jsonl is gone", code=0, says="metrics.jsonl", then=LOG_LOST)
def no_log(stage):
    stage.begin()
    (stage.workdir / "metrics.jsonl").unlink()
    return stage.train(), None


@fault("a lock file is left of a program that is gone", code=0, says="resuming at step", then=ITSELF)
def stale_lock(stage):
    stage.begin()
    (stage.workdir / ".lock").write_text("4194303\n")
    return stage.train(), None


@fault("two runs in one workdir", code=2, says="another run is writing to WORKDIR")
def two_writers(stage):
    first = stage.held(4)
    second = stage.train()
    first.go()
    assert first.end().code == 0, first.lines
    return second, None


@fault("another config in the same workdir", code=2, says="config.optim.weight_decay was 0.01, is 0.5", then=UNTOUCHED)
def other_config(stage):
    stage.begin()
    return stage.refused("--config.optim.weight_decay=0.5")


@fault("a misspelt key", code=2, says="config.optim has no key 'Lr' (did you mean 'lr'", then=UNTOUCHED)
def misspelt_key(stage):
    stage.begin()
    return stage.refused("--config.optim.Lr=1")


@fault("a mesh for more devices than there are", code=2, says="mesh", then=UNTOUCHED)
def wrong_mesh(stage):
    stage.begin()
    return stage.refused("--config.parallel.mesh=8x1x1")


@fault("files of the workdir are dated ten years ahead", code=0, says="resuming at step", then=ITSELF)
def future_files(stage):
    stage.begin()
    later = time.time() + 10 * 365 * 86400
    for path in stage.workdir.rglob("*"):
        os.utime(path, (later, later))
    return stage.train(), None


@fault("Ctrl-C (SIGINT) while a checkpoint is written", code=75, says="everything is saved")
def interrupted_in_a_save(stage):
    life = stage.held(4)
    life.go()
    life.wait_for(stage.is_saving)
    stage.note()
    life.process.send_signal(signal.SIGINT)
    life.go()
    return life.end(), None
