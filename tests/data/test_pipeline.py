"""Batches: the same examples and pixels for any threads, shares and restarts; every example of an evaluation once."""

import dataclasses
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, smooth

from jaxft.augment import parse
from jaxft.data import (
    SAMPLERS,
    Arrays,
    BadImage,
    Files,
    LoadTimes,
    Order,
    decode,
    eval_batches,
    eval_transform,
    loading,
    read_train,
    train_batches,
    view_batches,
)
from jaxft.data.order import permutation
from jaxft.decoding import memory
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing
from jaxft.streams import augment_rng

TINY = Preprocessing(size=3, resize=3)
SMALL = Preprocessing(size=12, resize=14)
HOSTS = st.integers(1, 4)


def numbered(n):
    """Examples that show their number: pixels and labels."""
    numbers = np.arange(n)
    images = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (n, 4, 4, 3))
    return Arrays(images, (numbers % 3).astype(np.int32), [f"all/{number}" for number in numbers])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eleven files of several sizes and formats."""
    root = tmp_path_factory.mktemp("photos")
    names = [f"{number:02d}.{kind}" for number, kind in zip(range(11), itertools.cycle(["png", "jpg", "gif", "bmp"]))]
    for number, name in enumerate(names):
        kind = {"jpg": "JPEG"}.get(name[3:], name[3:])
        (root / name).write_bytes(encode(smooth(15 + 3 * number, 40 - 2 * number), kind))
    return Files(root, names, np.arange(11, dtype=np.int32))


def take(batches, count):
    """The first batches; then the generator is closed."""
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def joined(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def shares_of(hosts, share):
    """The rows of each host: one after the other; in turns; and in turns of two, as processes of a TPU slice may have them."""
    rows = np.arange(hosts * share)
    yield [rows[host * share : (host + 1) * share] for host in range(hosts)]
    yield [rows[host::hosts] for host in range(hosts)]
    if share % 2 == 0:
        yield [rows.reshape(-1, hosts, 2)[:, host].ravel() for host in range(hosts)]


def put_together(parts, rows):
    """The whole batch, from each host's part and the rows it has."""
    order = np.argsort(np.concatenate(rows))
    return {key: value[order] for key, value in joined(parts).items()}


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jaxft-data")]


# Training.


@given(n=st.integers(1, 13), share=st.integers(1, 4), hosts=HOSTS, seed=st.integers(-9, 9), epochs=st.integers(1, 3))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_every_example_comes_exactly_once_an_epoch_over_all_hosts(n, share, hosts, seed, epochs):
    source, batch_size = numbered(n), share * hosts
    steps = -(-epochs * n // batch_size)
    options = {"batch_size": batch_size, "seed": seed, "augment": "none", "threads": 1}
    alone = take(train_batches(source, TINY, **options), steps)
    for rows in shares_of(hosts, share):
        of_hosts = [take(train_batches(source, TINY, rows=own, **options), steps) for own in rows]
        for step in range(steps):
            assert {len(batches[step]["index"]) for batches in of_hosts} == {share}
            same(put_together([batches[step] for batches in of_hosts], rows), alone[step])
    stream = np.concatenate([batch["index"] for batch in alone])
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    for batch in alone:
        assert batch["image"].shape == (batch_size, 3, 3, 3)
        np.testing.assert_array_equal(batch["image"][:, 1, 1, 0], batch["index"])
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)
        np.testing.assert_array_equal(batch["mask"], np.ones(batch_size))


@given(n=st.integers(1, 13), batch_size=st.integers(1, 9), start=st.integers(0, 30), seed=st.integers(0, 9))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_a_restart_at_any_step_goes_on_with_the_same_batches(n, batch_size, start, seed):
    source = numbered(n)
    options = {"batch_size": batch_size, "seed": seed, "augment": "crop_flip", "threads": 1}
    whole = take(train_batches(source, TINY, **options), start + 3)
    again = take(train_batches(source, TINY, start_step=start, **options), 3)
    for one, other in zip(whole[start:], again, strict=True):
        same(one, other)


@given(
    n=st.integers(1, 23), share=st.integers(1, 3), hosts=HOSTS, threads=st.integers(0, 8), sampler=st.sampled_from(SAMPLERS),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, derandomize=True, max_examples=60)
