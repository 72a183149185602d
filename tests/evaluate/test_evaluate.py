"""Evaluation of a whole split equals a plain loop, for any size, batch size and number of devices."""

import functools

import jax
import nets
import numpy as np
import pytest
from sklearn.metrics import recall_score

from jaxft import losses
from jaxft.data import eval_batches
from jaxft.data.sources import Arrays
from jaxft.evaluate import evaluate
from jaxft.metrics import classification_metrics, loss_metrics, multilabel_metrics, regression_metrics
from jaxft.parallel import make_mesh, put_batch, replicate
from jaxft.preprocessing import Preprocessing, on_pixels
from jaxft.train import make_eval_step

PARAMS, STATE = nets.init()
SIDE, MOST = 8, 33
PREPROCESSING = Preprocessing(size=SIDE, resize=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
APPLY = on_pixels(nets.make_apply(), PREPROCESSING)
STEP = jax.jit(make_eval_step(APPLY, losses.softmax_cross_entropy, metrics=classification_metrics(nets.CLASSES)))
SIZES = [1, 2, 7, 8, 9, 31, 33]

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (MOST, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = RNG.integers(0, nets.CLASSES, MOST).astype(np.int32)


def _source(size, labels=LABELS):
    return Arrays(IMAGES[:size], labels[:size], [f"{number}.png" for number in range(size)])


def _batches(size, batch_size, labels=LABELS, **more):
    return eval_batches(_source(size, labels), PREPROCESSING, batch_size=batch_size, threads=2, **more)


def _say(image):
    """The network of tests/nets.py on one picture, in NumPy alone and float64: logits [K]."""
    x = (image / 255 - PREPROCESSING.mean) / PREPROCESSING.std
    for name in ("stem", "block1", "block2"):
        layer, stats = PARAMS[name], STATE["batch_stats"][name]["bn"]
        kernel = np.asarray(layer["conv"]["kernel"], np.float64)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        x = np.zeros((SIDE, SIDE, kernel.shape[-1])) + np.asarray(layer["conv"]["bias"])
        for row in range(3):
            for column in range(3):
                x += padded[row : row + SIDE, column : column + SIDE] @ kernel[row, column]
        x = (x - np.asarray(stats["mean"])) / np.sqrt(np.asarray(stats["var"], np.float64) + 1e-5)
        x = np.maximum(x * np.asarray(layer["bn"]["scale"]) + np.asarray(layer["bn"]["bias"]), 0)
    return x.mean((0, 1)) @ np.asarray(PARAMS["head"]["kernel"]) + np.asarray(PARAMS["head"]["bias"])


@functools.cache
def _said():
    return np.array([_say(image) for image in IMAGES])


def _plain_loop(size):
    """Figures of the first examples, one after the other."""
    loss = right = 0.0
    for logits, label in zip(_said()[:size], LABELS[:size], strict=True):
        loss += np.log(np.exp(logits - logits.max()).sum()) - (logits[label] - logits.max())
        right += int(logits.argmax()) == label
    labels, said = LABELS[:size], _said()[:size].argmax(-1)
    recall = recall_score(labels, said, labels=np.unique(labels), average="macro")
    return {"loss": loss / size, "accuracy": right / size, "balanced_accuracy": recall}


def _check(found, size):
    assert found.count == size
    np.testing.assert_array_equal(found.index, np.arange(size))
    np.testing.assert_array_equal(found.labels, LABELS[:size])
    np.testing.assert_allclose(found.logits, _said()[:size], rtol=1e-4, atol=1e-4)
    expected = _plain_loop(size)
    assert found.metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found.metrics[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_examples_are_a_fair_test_with_right_and_wrong_answers():
    assert 0 < _plain_loop(MOST)["accuracy"] < 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_evaluation_equals_a_loop_over_single_examples(size, batch_size):
    _check(evaluate(STEP, PARAMS, STATE, _batches(size, batch_size), expect=size), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch_size", [8, 64])
def test_evaluation_on_eight_devices_equals_that_loop(size, batch_size):
    mesh = make_mesh()
    assert mesh.size == 8
    shards = []

    def put(batch):
        placed = put_batch(batch, mesh)
        shards.append(placed["image"].sharding.shard_shape(placed["image"].shape)[0])
        return placed

    params, state = replicate((PARAMS, STATE), mesh)
    _check(evaluate(STEP, params, state, _batches(size, batch_size), expect=size, put=put), size)
    assert shards == [batch_size // 8] * -(-size // batch_size)


@pytest.mark.parametrize("size", [1, 8, 33])
def test_the_shares_of_two_hosts_make_one_whole(size):
    shares = [batch for rows in (range(4), range(4, 8)) for batch in _batches(size, 8, rows=rows)]
    assert len(shares) == 2 * -(-size // 8)
    _check(evaluate(STEP, PARAMS, STATE, shares, expect=size), size)


@pytest.mark.parametrize("size", [1, 8, 33])
def test_shares_of_rows_that_do_not_follow_each_other_have_every_example_once(size):
    shares = [batch for rows in ([0, 1, 4, 5], [2, 3, 6, 7]) for batch in _batches(size, 8, rows=rows)]
    assert len(shares) == 2 * -(-size // 8)
    _check(evaluate(STEP, PARAMS, STATE, shares, expect=size), size)


def test_batches_in_any_order_give_the_same_evaluation():
    batches = list(_batches(33, 3))
    order = RNG.permutation(len(batches))
    _check(evaluate(STEP, PARAMS, STATE, [batches[place] for place in order], expect=33), 33)


def test_what_the_padding_holds_changes_nothing():
    *whole, last = _batches(9, 8)
    assert last["mask"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    clean = evaluate(STEP, PARAMS, STATE, [*whole, last], expect=9)
    last = {key: value.copy() for key, value in last.items()}
    last["image"][1:], last["label"][1:], last["index"][1:] = 255, 3, 77
    found = evaluate(STEP, PARAMS, STATE, [*whole, last], expect=9)
    assert found.metrics == clean.metrics
    np.testing.assert_array_equal(found.logits, clean.logits)
    np.testing.assert_array_equal(found.index, clean.index)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda batches: batches[:-1], "evaluated 8 of 9 examples, 8 in all"),
        (lambda batches: batches[1:], "evaluated 1 of 9 examples, 1 in all"),
        (lambda batches: [], "evaluated 0 of 9 examples, 0 in all"),
        (lambda batches: [*batches, batches[-1]], "evaluated 9 of 9 examples, 10 in all"),
        (lambda batches: [*batches, batches[0]], "evaluated 9 of 9 examples, 17 in all"),
        (lambda batches: [batches[0], batches[0]], "evaluated 8 of 9 examples, 16 in all"),
        # As many as there should be, but one twice in the place of another.
        (
            lambda batches: [batches[0], {**batches[1], "index": batches[0]["index"]}],
            "evaluated 8 of 9 examples, 9 in all",
        ),
        (
            lambda batches: [batches[0], {**batches[1], "mask": 0 * batches[1]["mask"]}],
            "evaluated 8 of 9 examples, 8 in all",
        ),
        (lambda batches: [batches[0], {**batches[1], "mask": np.ones(8)}], "evaluated 9 of 9 examples, 16 in all"),
    ],
)
def test_a_stream_that_doubles_or_drops_an_example_gives_no_figure(break_it, message):
    batches = list(_batches(9, 8))
    with pytest.raises(RuntimeError, match=message):
        evaluate(STEP, PARAMS, STATE, break_it(batches), expect=9)


def test_an_error_of_the_input_is_raised_and_not_taken_for_its_end():
    def torn():
        yield from _batches(8, 8)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        evaluate(STEP, PARAMS, STATE, torn(), expect=8)


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_many_labels_and_values_are_kept_and_judged_as_classes_are(batch_size):
    many = (RNG.random((MOST, nets.CLASSES)) < 0.4).astype(np.float32)
    step = jax.jit(make_eval_step(APPLY, losses.binary_cross_entropy, metrics=multilabel_metrics()))
    found = evaluate(step, PARAMS, STATE, _batches(MOST, batch_size, many), expect=MOST)
    np.testing.assert_array_equal(found.labels, many)
    np.testing.assert_allclose(found.metrics["accuracy"], ((_said() > 0) == (many > 0.5)).mean(), rtol=1e-6)

    def apply_to_value(*args, **kwargs):
        outputs, state = APPLY(*args, **kwargs)
        return {"logits": outputs["logits"][:, :1]}, state

    values = RNG.normal(size=MOST).astype(np.float32)
    step = jax.jit(make_eval_step(apply_to_value, losses.mean_squared_error, metrics=regression_metrics()))
    found = evaluate(step, PARAMS, STATE, _batches(MOST, batch_size, values), expect=MOST)
    np.testing.assert_array_equal(found.labels, values)
    assert found.logits.shape == (MOST, 1)
    np.testing.assert_allclose(found.metrics["mae"], np.abs(_said()[:, 0] - values).mean(), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["loss"], ((_said()[:, 0] - values) ** 2).mean(), rtol=1e-5)


def _say_the_label(params, state, batch):
    """A step whose loss is a row's label and whose logits are a hundred times its look."""
    figures = loss_metrics().single_from_model_output(loss=batch["label"], mask=batch["mask"])
    return figures, {"logits": 100.0 * batch["shown"][:, None], "loss": batch["label"]}


def _views(rows):
    """One batch of (shown, index, label, mask) rows."""
    shown, index, label, mask = np.array(rows, np.float32).T
    return {"shown": shown, "index": index.astype(np.int32), "label": label, "mask": mask}


def test_an_example_of_several_views_has_the_mean_of_their_losses_and_the_first_ones_logits():
    first = _views([(0, 1, 5.0, 1), (0, 0, 1.0, 1), (1, 1, 7.0, 1), (1, 0, 2.0, 1)])
    last = _views([(0, 2, 4.0, 1), (0, 0, np.nan, 0), (1, 2, 6.0, 1), (1, 0, np.nan, 0)])
    found = evaluate(_say_the_label, {}, {}, [first, last], expect=3, views=2)
    np.testing.assert_allclose(found.losses, [1.5, 6.0, 5.0])
    np.testing.assert_array_equal(found.logits, np.zeros((3, 1)))
    assert found.index.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.metrics["loss"], 25 / 6)


@pytest.mark.parametrize("rows", [[(0, 0, 1, 1), (0, 1, 1, 1), (1, 0, 1, 1)], [(0, 0, 1, 1), (1, 0, 1, 1)]])
def test_a_view_that_is_missing_is_an_error_and_no_figure(rows):
    with pytest.raises(RuntimeError, match="of 2 examples"):
        evaluate(_say_the_label, {}, {}, [_views(rows)], expect=2, views=2)


def test_logits_that_nobody_reads_are_left_out():
    step = make_eval_step(APPLY, losses.softmax_cross_entropy, metrics=loss_metrics(), keep_logits=False)
    found = evaluate(step, PARAMS, STATE, _batches(3, 2), expect=3)
    assert found.logits.shape == (3, 0)
    whole = evaluate(STEP, PARAMS, STATE, _batches(3, 2), expect=3)
    np.testing.assert_allclose(found.losses, whole.losses, rtol=1e-5)
    np.testing.assert_allclose(whole.losses.mean(), whole.metrics["loss"], rtol=1e-6)
