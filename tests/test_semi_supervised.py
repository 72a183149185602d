"""Runs that learn from pictures without labels too: what the config asks for, what does not fit, and a run from the command
line."""

import contextlib
import itertools
import json

import jax
import numpy as np
import pytest
from small_run import write_small_recipe

from jaxft.cli.config import read_config
from jaxft.cli.main import main
from jaxft.errors import JaxftError
from jaxft.inputs import pictures
from jaxft.looks import show_looks
from jaxft.parallel import make_mesh
from jaxft.plan import make_plan

pytestmark = pytest.mark.usefixtures("quick_compiles")

FIXMATCH = (
    "--config.data.per_class=3",
    "--config.data.unlabelled=rest",
    "--config.loss.name=fixmatch",
    "--config.loss.options.threshold=0.4",
    "--config.input.unlabelled_ratio=2",
    "--config.input.batch_size=4",
)


@pytest.fixture(scope="module")
def small(made_once, photos):
    return made_once("semi", lambda folder: write_small_recipe(folder / "small.py", photos)) / "small.py"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["loss.name=fixmatch"], "which learns from pictures without labels: set config.data.unlabelled"),
        (["data.unlabelled=rest", "data.per_class=3"], "the loss .the usual one. reads labels alone: set config.loss.name to"),
        (["data.unlabelled=rest", "loss.name=focal"], "the loss .focal. reads labels alone"),
        (["data.unlabelled=rest", "loss.name=fixmatch"], "set config.data.per_class too"),
        (
            ["data.unlabelled=rest", "loss.name=fixmatch", "data.task=regression"],
            "taken for classes, which the task 'regression' does not have",
        ),
        (
            ["data.unlabelled=rest", "loss.name=fixmatch", "features.cache=True"],
            "config.features.cache keeps the features of labelled pictures alone",
        ),
        (
            ["data.unlabelled=rest", "loss.name=fixmatch", "input.strong_augment=crop, mixup"],
            "changes labels or mixes pictures, and unlabelled ones have no label",
        ),
        (["data.unlabelled=rest", "loss.name=fixmatch", "input.strong_augment=rand_augmet"], "did you mean 'rand_augment'"),
        (["input.unlabelled_ratio=0"], "config.input.unlabelled_ratio is 0: it must be at least 1"),
        (
            ["data.unlabelled=rest", "data.per_class=3", "loss.name=fixmatch", "loss.options.threshold=2.0"],
            "config.loss.options: threshold is 2.0",
        ),
    ],
)
def test_what_does_not_fit_together_is_a_clear_error(small, keys, message):
    config = read_config(str(small), [f"--config.{key}" for key in keys])
    with pytest.raises(JaxftError, match=message):
        make_plan(config, weights=False)


@pytest.mark.parametrize("views", [1, 2])
def test_labelled_pictures_come_as_without_the_others_which_stand_beside_them(small, views):
    found = []
    for extra in (FIXMATCH, (FIXMATCH[0], FIXMATCH[-1])):
        config = read_config(str(small), [*extra, f"--config.input.views={views}"])
        plan, mesh = make_plan(config, weights=False), make_mesh("1x1x1", jax.devices()[:1])
        with contextlib.closing(pictures(plan, config, mesh, None).batches(5)) as batches:
            found.append(list(itertools.islice(batches, 2)))
    for both, labelled in zip(*found, strict=True):
        assert both["unlabelled_weak"].shape == both["unlabelled_strong"].shape == (8, 16, 16, 3)
        assert both["unlabelled_index"].shape == (8,)
        for key, value in labelled.items():
            np.testing.assert_array_equal(value, both[key])


def test_what_a_step_sees_is_a_function_of_the_step(small):
    config = read_config(str(small), FIXMATCH)
    plan, mesh = make_plan(config, weights=False), make_mesh("1x1x1", jax.devices()[:1])
    prepare = jax.jit(plan.augment_batch)

    def seen(start, count):
        with contextlib.closing(pictures(plan, config, mesh, None).batches(start)) as batches:
            return [prepare(batch) for batch in itertools.islice(batches, count)]

    for one, again in zip(seen(0, 5)[3:], seen(3, 2), strict=True):
        assert one.keys() == again.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, again[key], err_msg=key)
        assert one["unlabelled_strong"].shape == (8, 16, 16, 3)
        assert (np.asarray(one["unlabelled_weak"]) != np.asarray(one["unlabelled_strong"])).any()


@pytest.mark.usefixtures("one_device")
def test_a_run_from_the_command_line_says_what_it_reads_and_is_judged_without_those_pictures(small, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert main(["train", f"--config={small}", f"--workdir={workdir}", *FIXMATCH]) == 0
    said = capsys.readouterr()
    assert "pictures are learnt from without their labels" in said.out + said.err
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) > 4
    assert main(["eval", f"--workdir={workdir}"]) == 0
    other = [*FIXMATCH[:1], "--config.data.unlabelled=", *FIXMATCH[2:]]
    assert main(["train", f"--config={small}", f"--workdir={workdir}", *other]) != 0
    assert "config.data.unlabelled" in capsys.readouterr().err


def test_looks_of_labelled_pictures_are_drawn_as_before(small, tmp_path):
    config = read_config(str(small), FIXMATCH)
    assert "training examples" in show_looks(config, tmp_path / "looks.png", examples=2, looks=2)