def test_examples_and_their_order_are_the_formulas_for_any_threads_and_hosts_and_restarts_at_every_step(
    n, share, hosts, threads, sampler, seed
):
    source, batch_size = numbered(n), share * hosts
    steps = -(-3 * n // batch_size)
    order = Order(seed, n, source.labels, sampler)
    options = {"batch_size": batch_size, "seed": seed, "sampler": sampler, "threads": threads}
    formula = np.array([order.example_at(position) for position in range(steps * batch_size)]).reshape(steps, batch_size, 2)
    for rows in shares_of(hosts, share):
        for step in range(steps):
            # A new process at every step, as after a kill.
            parts = [take(train_batches(source, TINY, start_step=step, rows=own, **options), 1)[0] for own in rows]
            batch = put_together(parts, rows)
            np.testing.assert_array_equal(batch["shown"], formula[step, :, 0])
            np.testing.assert_array_equal(batch["index"], formula[step, :, 1])
            np.testing.assert_array_equal(batch["label"], source.labels[batch["index"]])
            np.testing.assert_array_equal(batch["image"][:, 1, 1, 0], batch["index"])
    # No example is shown twice in the same look, and over whole passes none is left out.
    shown = formula.reshape(-1, 2)
    assert len(np.unique(shown, axis=0)) == len(shown)
    if sampler == "shuffle":
        for epoch in range(3):
            assert sorted(shown[epoch * n : (epoch + 1) * n, 1]) == list(range(n))


@given(
    n=st.integers(1, 13), batch_size=st.integers(1, 9), start=st.integers(0, 30), sampler=st.sampled_from(["balanced", "sqrt"])
)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_a_sampler_by_class_shows_the_examples_of_its_order_after_a_restart_too(n, batch_size, start, sampler):
    source = numbered(n)
    order = Order(3, n, source.labels, sampler)
    options = {"batch_size": batch_size, "seed": 3, "augment": "crop_flip", "sampler": sampler, "threads": 2}
    for step, batch in enumerate(take(train_batches(source, TINY, start_step=start, **options), 3), start):
        shown = [order.example_at(position) for position in range(step * batch_size, (step + 1) * batch_size)]
        np.testing.assert_array_equal(batch["index"], [example for _, example in shown])
        for pixels, (number, example) in zip(batch["image"], shown, strict=True):
            looks = read_train(source[example][0], TINY, augment_rng(3, number, example), parse("crop_flip").window)
            np.testing.assert_array_equal(pixels, looks)


def test_an_example_shown_several_times_in_an_epoch_looks_different_each_time(photos):
    labels = np.array([0] * (len(photos) - 1) + [1], np.int32)
    source = dataclasses.replace(photos, labels=labels)
    (batch,) = take(train_batches(source, SMALL, batch_size=len(photos), seed=0, sampler="balanced"), 1)
    looks = {image.tobytes() for image in batch["image"][batch["label"] == 1]}
    assert len(looks) == len(photos) // 2 > 1


def test_a_sampler_by_class_refuses_values_for_labels():
    source = dataclasses.replace(numbered(4), labels=np.zeros(4, np.float32))
    with pytest.raises(JaxftError, match="multi-label data and regressions take 'shuffle'"):
        train_batches(source, TINY, batch_size=2, seed=0, sampler="sqrt")


def test_a_step_far_ahead_costs_nothing():
    start = time.process_time()
    (batch,) = take(train_batches(numbered(10), TINY, batch_size=4, seed=0, start_step=10**12, threads=1), 1)
    assert len(batch["index"]) == 4
    assert time.process_time() - start < 2


def test_batches_have_the_types_and_shapes_that_training_expects(photos):
    for channels in (1, 3):
        (batch,) = take(train_batches(photos, SMALL, batch_size=5, seed=0, channels=channels, threads=1), 1)
        kinds = {key: (value.dtype, value.shape) for key, value in batch.items()}
        assert kinds == {
            "image": (np.uint8, (5, 12, 12, channels)),
            "label": (np.int32, (5,)),
            "mask": (np.float32, (5,)),
            "index": (np.int32, (5,)),
            "shown": (np.int32, (5,)),
        }


@pytest.mark.parametrize("shape", [(7,), (7, 4)])
def test_labels_of_other_tasks_travel_as_they_are(shape):
    labels = np.random.default_rng(0).random(shape).astype(np.float32)
    source = Arrays(numbered(7).images, labels, numbered(7).names)
    (batch,) = take(train_batches(source, TINY, batch_size=5, seed=0, threads=1), 1)
    assert batch["label"].dtype == np.float32
    np.testing.assert_array_equal(batch["label"], labels[batch["index"]])


@pytest.mark.parametrize("threads", [0, 2, 3, 8, None])
@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_pixels_do_not_depend_on_threads_or_prefetch(photos, threads, prefetch):
    options = {"batch_size": 4, "seed": 1, "start_step": 2}
    one = take(train_batches(photos, SMALL, threads=1, **options), 6)
    many = take(train_batches(photos, SMALL, threads=threads, prefetch=prefetch, **options), 6)
    for first, other in zip(one, many, strict=True):
        same(first, other)


@pytest.mark.parametrize("hosts", [2, 4])
def test_pixels_do_not_depend_on_the_number_of_hosts(photos, hosts):
    options = {"batch_size": 8, "seed": 1, "threads": 2}
    alone = take(train_batches(photos, SMALL, **options), 4)
    for rows in shares_of(hosts, 8 // hosts):
        shares = [take(train_batches(photos, SMALL, rows=own, **options), 4) for own in rows]
        for step in range(4):
            same(put_together([batches[step] for batches in shares], rows), alone[step])


def test_rows_are_yielded_in_the_order_they_are_asked_for(photos):
    options = {"batch_size": 8, "seed": 1, "start_step": 1, "threads": 2}
    (whole,) = take(train_batches(photos, SMALL, **options), 1)
    (some,) = take(train_batches(photos, SMALL, rows=[6, 7, 2, 3], **options), 1)
    same(some, {key: value[[6, 7, 2, 3]] for key, value in whole.items()})
    (whole, _) = eval_batches(photos, SMALL, batch_size=8, threads=2)
    (some, last) = eval_batches(photos, SMALL, batch_size=8, rows=[0, 1, 4, 5], threads=2)
    same(some, {key: value[[0, 1, 4, 5]] for key, value in whole.items()})
    assert last["mask"].tolist() == [1, 1, 0, 0]
    assert last["index"][:2].tolist() == [8, 9]


def test_what_an_example_looks_like_in_an_epoch_does_not_depend_on_the_batch_size(photos):
    def looks(batch_size, steps):
        batches = take(train_batches(photos, SMALL, batch_size=batch_size, seed=5, threads=2), steps)
        return [(index, pixels) for batch in batches for index, pixels in zip(batch["index"], batch["image"], strict=True)]

    for (one, pixels), (other, others) in zip(looks(3, 11), looks(11, 3), strict=True):
        assert one == other
        np.testing.assert_array_equal(pixels, others)


def test_an_example_is_the_transform_of_its_file_by_seed_epoch_and_index(photos):
    (batch,) = take(train_batches(photos, SMALL, batch_size=11, seed=4, start_step=3, threads=2), 1)
    np.testing.assert_array_equal(batch["index"], permutation(4, 3, 11))
    for index, pixels in zip(batch["index"], batch["image"], strict=True):
        rng = augment_rng(4, 3, int(index))
        expected = read_train(photos[index][0], SMALL, rng, parse("crop_flip").window)
        np.testing.assert_array_equal(pixels, expected)


def test_an_example_looks_different_from_epoch_to_epoch(photos):
    batches = take(train_batches(photos, SMALL, batch_size=11, seed=0, threads=2), 3)
    looks = {batch["image"][np.flatnonzero(batch["index"] == 4)[0]].tobytes() for batch in batches}
    assert len(looks) == 3


# Evaluation.


@given(n=st.integers(0, 20), share=st.integers(1, 6), hosts=HOSTS)
@settings(deadline=None, derandomize=True, max_examples=40)
def test_an_evaluation_takes_every_example_once_on_any_number_of_hosts(n, share, hosts):
    source, batch_size = numbered(n), share * hosts
    steps = -(-n // batch_size)
    for rows in shares_of(hosts, share):
        of_hosts = [list(eval_batches(source, TINY, batch_size=batch_size, rows=own, threads=1)) for own in rows]
        assert {len(batches) for batches in of_hosts} == {steps}
        for batches in of_hosts:
            for batch in batches:
                assert batch["image"].shape == (share, 3, 3, 3)
                # Padding too is an example, and says which.
                np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
                np.testing.assert_array_equal(batch["label"], batch["index"] % 3)
                assert set(batch["mask"]) <= {0, 1}
        if n:
            every = joined([put_together([batches[step] for batches in of_hosts], rows) for step in range(steps)])
            np.testing.assert_array_equal(every["index"][every["mask"] == 1], np.arange(n))
            # What is padded stands at the end, so that the batches of all hosts are the batch of one.
            np.testing.assert_array_equal(every["mask"], np.arange(steps * batch_size) < n)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_evaluated_pixels_are_the_transform_of_the_file_for_any_number_of_threads(photos, threads):
    batches = list(eval_batches(photos, SMALL, batch_size=4, threads=threads, prefetch=threads - 1))
    assert [batch["mask"].tolist() for batch in batches] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]
    pixels = joined(batches)["image"]
    for number in range(11):
        np.testing.assert_array_equal(pixels[number], eval_transform(decode(photos[number][0]), SMALL))
    assert batches[0]["mask"].dtype == np.float32


# Errors and threads.


class Counted:
    """A user's own source, which counts what is asked for."""

    def __init__(self, n, pause=0.0):
        self.pause = pause
        self.labels = np.zeros(n, np.int32)
        self.names = [str(number) for number in range(n)]
        self.asked = 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked += 1
        time.sleep(self.pause)
        return np.zeros((3, 3, 3), np.uint8), 0


@pytest.mark.parametrize("prefetch", [0, 2])
def test_no_more_batches_are_made_ahead_than_asked_for(prefetch):
    source = Counted(100)
    batches = train_batches(source, TINY, batch_size=4, seed=0, threads=1, prefetch=prefetch)
    assert source.asked == 0
    for taken in range(1, 4):
        next(batches)
        deadline = time.monotonic() + 20
        while source.asked < 4 * (taken + prefetch) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert source.asked == 4 * (taken + prefetch)
    batches.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_file_in_the_middle_is_named_where_its_batch_is_due(draw, threads):
    names = [f"{number}.png" for number in range(9)]
    root = draw(*names)
    (root / "5.png").write_bytes((root / "5.png").read_bytes()[:60])
    source = Files(root, names, np.zeros(9, np.int32))
    batches = eval_batches(source, TINY, batch_size=2, threads=threads)
    assert [next(batches)["index"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(BadImage, match=r"^5\.png: cannot be decoded"):
        next(batches)
    assert not data_threads()

    due = int(np.flatnonzero(permutation(0, 0, 9) == 5)[0]) // 2
    batches = train_batches(source, TINY, batch_size=2, seed=0, threads=threads)
    for _ in range(due):
        next(batches)
    with pytest.raises(BadImage, match=r"^5\.png: cannot be decoded"):
        next(batches)
    assert not data_threads()


def test_a_file_that_is_gone_and_pixels_that_do_not_fit_are_named(draw):
    root = draw("a.png", "b.png")
    (root / "b.png").unlink()
    with pytest.raises(BadImage, match=r"^b\.png: the file does not exist"):
        list(eval_batches(Files(root, ["a.png", "b.png"], np.zeros(2, np.int32)), TINY, batch_size=1, threads=1))
    with pytest.raises(BadImage, match="^all/0: 3 channels where 5 are wanted"):
        list(eval_batches(numbered(2), TINY, batch_size=1, channels=5, threads=1))


def test_what_does_not_fit_is_said_at_once_and_not_at_the_first_batch():
    source = numbered(5)
    for batch_size in (0, -1, -4):
        for rows in (None, [0]):
            with pytest.raises(JaxftError, match=f"^the batch size is {batch_size}$"):
                train_batches(source, TINY, batch_size=batch_size, seed=0, rows=rows)
            with pytest.raises(JaxftError, match=f"^the batch size is {batch_size}$"):
                eval_batches(source, TINY, batch_size=batch_size, rows=rows)
    with pytest.raises(JaxftError, match="no training examples"):
        train_batches(numbered(0), TINY, batch_size=2, seed=0)
    with pytest.raises(JaxftError, match="start_step is -1"):
        train_batches(source, TINY, batch_size=2, seed=0, start_step=-1)
    with pytest.raises(JaxftError, match="did you mean 'pad_flip'"):
        train_batches(source, TINY, batch_size=2, seed=0, augment="padflip")


def test_fewer_threads_than_none_are_refused():
    with pytest.raises(JaxftError, match="threads is -2: it must be at least 0"):
        next(train_batches(numbered(5), TINY, batch_size=2, seed=0, threads=-2))
    with pytest.raises(JaxftError, match="processes is -1: it must be at least 0"):
        train_batches(numbered(5), TINY, batch_size=2, seed=0, processes=-1)
    with pytest.raises(JaxftError, match="threads is -2: it must be at least 0"):
        next(eval_batches(numbered(5), TINY, batch_size=2, threads=-2))


def test_without_threads_a_batch_is_made_when_it_is_asked_for():
    source = Counted(20)
    batches = train_batches(source, TINY, batch_size=4, seed=0, threads=0)
    for taken in range(1, 4):
        next(batches)
        assert source.asked == 4 * taken
        assert not data_threads()


@pytest.mark.parametrize("threads", [0, 3])
def test_the_times_of_pictures_are_kept(threads):
    times = LoadTimes()
    take(train_batches(Counted(20, pause=0.01), TINY, batch_size=4, seed=0, threads=threads, prefetch=0, times=times), 3)
    assert times.workers == threads
    assert times.pictures == 12
    assert 0.12 <= times.busy < 5
    assert times.computing < times.busy


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_make_the_batches_that_threads_make(photos, processes):
    for kind in ({"augment": "crop_flip"}, {"augment": "random_flip"}, {"augment": "random_resized_crop(0.3)", "channels": 1}):
        one, other = (
            take(train_batches(photos, SMALL, batch_size=5, seed=4, start_step=2, **kind, **workers), 4)
            for workers in ({"threads": 2}, {"processes": processes})
        )
        for threaded, processed in zip(one, other, strict=True):
            same(threaded, processed)
    one, other = (
        list(eval_batches(photos, SMALL, batch_size=4, **kind)) for kind in ({"threads": 2}, {"processes": processes})
    )
    for threaded, processed in zip(one, other, strict=True):
        same(threaded, processed)
    assert not data_threads()


def test_pixels_and_what_processes_may_not_decode_are_read_here(photos, monkeypatch):
    class Mixed:
        labels, names = photos.labels, photos.names

        def __len__(self):
            return len(photos)

        def __getitem__(self, index):
            image, label = photos[index]
            return [image, image.read_bytes(), decode(image)][index % 3], label

    monkeypatch.setattr(memory, "MAX_BYTES", 2 * 16 * 700)  # some are larger than half of it, some are not
    options = {"batch_size": 11, "seed": 0, "augment": "random_resized_crop(0.3)", "scaled_decode": False}
    times = LoadTimes()
    (one,) = take(train_batches(photos, SMALL, threads=0, **options), 1)
    started, read = [], []

    class Watched(loading.Process):
        def __init__(self, *given):
            super().__init__(*given)
            started.append(self)

        def read(self, tasks):
            read.extend(super().read(tasks))
            return read[len(read) - len(tasks) :]

    monkeypatch.setattr(loading, "Process", Watched)
    (other,) = take(train_batches(Mixed(), SMALL, processes=2, times=times, **options), 1)
    same(one, other)
    assert {type(outcome) for outcome in read} == {memory.TooMuch, np.ndarray}
    assert [process._process.returncode for process in started] == [0, 0]
    assert (times.workers, times.processes) == (2, True)
    assert times.pictures >= 11
    assert times.computing > 0


def test_a_picture_that_a_process_cannot_read_is_named_where_its_batch_is_due(photos, tmp_path):
    for name in photos.names:
        (tmp_path / name).write_bytes((photos.root / name).read_bytes())
    (tmp_path / photos.names[9]).write_bytes(b"no picture")
    batches = eval_batches(dataclasses.replace(photos, root=tmp_path), SMALL, batch_size=4, processes=2)
    next(batches), next(batches)
    with pytest.raises(BadImage, match=rf"^{photos.names[9]}: "):
        next(batches)
    assert not data_threads()


def test_closing_the_generator_ends_its_threads(photos):
    assert not data_threads()
    batches = train_batches(photos, SMALL, batch_size=4, seed=0, threads=3, prefetch=4)
    assert not data_threads()  # nothing runs before the first batch is asked for
    next(batches)
    assert 1 <= len(data_threads()) <= 3
    batches.close()
    assert not data_threads()
    with pytest.raises(StopIteration):
        next(batches)


def test_threads_end_with_the_evaluation_and_with_a_generator_that_is_dropped(photos):
    batches = eval_batches(photos, SMALL, batch_size=4, threads=2)
    assert len(list(batches)) == 3
    assert not data_threads()
    batches = train_batches(photos, SMALL, batch_size=4, seed=0, threads=2)
    next(batches)
    assert data_threads()
    del batches
    assert not data_threads()


def test_closing_does_not_load_what_was_waiting():
    source = Counted(100, pause=0.005)
    batches = train_batches(source, TINY, batch_size=10, seed=0, threads=1, prefetch=100)
    next(batches)
    batches.close()
    asked = source.asked
    assert 10 <= asked < 1010  # all of it would take five seconds
    time.sleep(0.02)
    assert source.asked == asked


def test_files_are_read_from_below_their_root(photos):
    assert photos[3][0] == Path(photos.root) / "03.bmp"
    assert photos.subset([3, 1]).names == ["03.bmp", "01.jpg"]


def test_each_view_is_what_a_run_without_views_shows_of_its_example_in_that_pass(photos):
    options = {"augment": "crop_flip", "seed": 5, "threads": 1}
    (batch,) = take(train_batches(photos, SMALL, batch_size=8, views=2, start_step=2, **options), 1)
    np.testing.assert_array_equal(batch["index"][:4], batch["index"][4:])
    assert (batch["image"][:4] != batch["image"][4:]).any((1, 2, 3)).all()
    looks = {}
    for plain in take(train_batches(photos, SMALL, batch_size=11, **options), 4):
        for shown, index, image in zip(plain["shown"], plain["index"], plain["image"], strict=True):
            looks[int(shown), int(index)] = image
    for shown, index, image in zip(batch["shown"], batch["index"], batch["image"], strict=True):
        np.testing.assert_array_equal(image, looks[int(shown), int(index)])


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_views_are_the_same_for_any_shares_and_any_restart(photos, hosts):
    options = {"batch_size": 8, "views": 2, "seed": 5, "threads": 2}
    whole = take(train_batches(photos, SMALL, **options), 3)
    again = take(train_batches(photos, SMALL, start_step=2, **options), 1)
    shares = [
        take(train_batches(photos, SMALL, rows=range(host * 8 // hosts, (host + 1) * 8 // hosts), **options), 3)
        for host in range(hosts)
    ]
    for key in whole[0]:
        np.testing.assert_array_equal(whole[2][key], again[0][key])
        for step in range(3):
            np.testing.assert_array_equal(np.concatenate([share[step][key] for share in shares]), whole[step][key])


@pytest.mark.parametrize(("views", "batch_size"), [(2, 8), (3, 6), (2, 22), (2, 64)])
def test_an_evaluation_of_views_shows_each_example_so_often_and_always_the_same(photos, views, batch_size):
    options = {"batch_size": batch_size, "views": views, "augment": parse("crop_flip"), "seed": 5, "threads": 2}
    batches, again = (list(view_batches(photos, SMALL, **options)) for _ in range(2))
    real = [
        (int(shown), int(index))
        for batch in batches
        for shown, index, mask in zip(batch["shown"], batch["index"], batch["mask"], strict=True)
        if mask
    ]
    assert sorted(real) == [(view, index) for view in range(views) for index in range(11)]
    for one, other in zip(batches, again, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
        kept = one["index"][one["mask"] > 0]
        np.testing.assert_array_equal(np.unique(kept, return_counts=True)[1], views)  # all views in one batch
    (first,) = take(train_batches(photos, SMALL, batch_size=11, augment="crop_flip", seed=5, threads=1), 1)
    looks = {int(index): image for index, image in zip(first["index"], first["image"], strict=True)}
    np.testing.assert_array_equal(batches[0]["image"][0], looks[0])


def test_views_that_do_not_fit_a_batch_are_one_clear_error(photos):
    with pytest.raises(JaxftError, match="a batch of 9 does not hold a whole number of examples with 2 views"):
        train_batches(photos, SMALL, batch_size=9, views=2, seed=0)
    with pytest.raises(JaxftError, match="a batch of 9 does not hold a whole number of examples with 2 views"):
        view_batches(photos, SMALL, batch_size=9, views=2, augment=parse("crop_flip"), seed=0)
