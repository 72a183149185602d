"""Pictures without labels: where they come from, that nobody is judged on them, and batches of them in two looks."""

import itertools

import jax
import numpy as np
import pytest

from jaxft.augment import parse, two_looks
from jaxft.data import Arrays, open_data, train_batches, unlabelled_batches
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

NAMES = ("ant", "cat", "dog")
LABELS = np.repeat(np.arange(3), 20).astype(np.int32)
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
TINY = Preprocessing(8, 8)
SOURCE = Arrays(IMAGES, LABELS, [str(number) for number in range(60)])
OPTIONS = {"batch_size": 8, "seed": 3, "threads": 1}


def opened(**options):
    return open_data((IMAGES, LABELS), class_names=NAMES, **options)


def take(batches, count):
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def test_the_rest_is_what_is_left_of_the_training_pictures_without_labels():
    whole, found = opened(), opened(per_class=4, unlabelled="rest")
    assert sorted([*found.train.names, *found.unlabelled.names]) == sorted(whole.train.names)
    assert not set(found.unlabelled.names) & {*found.train.names, *found.val.names, *found.test.names}
    assert found.unlabelled.labels.dtype == np.int32
    assert not found.unlabelled.labels.any()
    np.testing.assert_array_equal(found.train.labels, opened(per_class=4).train.labels)
    assert f"{len(found.unlabelled)} pictures are learnt from without their labels" in found.notes
    assert opened(per_class=4).unlabelled is None


def test_the_pictures_without_labels_are_part_of_the_fingerprint():
    prints = {opened(per_class=4).fingerprint, opened(per_class=4, unlabelled="rest").fingerprint}
    assert len(prints) == 2
    assert opened(per_class=4, unlabelled="rest").fingerprint in prints


@pytest.fixture
def photos(draw):
    return draw(*(f"{name}/{number}.png" for name in NAMES for number in range(10)))


def test_a_flat_folder_and_one_of_folders_are_read_whole_without_what_others_are_judged_on(photos, draw):
    plain = open_data(str(photos))
    # The test's pictures are drawn by their names: copies of what validates and of what trains lie among the new ones.
    folder = draw("new0.png", "deep/er/new1.png", plain.val.names[0], plain.test.names[0], plain.train.names[0], under="more")
    for text in (str(folder), f"folder:{folder}"):
        found = open_data(str(photos), unlabelled=text)
        assert sorted(found.unlabelled.names) == sorted(["new0.png", "deep/er/new1.png", plain.train.names[0]])
        assert "1 pictures of config.data.unlabelled are in val too and are left out" in found.notes
        assert "1 pictures of config.data.unlabelled are in test too and are left out" in found.notes
        assert found.train.names == plain.train.names


def test_other_text_is_opened_as_data_and_its_training_split_is_taken(photos, draw, tmp_path):
    extra = draw("x.png", "y.png", "z.png", under="extra")
    table = tmp_path / "extra.csv"
    table.write_text(
        "path,label,split\n" + "".join(f"{extra}/{name}.png,ant,train\n" for name in "xy") + f"{extra}/z.png,cat,val\n"
    )
    assert len(open_data(str(photos), unlabelled=f"csv:{table}").unlabelled) == 2


def test_the_same_pixels_as_those_of_another_split_are_left_out_and_what_cannot_be_compared_is_said():
    images = np.concatenate([IMAGES, IMAGES])
    found = open_data((images, np.concatenate([LABELS, LABELS])), class_names=NAMES, per_class=4, unlabelled="rest")
    judged = {image.tobytes() for part in (found.val, found.test) for image in part.images}
    assert len(judged) > 12
    assert not judged & {image.tobytes() for image in found.unlabelled.images}
    assert any("are in val too and are left out" in note for note in found.notes)


def test_pixels_and_files_cannot_be_compared_and_the_run_says_so(draw):
    folder = draw("a.png", "b.png", under="more")
    found = opened(unlabelled=str(folder))
    assert len(found.unlabelled) == 2
    assert "nobody can tell whether config.data.unlabelled holds pictures of val: see to it yourself" in found.notes


def test_an_unreadable_picture_is_an_error_or_left_out_as_elsewhere(photos, draw):
    folder = draw("a.png", "b.png", "c.png", under="more")
    (folder / "d.png").write_bytes(b"no picture")
    with pytest.raises(JaxftError, match=r"1 of 4 pictures of all cannot be read .d.png"):
        open_data(str(photos), unlabelled=str(folder))
    found = open_data(str(photos), unlabelled=str(folder), max_bad_fraction=0.3)
    assert found.unlabelled.names == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled": "rest"}, "the pictures that config.data.per_class leaves aside: set config.data.per_class too"),
        ({"unlabelled": "rest", "per_class": 1000}, "there are no pictures left to learn from without labels"),
        ({"unlabelled": "folder:/no/such"}, "no folder '/no/such'"),
        ({"unlabelled": "flder:x"}, "no folder 'flder:x' .did you mean 'folder'"),
    ],
)
def test_what_is_not_there_is_a_clear_error(options, message):
    with pytest.raises(JaxftError, match=message):
        opened(**options)


def test_a_folder_without_pictures_is_a_clear_error(tmp_path):
    with pytest.raises(JaxftError, match="holds no pictures"):
        opened(unlabelled=str(tmp_path))


