"""The grid of `jaxft data show`: the pixels that a run of the config trains on, and what was done to their labels."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from jaxft import looks
from jaxft.cli.config import read_config
from jaxft.cli.main import USAGE, main
from jaxft.data import decode, eval_transform, train_batches
from jaxft.errors import JaxftError
from jaxft.plan import make_plan

AUGMENT = "random_resized_crop(0.4), random_flip, random_rotation(20)"


@pytest.fixture
def drawn(monkeypatch):
    """Keeps the cells instead of drawing them."""
    kept = []
    monkeypatch.setattr(looks, "draw_grid", lambda path, rows, columns, heads: kept.append((rows, heads)))
    return kept


def test_what_is_drawn_is_what_a_run_trains_on(recipe, drawn, tmp_path):
    config = read_config(str(recipe), [f"--config.input.augment={AUGMENT}"])
    said = looks.show_looks(config, tmp_path / "looks.png", examples=4, looks=2)
    ((rows, heads),) = drawn
    assert heads == ["evaluation", "training, pass 0", "training, pass 1"]
    assert [len(row) for row in rows] == [3] * 4
    plan = make_plan(config, weights=False)
    source, size = plan.splits.train, plan.model.preprocessing.size
    assert f"4 of {len(source)} training examples at {size}x{size} pixels" in said
    batches = train_batches(source, plan.model.preprocessing, batch_size=len(source), seed=config.seed, augment=plan.augment)
    prepare = jax.jit(functools.partial(plan.augment.batch, seed=config.seed, size=size, classes=3))
    chosen = np.unique(np.linspace(0, len(source) - 1, 4).astype(int))
    for shown in range(2):
        batch = next(batches)
        images = np.asarray(prepare(batch)["image"])
        for row, index in zip(rows, chosen, strict=True):
            expected = images[list(batch["index"]).index(index)]
            assert np.abs(row[1 + shown].image - expected).max() <= 0.51  # rounded to be drawn
            before = eval_transform(decode(source[index][0]), plan.model.preprocessing)
            np.testing.assert_array_equal(row[0].image, before)
            name = plan.splits.class_names[source.labels[index]]
            assert row[0].lines[0][0] == row[1 + shown].lines[0][0] == name
    batches.close()


def test_shares_of_mixed_labels_are_written_below(recipe, drawn, tmp_path):
    config = read_config(str(recipe), ["--config.input.augment=mixup(5.0)"])
    looks.show_looks(config, tmp_path / "looks.png", examples=3, looks=1)
    lines = [row[1].lines[0][0] for row in drawn[0][0]]
    assert all("%" in line for line in lines)
    assert any(" + " in line for line in lines)


def test_the_command_writes_a_picture_of_the_grids_size(recipe, tmp_path, capsys):
    out = tmp_path / "looks.png"
    assert main(["data", "show", str(out), f"--config={recipe}", "--examples=2", "--looks=1"]) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.size == (2 * 120 + 8, 2 * 136 + 22 + 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/looks.png"], "cannot write nowhere/looks.png: no folder"),
        (["looks.png", "--examples=0"], "give at least one of each"),
        (["looks.png", "--config.input.augment=random_flop"], "no augmentation is called 'random_flop'"),
    ],
)
def test_what_cannot_be_drawn_is_said(recipe, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "show", f"--config={recipe}", *arguments]) == USAGE
    assert message in capsys.readouterr().err


def test_labels_of_other_tasks_are_numbers_or_lists(recipe):
    plan = make_plan(read_config(str(recipe)), weights=False)
    names = plan.splits.class_names
    assert looks._label(np.float32(0.25), plan) == "0.25"
    assert looks._label(np.array([1.0, 0, 1]), plan) == f"{names[0]} + {names[2]}"
    assert looks._label(np.zeros(3), plan) == "none"
    with pytest.raises(JaxftError, match="give at least one"):
        looks.show_looks(read_config(str(recipe)), "x.png", looks=0)
