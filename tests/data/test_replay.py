"""Labels among the classes of all tasks, and examples of earlier tasks beside a task's own."""

import numpy as np
import pytest
from PIL import Image

from jaxft.data import eval_batches, open_data
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def tasks(made_once):
    """Two folders: circle and cross, cross and dots; twenty pictures each class, all different."""

    def make(folder):
        rng = np.random.default_rng(3)
        for task, names in (("first", ("circle", "cross")), ("second", ("cross", "dots"))):
            for name in names:
                (folder / task / name).mkdir(parents=True)
                for number in range(20):
                    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                        folder / task / name / f"{number}.png"
                    )

    return made_once("replay_tasks", make)


CLASSES = ("dots", "circle", "cross")


def test_labels_are_places_among_all_classes_found_by_name(tasks):
    own, wide = open_data(tasks / "second"), open_data(tasks / "second", classes=CLASSES)
    assert own.class_names == ("cross", "dots")
    assert wide.class_names == CLASSES
    for split in ("train", "val", "test"):
        before, after = getattr(own, split), getattr(wide, split)
        assert list(before.names) == list(after.names)
        assert after.labels.dtype == np.int32
        np.testing.assert_array_equal(after.labels, np.array([2, 0])[before.labels])
    assert own.fingerprint != wide.fingerprint


def test_pictures_of_earlier_tasks_join_the_training_split_and_none_that_judged_them(tasks):
    given = {"classes": CLASSES, "val_fraction": 0.25, "test_fraction": 0.25}
    first, second = open_data(tasks / "first", **given), open_data(tasks / "second", **given)
    both = open_data(tasks / "second", **given, replay=(str(tasks / "first"),), replay_per_class=3)
    replayed = [name.removeprefix("replay1/") for name in both.train.names if name.startswith("replay1/")]
    assert len(replayed) == 6
    assert {*replayed} <= {*first.train.names}
    assert [name for name in both.train.names if not name.startswith("replay1/")] == list(second.train.names)
    for split in ("val", "test"):
        assert list(getattr(both, split).names) == list(getattr(second, split).names)
    labels = dict(zip(both.train.names, both.train.labels, strict=True))
    assert {labels[f"replay1/{name}"] for name in replayed} == {1, 2}
    assert "6 training pictures of 1 earlier tasks are shown again" in both.notes
    fewer = open_data(tasks / "second", **given, replay=(str(tasks / "first"),), replay_per_class=2)
    assert {*fewer.train.names} < {*both.train.names}
    assert len({both.fingerprint, fewer.fingerprint, second.fingerprint}) == 3


def test_nothing_is_shown_again_that_per_class_kept_from_the_earlier_task(tasks):
    first = open_data(tasks / "first", classes=CLASSES, per_class=2)
    both = open_data(tasks / "second", classes=CLASSES, per_class=2, replay=(str(tasks / "first"),), replay_per_class=5)
    again = [name.removeprefix("replay1/") for name in both.train.names if name.startswith("replay1/")]
    assert sorted(again) == sorted(first.train.names)


def test_the_pictures_are_those_of_both_sources(tasks):
    given = {"classes": CLASSES, "val_fraction": 0.25, "test_fraction": 0.25}
    both = open_data(tasks / "second", **given, replay=(str(tasks / "first"),), replay_per_class=3)
    batch = next(eval_batches(both.train, Preprocessing(8, 8), batch_size=len(both.train)))
    for row, name in enumerate(both.train.names):
        task, file = ("first", name.removeprefix("replay1/")) if name.startswith("replay1/") else ("second", name)
        np.testing.assert_array_equal(batch["image"][row], np.asarray(Image.open(tasks / task / file)))
    part = both.train.subset([0, len(both.train) - 1])
    assert part.names[1].startswith("replay1/")
    np.testing.assert_array_equal(part.labels, both.train.labels[[0, -1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("circle", "dot", "cross")}, "have the class 'dots', which config.data.classes lacks .did you mean 'dot'"),
        ({"classes": ("dots", "cross", "dots")}, "names a class twice"),
        ({"classes": CLASSES, "replay": ("/nowhere",)}, "no folder '/nowhere'"),
    ],
)
def test_what_does_not_fit_is_a_clear_error(tasks, options, message):
    with pytest.raises(JaxftError, match=message):
        open_data(tasks / "second", **options)


def test_classes_are_of_one_task_alone(tmp_path):
    file = tmp_path / "values.csv"
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    file.write_text("path,label\none.png,1.5\n")
    with pytest.raises(JaxftError, match="is for the task 'classify', not 'regression'"):
        open_data(f"csv:{file}", task="regression", classes=("a",), val_fraction=0.0, test_fraction=0.0)
