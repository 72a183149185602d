"""`jaxft probe` on real pictures: what it finds, keeps, reads again, and the run that it leaves."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jaxft.cli.config import read_config
from jaxft.cli.main import USAGE, main
from jaxft.data import eval_batches
from jaxft.errors import JaxftError
from jaxft.export import export_run
from jaxft.models import clip, registry, vit
from jaxft.parallel import make_mesh
from jaxft.plan import make_plan
from jaxft.predict import evaluate_run, predict_files
from jaxft.preprocessing import Preprocessing
from jaxft.probing import Settings, probe, run
from jaxft.workdir import load_run

# Half of the pictures are to be judged on.
SPLITS = ("--config.data.val_fraction=0.3", "--config.data.test_fraction=0.3", "--config.probe.c_count=5")

pytestmark = pytest.mark.usefixtures("quick_compiles", "alone")


@pytest.fixture(scope="module")
def alone():
    """Eight simulated devices on a few cores are nothing but slow: probes of this file run on one unless they say otherwise."""
    run.make_mesh = lambda layout: make_mesh(layout, jax.devices()[:1])
    yield
    run.make_mesh = make_mesh


@pytest.fixture(scope="module")
def probed(tmp_path_factory, recipe, alone, quick_compiles):
    """(what was found, the workdir) of all methods for classes."""
    workdir = tmp_path_factory.mktemp("probed") / "run"
    methods = ("linear", "knn", "prototypes", "tip", "tip_f")
    return probe(read_config(str(recipe), SPLITS), workdir, methods=methods, say=lambda line: None), workdir


def kept(workdir):
    return {row["method"]: row for row in json.loads((workdir / "probe.json").read_text())["rows"]}


def test_every_method_chooses_on_validation_and_is_judged_on_every_test_picture(probed):
    found, workdir = probed
    assert found.counts == {"train": 12, "val": 9, "test": 9}
    assert [row.method for row in found.rows] == ["linear", "knn", "prototypes", "tip", "tip_f"]
    for row in found.rows:
        assert (row.setting, row.validation[0]) in [(setting, figure) for setting, figure in row.sweep]
        assert row.validation[0] == max(figure for _, figure in row.sweep)
        low, high = row.test[1:]
        assert 0 <= low <= row.test[0] <= high <= 1
        assert 9 * row.test[0] == pytest.approx(round(9 * row.test[0]))
    assert len(found.rows[0].sweep) == 5
    assert found.rows[0].test[0] > 0.6  # a mean colour tells the class
    table = str(found).splitlines()
    assert table[0].startswith("resnet10t on folder:")
    assert "12 train, 9 val, 9 test" in table[0]
    assert table[2].split() == ["method", "chosen", "on", "validation", "validation", "test"]
    assert kept(workdir)["linear"]["setting"] == found.rows[0].setting


def test_the_linear_probe_is_a_run_like_any_other(probed, photos, tmp_path):
    found, workdir = probed
    tuned = load_run(workdir)
    assert (tuned.step, tuned.task, tuned.class_names) == (1, "classify", ("circle", "cross", "dots"))
    assert tuned.record["probe"] == {"method": "linear", "setting": found.rows[0].setting, "refit": "train"}
    for split, figure in (("val", found.rows[0].validation), ("test", found.rows[0].test)):
        judged = evaluate_run(workdir, split=split).judged
        assert judged.figures["accuracy"] == pytest.approx(figure[0])
        assert judged.intervals["accuracy"] == pytest.approx(figure[1:])
    assert len(predict_files(tuned, [photos]).logits) == 30
    assert export_run(workdir, tmp_path / "net").tensors > 10


def test_its_logits_are_those_of_the_probe_on_the_features(probed, recipe):
    _, workdir = probed
    config = run._run_config(read_config(str(recipe), SPLITS))
    plan, tuned = make_plan(config, manifest=workdir / "splits.json"), load_run(workdir)
    batch = next(eval_batches(plan.splits.test, plan.model.preprocessing, batch_size=9))
    outputs, _ = tuned.apply(tuned.params, tuned.model_state, batch["image"], train=False, rng=None)
    (file,) = (workdir / "features").glob("test-*.rows")
    rows = np.fromfile(file, np.float32).reshape(9, 512)
    np.testing.assert_allclose(outputs["features"], rows, rtol=1e-4, atol=1e-4)
    train = run.Split(
        np.fromfile(next((workdir / "features").glob("train-*.rows")), np.float32).reshape(12, 512), plan.splits.train.labels
    )
    val = run.Split(np.fromfile(next((workdir / "features").glob("val-*.rows")), np.float32).reshape(9, 512), plan.val.labels)
    given = run.Given(train, val, train, 3, "classify", None, lambda x: x, Settings(**config.probe.to_dict()), make_mesh(), 0)
    np.testing.assert_allclose(outputs["logits"], run.METHODS["linear"](given).scorer(rows), rtol=1e-3, atol=1e-3)


def test_features_are_read_again_and_another_method_adds_its_row(probed, recipe, tmp_path):
    _, workdir = probed
    folder = shutil.copytree(workdir, tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in (folder / "features").iterdir()}
    (folder / "probe.json").write_text(json.dumps({"rows": [row for row in kept(folder).values() if row["method"] != "knn"]}))
    said = []
    trains = ("--config.adapter.options.rank=2", "--config.optim.lr=0.5")  # no matter for a probe
    found = probe(read_config(str(recipe), [*SPLITS, *trains]), folder, methods=["knn"], say=said.append)
    assert sum(line.endswith("computed before") for line in said) == 3
    assert {file: file.stat().st_mtime_ns for file in (folder / "features").iterdir()} == before
    assert [row.method for row in found.rows] == ["knn"]
    assert list(kept(folder)) == ["linear", "knn", "prototypes", "tip", "tip_f"]
    assert kept(folder)["knn"] == kept(workdir)["knn"]
    with pytest.raises(JaxftError, match="holds a run of another config: config.data.per_class was None, is 2"):
        probe(read_config(str(recipe), [*SPLITS, "--config.data.per_class=2"]), folder)


def test_the_command_learns_from_few_pictures_on_one_device_as_on_eight(recipe, tmp_path, monkeypatch, capsys):
    given = ["probe", f"--config={recipe}", "--per-class=2", "--method=linear", *SPLITS]
    assert main([*given, f"--workdir={tmp_path / 'one'}", f"--json={tmp_path / 'found.json'}"]) == 0
    out, err = capsys.readouterr()
    assert "of each class 2 training pictures are used, 6 of 12" in err
    assert "(6 train, 9 val, 9 test)" in out
    assert json.loads((tmp_path / "found.json").read_text())["counts"]["train"] == 6
    monkeypatch.setattr(run, "make_mesh", make_mesh)
    assert main([*given, f"--workdir={tmp_path / 'eight'}"]) == 0
    many, one = (load_run(tmp_path / name).params["fc"] for name in ("eight", "one"))
    # A feature that hardly differs between six pictures is scaled up with its rounding.
    np.testing.assert_allclose(many["kernel"], one["kernel"], rtol=5e-3, atol=1e-3)


def test_validation_examples_count_too_where_they_are_asked_for(probed, recipe, tmp_path):
    found, workdir = probed
    config = read_config(
        str(recipe), [*SPLITS, "--config.probe.refit=train+val", f"--config.features.dir={workdir / 'features'}"]
    )
    more = probe(config, tmp_path / "run", methods=["linear", "knn"], say=lambda line: None)
    assert more.rows[0].validation == found.rows[0].validation
    assert more.rows[0].setting == found.rows[0].setting
    kernels = [load_run(folder).params["fc"]["kernel"] for folder in (workdir, tmp_path / "run")]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_labels_have_a_linear_probe(recipe, photos, tmp_path, task):
    lines = ["path,label"]
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        bright = np.asarray(Image.open(file)).mean((0, 1)) / 255
        label = f"{bright[0]:.4f}" if task == "regression" else ";".join(["all", *(["red"] if number < 10 else [])])
        lines.append(f"{file},{label}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    monitor = "mae" if task == "regression" else "accuracy"
    more = [
        f"--config.data.source=csv:{tmp_path / 'table.csv'}",
        f"--config.data.task={task}",
    ]
    config = read_config(str(recipe), [*SPLITS, *more])
    found = probe(config, tmp_path / "run", say=lambda line: None)
    (row,) = found.rows
    figures = evaluate_run(tmp_path / "run", split="test").judged.figures
    assert figures[monitor] == pytest.approx(row.test[0], rel=1e-3)
    assert (row.test[0] < 0.1) if task == "regression" else (row.test[0] > 0.8)
    with pytest.raises(JaxftError, match=f"knn tells classes apart: for the task '{task}' there is --method=linear alone"):
        probe(config, tmp_path / "run", methods=["knn"])


def test_texts_of_a_network_that_knows_them_make_a_row_and_begin_a_training(recipe, photos, tmp_path, monkeypatch):
    entry = clip.ARCHITECTURES["vit_base_patch32_clip_224"]
    config = dataclasses.replace(entry.config, width=16, depth=1, heads=2, hidden=16, patch=16)
    monkeypatch.setitem(registry._REGISTRY, "tiny_clip", vit.architecture(config, Preprocessing(32, 32), "clip"))
    weights, texts = tmp_path / "tower.safetensors", tmp_path / "texts.npz"
    _timm_file(weights)
    rng = np.random.default_rng(3)
    np.savez(texts, class_names=["dots", "circle", "cross"], embeddings=rng.normal(size=(3, 2, 12)), logit_scale=2.0)
    network = ["--config.model.name=tiny_clip", f"--config.model.pretrained={weights}", "--config.model.drop_path=0.0"]
    command = ["probe", f"--config={recipe}", f"--workdir={tmp_path / 'run'}", *SPLITS, *network, f"--text={texts}"]
    assert main(command) == 0
    row = kept(tmp_path / "run")["zero_shot"]
    assert list(kept(tmp_path / "run")) == ["zero_shot", "linear", "knn", "prototypes", "tip"]

    begin = [
        *SPLITS,
        *network,
        "--config.phases.phase2.train=full",
        "--config.model.head=cosine:12",
        f"--config.model.zero_shot={texts}",
    ]
    plan = make_plan(read_config(str(recipe), begin))
    batch = next(eval_batches(plan.splits.test, plan.model.preprocessing, batch_size=9))
    logits = np.asarray(plan.apply(plan.params, plan.model_state, batch["image"], train=False, rng=None)[0]["logits"])
    assert (logits.argmax(-1) == batch["label"]).mean() == pytest.approx(row["test"][0])
    assert np.abs(logits).max() <= np.exp(2.0) + 1e-4
    with pytest.raises(JaxftError, match=r"need config\.model\.head='cosine:12', it is 'linear'"):
        make_plan(read_config(str(recipe), [*begin, "--config.model.head=linear"]))
    np.savez(texts, class_names=["dots", "circle", "cross"], embeddings=rng.normal(size=(3, 13)))
    assert main([*command[:2], f"--workdir={tmp_path / 'other'}", *command[3:]]) == USAGE
    assert not (tmp_path / "other").exists()


def _timm_file(file):
    """The weights of `tiny_clip` with a projection to 12, in timm's names."""
    from jaxft.models import build
    from jaxft.weights import export, save_safetensors
    from jaxft.weights.names import rules

    model = build("tiny_clip", 12)
    params, _ = jax.jit(model.init)(jax.random.key(1))
    arrays = jax.tree.map(np.asarray, {"params": params})
    save_safetensors(file, export(arrays, rules(model, "timm")), {})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method=kmeans"], "no method is called 'kmeans'"),
        (["--method=zero_shot"], "zero_shot needs the embeddings of texts: give --text=FILE.npz"),
        (["--text=none.npz"], "cannot read the text embeddings 'none.npz'"),
        (["--config.model.head=mlp"], "a probe is a linear head: set it to 'linear'"),
        (["--config.probe.refit=val"], "config.probe.refit is 'val', not 'train' or 'train+val'"),
        (["--config.probe.c_min=0.0"], "config.probe.c_min (0) must be positive"),
        (["--config.probe.neighbors=5,0"], "config.probe.neighbors is '5,0'"),
        (["--config.probe.temperature=0.0"], "config.probe.temperature is 0"),
        (["--per-class=0"], "config.data.per_class is 0: it must be at least 1"),
    ],
)
def test_what_does_not_fit_is_one_clear_line_and_leaves_nothing(recipe, tmp_path, capsys, more, message):
    assert main(["probe", f"--config={recipe}", f"--workdir={tmp_path / 'run'}", *more]) == USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_head_that_is_no_linear_map_has_no_linear_probe(recipe, tmp_path):
    config = read_config(str(recipe), ["--config.model.name=squeezenet1_0"])
    config.model.drop_path = None
    with pytest.raises(JaxftError, match=r"squeezenet1_0 is no linear map of features: give --method=knn,prototypes,tip"):
        probe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    found = probe(config, tmp_path / "run", methods=["prototypes"], say=lambda line: None)
    assert found.rows[0].test[0] > 0.3
    assert found.run is None
    (file,) = (tmp_path / "run" / "features").glob("train-*.json")
    assert json.loads(file.read_text())["about"]["shape"][1:] == [1, 1, 512]
