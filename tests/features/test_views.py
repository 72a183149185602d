"""Training on kept features sees what training on pictures sees, in the same order: shown with pixels as features."""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import draw_folder

from jaxft.augment import parse
from jaxft.data import Arrays, Order, eval_batches, open_data, train_batches
from jaxft.data.sources import Stored
from jaxft.features import Rows, Views, feature_batches, feature_eval_batches, fill, views, views_of
from jaxft.models import build
from jaxft.parallel import make_mesh

MODEL = build("efficientnet_lite0", 3, size=32)
RNG = np.random.default_rng(0)
SOURCE = Arrays(RNG.integers(0, 256, (13, 40, 44, 3), np.uint8), np.arange(13, dtype=np.int32), [str(i) for i in range(13)])
SHAPE = (32, 32, 3)


def kept(folder, seen, *, source=SOURCE, block=5, devices=8, stop=lambda: False, say=lambda line: None, compute=None):
    rows = Rows(folder, "train", {}, shape=(seen.count * len(source), *SHAPE), dtype="float32", block=block)
    compute = compute or jax.jit(lambda batch: batch["image"].astype(jnp.float32))
    whole = fill(
        rows, compute, source, seen, model=MODEL, seed=3, mesh=make_mesh(devices=jax.devices()[:devices]), say=say, stop=stop
    )  # fmt: skip
    return rows, whole


def same(batches, expected, count):
    for _ in range(count):
        found, other = next(batches), next(expected)
        assert found.keys() == other.keys()
        for key, value in other.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
            assert found[key].dtype == (np.float32 if key == "image" else value.dtype)


@pytest.mark.parametrize(("batch_size", "start_step", "devices"), [(4, 0, 8), (5, 8, 1), (13, 2, 3), (20, 1, 8)])
def test_with_a_view_an_epoch_every_batch_is_the_one_of_train_batches(tmp_path, batch_size, start_step, devices):
    steps = 6
    first, last = start_step * batch_size // 13, ((start_step + steps) * batch_size - 1) // 13
    seen = views_of(parse("crop_flip"), at_most=20, first_epoch=first, last_epoch=last)
    assert seen.count == last - first + 1
    rows, whole = kept(tmp_path, seen, devices=devices)
    assert whole
    options = {"batch_size": batch_size, "seed": 3, "start_step": start_step}
    expected = train_batches(SOURCE, MODEL.preprocessing, augment="crop_flip", **options)
    same(feature_batches(rows.read(), SOURCE, seen, **options), expected, steps)
    expected.close()


@pytest.mark.parametrize(("sampler", "start_step"), [("balanced", 0), ("sqrt", 7)])
def test_with_a_view_a_pass_a_sampler_by_class_gives_the_batches_of_train_batches(tmp_path, sampler, start_step):
    source = dataclasses.replace(SOURCE, labels=np.repeat([0, 1, 2], [9, 3, 1]).astype(np.int32))
    order = Order(3, 13, source.labels, sampler)
    first, last = order.passes(start_step * 5, (start_step + 6) * 5)
    seen = views_of(parse("crop_flip"), at_most=100, first_epoch=first, last_epoch=last)
    assert seen.count == last - first + 1 > 6
    rows, _ = kept(tmp_path, seen, source=source)
    options = {"batch_size": 5, "seed": 3, "start_step": start_step, "sampler": sampler}
    expected = train_batches(source, MODEL.preprocessing, augment="crop_flip", **options)
    same(feature_batches(rows.read(), source, seen, **options), expected, 6)
    expected.close()


def test_fewer_views_than_epochs_come_round_again_in_the_order_of_the_epochs(tmp_path):
    seen = views_of(parse("crop_flip"), at_most=2, first_epoch=1, last_epoch=9)
    assert (seen.count, seen.first_epoch) == (2, 1)
    rows, _ = kept(tmp_path, seen)
    pixels = rows.read()
    by_epoch = {}
    batches = feature_batches(pixels, SOURCE, seen, batch_size=13, seed=3, start_step=1)
    for epoch in range(1, 6):
        batch = next(batches)
        assert sorted(batch["index"]) == list(range(13))
        by_epoch[epoch] = batch["image"][np.argsort(batch["index"])]
    np.testing.assert_array_equal(by_epoch[1], by_epoch[3])
    np.testing.assert_array_equal(by_epoch[2], by_epoch[4])
    np.testing.assert_array_equal(by_epoch[1], by_epoch[5])
    assert not np.array_equal(by_epoch[1], by_epoch[2])
    expected = train_batches(SOURCE, MODEL.preprocessing, batch_size=13, seed=3, augment="crop_flip", start_step=1)
    first = next(expected)
    np.testing.assert_array_equal(by_epoch[1], first["image"][np.argsort(first["index"])])
    expected.close()