@pytest.mark.parametrize("start", [1, 7, 1000])
def test_batches_are_a_function_of_seed_and_step(start):
    def batches(step, **options):
        return unlabelled_batches(SOURCE, TINY, start_step=step, **{**OPTIONS, **options})

    whole = take(batches(0), 10) if start < 10 else take(batches(start), 3)
    again = take(batches(start, threads=3, prefetch=5), 3)
    for one, other in zip(whole[start : start + 3] if start < 10 else whole, again, strict=True):
        assert one.keys() == {"unlabelled_weak", "unlabelled_strong", "unlabelled_index", "unlabelled_shown"}
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])
    other = take(batches(start, seed=4), 1)[0]
    assert (other["unlabelled_index"] != again[0]["unlabelled_index"]).any()


def test_every_picture_comes_once_an_epoch_in_an_order_that_is_not_the_labelled_ones():
    batches = take(unlabelled_batches(SOURCE, TINY, **OPTIONS), 15)  # 120: two epochs
    index = np.concatenate([batch["unlabelled_index"] for batch in batches])
    shown = np.concatenate([batch["unlabelled_shown"] for batch in batches])
    for epoch in range(2):
        assert sorted(index[60 * epoch : 60 * (epoch + 1)]) == list(range(60))
        assert (shown[60 * epoch : 60 * (epoch + 1)] == epoch).all()
    labelled = np.concatenate([batch["index"] for batch in take(train_batches(SOURCE, TINY, **OPTIONS), 15)])
    assert (labelled == index).mean() < 0.15


def test_both_looks_are_of_the_same_picture():
    flat = Arrays(np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 9, 9, 3)), LABELS, SOURCE.names)
    (batch,) = take(unlabelled_batches(flat, TINY, weak="random_resized_crop", strong="random_crop(2)", **OPTIONS), 1)
    assert batch["unlabelled_weak"].shape == (8, 8, 8, 3)
    assert batch["unlabelled_strong"].shape == (8, 10, 10, 3)  # the window and its margin
    for look in ("unlabelled_weak", "unlabelled_strong"):
        assert (batch[look] == batch["unlabelled_index"][:, None, None, None]).all()


def test_the_two_windows_are_drawn_apart():
    batch, same = (
        take(unlabelled_batches(SOURCE, TINY, weak="random_resized_crop", strong=strong, **OPTIONS), 1)[0]
        for strong in ("random_resized_crop", "none")
    )
    np.testing.assert_array_equal(batch["unlabelled_weak"], same["unlabelled_weak"])
    differs = (batch["unlabelled_weak"] != batch["unlabelled_strong"]).any((1, 2, 3))
    assert differs.all()


def test_the_rows_of_processes_make_up_the_whole_batch():
    (whole,) = take(unlabelled_batches(SOURCE, TINY, **OPTIONS), 1)
    rows = ([0, 1, 6, 7], [2, 3, 4, 5])
    parts = [take(unlabelled_batches(SOURCE, TINY, rows=own, **OPTIONS), 1)[0] for own in rows]
    for own, part in zip(rows, parts, strict=True):
        for key, value in part.items():
            np.testing.assert_array_equal(value, whole[key][own])


def test_processes_that_decode_give_the_same_looks(draw):
    folder = draw(*(f"{number}.png" for number in range(6)), under="more", size=20)
    source = opened(unlabelled=str(folder)).unlabelled
    options = {"batch_size": 4, "seed": 0, "weak": "crop", "strong": "random_crop(2)"}
    here, there = (take(unlabelled_batches(source, TINY, **options, **kind), 2) for kind in ({"threads": 0}, {"processes": 1}))
    for one, other in zip(here, there, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])


def test_on_the_device_a_look_depends_on_the_picture_and_its_pass_alone():
    (batch,) = take(unlabelled_batches(SOURCE, TINY, weak="none", strong="none", **OPTIONS), 1)
    weak, strong = parse("random_flip"), parse("random_flip, random_color, random_erasing(1.0)")
    look = jax.jit(lambda batch: two_looks(batch, weak=weak, strong=strong, seed=3, size=8))
    found = look(batch)
    order = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    moved = look({key: value[order] for key, value in batch.items()})
    for key in ("unlabelled_weak", "unlabelled_strong"):
        np.testing.assert_array_equal(moved[key], np.asarray(found[key])[order])
        later = look({**batch, "unlabelled_shown": batch["unlabelled_shown"] + 1})[key]
        assert (np.asarray(later) != np.asarray(found[key])).any()
    mirrored = batch["unlabelled_weak"][:, :, ::-1]
    straight = (np.asarray(found["unlabelled_weak"]) == batch["unlabelled_weak"]).all((1, 2, 3))
    assert (straight | (np.asarray(found["unlabelled_weak"]) == mirrored).all((1, 2, 3))).all()
    assert 0 < straight.sum() < 8
    # The labelled pictures' own randomness, of the same seed, pass and number, is another.
    own = weak.images({"image": batch["unlabelled_weak"], "shown": batch["unlabelled_shown"],
                       "index": batch["unlabelled_index"]}, seed=3, size=8)  # fmt: skip
    assert (np.asarray(own) != np.asarray(found["unlabelled_weak"])).any()
    assert two_looks({"image": IMAGES}, weak=weak, strong=strong, seed=0, size=8) == {"image": IMAGES}


def test_what_does_not_fit_is_a_clear_error():
    with pytest.raises(JaxftError, match="there are no unlabelled pictures"):
        unlabelled_batches(SOURCE.subset([]), TINY, **OPTIONS)
    with pytest.raises(JaxftError, match="the batch size of unlabelled pictures is 0"):
        unlabelled_batches(SOURCE, TINY, **{**OPTIONS, "batch_size": 0})
    with pytest.raises(JaxftError, match="did you mean 'pad_flip'"):
        unlabelled_batches(SOURCE, TINY, strong="padflip", **OPTIONS)
