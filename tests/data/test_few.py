"""A few examples of each class: drawn by the seed, nested, the other splits untouched."""

import numpy as np
import pytest

from jaxft.data import Arrays, open_data
from jaxft.data.few import few_of_each
from jaxft.data.splits import write_manifest
from jaxft.errors import JaxftError

NAMES = ("ant", "cat", "dog")
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), [40, 30, 6])).astype(np.int32)
IMAGES = np.random.default_rng(1).integers(0, 256, (76, 4, 4, 3), dtype=np.uint8)


def opened(**options):
    return open_data((IMAGES, LABELS), class_names=NAMES, **options)


def test_each_class_gives_as_many_training_examples_and_the_other_splits_stay_whole():
    everything, few = opened(), opened(per_class=4)
    assert np.bincount(few.train.labels).tolist() == [4, 4, 4]
    assert set(few.train.names) < set(everything.train.names)
    positions = [everything.train.names.index(name) for name in few.train.names]
    assert positions == sorted(positions)
    np.testing.assert_array_equal(few.train.labels, everything.train.labels[positions])
    for split in ("val", "test"):
        assert getattr(few, split).names == getattr(everything, split).names
    assert "of each class 4 training pictures are used, 12 of 60" in few.notes


def test_the_draw_is_that_of_the_seed_and_a_smaller_one_is_part_of_it():
    train = Arrays(IMAGES, LABELS, [str(number) for number in range(76)])

    def drawn(per_class, seed):
        return set(few_of_each(train, NAMES, per_class, seed, "classify")[0].names)

    assert drawn(3, 0) == drawn(3, 0) != drawn(3, 1)
    assert drawn(1, 0) < drawn(3, 0) < drawn(6, 0)
    # Every example of a class comes as often as any other: 2,000 draws of 2 of 6, where 667 are expected of each.
    dogs = np.flatnonzero(LABELS == 2)
    counts = np.zeros(76)
    for seed in range(2000):
        counts[[int(name) for name in drawn(2, seed)]] += 1
    assert counts[dogs].sum() == 4000
    assert abs(counts[dogs] - 4000 / 6).max() < 100


def test_a_class_with_fewer_gives_all_and_is_named():
    found = opened(per_class=10)
    assert np.bincount(found.train.labels).tolist() == [10, 10, 4]
    assert "not every class has 10 training pictures: 'dog' has 4" in found.notes


def test_it_changes_the_fingerprint_and_a_written_list_of_splits_keeps_all_examples(tmp_path):
    everything, few = opened(), opened(per_class=4)
    assert few.fingerprint != everything.fingerprint
    assert few.settings == {**everything.settings, "per_class": 4}
    manifest = tmp_path / "splits.json"
    write_manifest(manifest, few.ours, few.settings)
    again = opened(per_class=4, manifest=manifest)
    assert again.fingerprint == few.fingerprint
    assert again.train.names == few.train.names
    for other in ({"per_class": 5}, {}):
        with pytest.raises(JaxftError, match=r"was made with .*'per_class': 4.* remove it to split anew"):
            opened(manifest=manifest, **other)


def test_splits_that_come_with_the_data_give_few_too():
    pieces = {"train": (IMAGES, LABELS), "val": (IMAGES[:9], LABELS[:9]), "test": (IMAGES[9:30], LABELS[9:30])}
    found = open_data(pieces, per_class=5)
    assert [len(part) for part in (found.train, found.val, found.test)] == [15, 9, 21]
    assert found.ours == {}


def test_of_soft_labels_the_largest_share_is_the_class():
    shares = np.full((76, 3), 0.2, np.float32)
    shares[np.arange(76), LABELS] = 0.6
    found = open_data((IMAGES, shares), task="soft", per_class=3)
    assert np.bincount(found.train.labels.argmax(-1)).tolist() == [3, 3, 3]


def test_what_has_no_classes_and_numbers_below_one_are_refused():
    with pytest.raises(JaxftError, match="per_class counts the pictures of a class, which the task 'regression' does not have"):
        open_data((IMAGES, LABELS / 7), task="regression", per_class=3)
    with pytest.raises(JaxftError, match="per_class is 0: it must be at least 1"):
        opened(per_class=0)