def test_without_randomness_one_view_is_enough_and_exact(tmp_path):
    seen = views_of(parse("none"), at_most=5, first_epoch=0, last_epoch=9)
    assert seen.count == 1
    rows, _ = kept(tmp_path, seen)
    expected = train_batches(SOURCE, MODEL.preprocessing, batch_size=8, seed=3, augment="none")
    same(feature_batches(rows.read(), SOURCE, seen, batch_size=8, seed=3), expected, 7)
    expected.close()


@pytest.mark.parametrize("batch_size", [4, 13, 16])
def test_evaluation_sees_every_example_once_as_eval_batches_shows_it(tmp_path, batch_size):
    rows, _ = kept(tmp_path, Views())
    found = list(feature_eval_batches(rows.read(), SOURCE, batch_size=batch_size))
    expected = list(eval_batches(SOURCE, MODEL.preprocessing, batch_size=batch_size))
    assert len(found) == len(expected)
    same(iter(found), iter(expected), len(expected))


def test_asked_to_stop_it_keeps_what_is_done_and_computes_the_rest_another_time(tmp_path):
    calls = []

    def compute(batch):
        calls.append(len(batch["image"]))
        return batch["image"].astype(jnp.float32)

    seen = views_of(parse("crop_flip"), at_most=2, first_epoch=0, last_epoch=3)
    lines = []
    _, whole = kept(tmp_path, seen, compute=compute, stop=lambda: len(calls) == 2)
    assert (whole, len(calls)) == (False, 2)
    rows, whole = kept(tmp_path, seen, compute=compute, say=lines.append)
    assert (whole, len(calls)) == (True, 6)  # 26 rows in blocks of 5
    assert calls == [8] * 6
    assert "computed in" in lines[-1]
    once, _ = kept(tmp_path / "once", seen)
    np.testing.assert_array_equal(rows.read(), once.read())
    kept(tmp_path, seen, compute=compute)
    assert len(calls) == 6  # all is there


def test_a_picture_that_cannot_be_read_leaves_what_was_computed_before_it(tmp_path, monkeypatch):
    class Broken(Arrays):
        def __getitem__(self, index):
            return (b"no picture" if index == 11 else super().__getitem__(index)[0]), self.labels[index]

    broken = Broken(SOURCE.images, SOURCE.labels, SOURCE.names)
    rows = Rows(tmp_path, "train", {}, shape=(13, *SHAPE), dtype="float32", block=5)
    run = functools.partial(fill, rows, lambda batch: batch["image"].astype(jnp.float32), model=MODEL, seed=3, mesh=make_mesh())
    with pytest.raises(ValueError, match="11: "):
        run(broken, Views(), say=print, stop=lambda: False)
    again = Rows(tmp_path, "train", {}, shape=(13, *SHAPE), dtype="float32", block=5)
    assert again.missing == [2]


def test_what_the_pictures_hold_is_part_of_the_key(tmp_path):
    folder = draw_folder(tmp_path / "photos", per_class=4)
    source = open_data(folder, val_fraction=0.25, test_fraction=0.25).train
    first = views.contents(source)
    assert first == views.contents(source)
    file = source.root / source.names[1]
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert views.contents(source) != first
    changed = SOURCE.images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert views.contents(Arrays(changed, SOURCE.labels, SOURCE.names)) != views.contents(SOURCE)


@pytest.mark.parametrize("encoded", [True, False])
def test_other_pictures_that_a_function_reads_are_found(encoded):
    def source(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), np.uint8)
        read = (lambda row: pixels[row].tobytes()) if encoded else pixels.__getitem__
        return Stored(read, np.arange(4), list("abcd"), np.zeros(4, np.int32), encoded=encoded)

    assert views.contents(source(0)) == views.contents(source(0))
    assert views.contents(source(0)) != views.contents(source(1))
