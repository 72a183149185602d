"""Checking a data set counts right, finds what is wrong, and says what to do."""

import math

import numpy as np
import pytest
from pictures import encode
from PIL import Image

from jaxft.data import check_data, open_data
from jaxft.errors import JaxftError


def waves(seed, side=48):
    """A picture of its own: large soft blobs, uint8 [side, side, 3]."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blobs).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path):
    """{"train/cat": [pixels or bytes, ...]} -> a folder of class folders."""

    def make(**classes):
        for name, pictures in classes.items():
            place = tmp_path / "set" / name.replace("__", "/")
            place.mkdir(parents=True)
            for number, picture in enumerate(pictures):
                data = picture if isinstance(picture, bytes) else encode(picture, "PNG")
                (place / f"{number}.png").write_bytes(data)
        return tmp_path / "set"

    return make


def some(start, count):
    return [waves(seed) for seed in range(start, start + count)]


def warned(survey, *words):
    return [warning for warning in survey.warnings if all(word in warning for word in words)]


def test_a_sound_data_set_has_no_warnings(folder):
    root = folder(train__cat=some(0, 12), train__dog=some(20, 12), val__cat=some(40, 3), val__dog=some(50, 3))
    survey = check_data(root)
    assert survey.warnings == ()
    assert {name: split.classes for name, split in survey.splits.items()} == {
        "train": {"cat": 12, "dog": 12},
        "val": {"cat": 3, "dog": 3},
    }
    train = survey.splits["train"]
    assert (train.count, train.imbalance, train.turned, train.grey, train.bad) == (24, 1.0, 0, 0, ())
    assert train.kinds == {"PNG RGB": 24}
    assert train.sides == {32: 24}
    assert "no warnings" in str(survey)


def test_mean_and_std_are_those_of_numpy_over_all_pixels(folder):
    root = folder(a=some(0, 12), b=some(20, 13))
    split = check_data(str(root)).splits["all"]
    pixels = np.stack(some(0, 12) + some(20, 13)).astype(np.float64) / 255
    np.testing.assert_allclose(split.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(split.std, pixels.std((0, 1, 2)), rtol=1e-10)


def test_a_survey_does_not_depend_on_threads(folder):
    root = folder(a=some(0, 20), b=some(10, 20))
    assert check_data(root, threads=1).to_json() == check_data(root, threads=5).to_json()


def test_unreadable_files_are_listed_and_stop_nothing(folder):
    root = folder(a=[*some(0, 10), b"", b"text"], b=some(20, 12))
    survey = check_data(root)
    assert survey.splits["all"].bad == (("a/10.png", "the file is empty"), ("a/11.png", "not a picture in a known format"))
    assert survey.splits["all"].classes == {"a": 10, "b": 12}
    (warning,) = warned(survey, "2 of 24 pictures of all cannot be read", "a/10.png: the file is empty")
    # What it advises works.
    share = float(warning.rpartition("=")[2])
    assert len(open_data(root, max_bad_fraction=share).train.labels)
    with pytest.raises(JaxftError):
        open_data(root, max_bad_fraction=share - 0.002)


def test_a_class_without_a_readable_picture_is_a_warning(folder):
    survey = check_data(folder(a=some(0, 12), b=[b"", b"no"]))
    assert warned(survey, "the class 'b' has no readable picture in all")
    assert math.isinf(survey.splits["all"].imbalance)


def test_a_data_set_of_which_nothing_can_be_read_is_a_report(folder):
    survey = check_data(folder(a=[b""], b=[b"no"]))
    assert survey.splits["all"].mean == ()
    assert (survey.splits["all"].height, survey.same, survey.near, survey.shapes) == (None, (), (), {})
    assert "2 of 2 pictures of all cannot be read" in str(survey)


def test_the_same_file_in_two_splits_and_with_two_labels_is_told_apart(folder):
    train = some(0, 12)
    root = folder(train__a=train, train__b=[*some(20, 11), train[3]], val__a=[train[5], *some(40, 2)], val__b=some(50, 2))
    survey = check_data(root)
    assert [(group.labels_differ, group.across, len(group.members)) for group in survey.same] == [
        (True, False, 2),
        (False, True, 2),
    ]
    assert survey.near == ()
    assert warned(survey, "1 group of the same picture has different labels (train/a/3.png and train/b/11.png)")
    assert warned(survey, "1 group of the same picture lies in more than one of train, val (train/a/5.png and val/a/0.png)")


def test_a_picture_saved_anew_in_another_split_is_nearly_the_same(folder):
    again = encode(waves(5, 96), "JPEG", quality=60)
    survey = check_data(folder(train__a=some(0, 12), train__b=some(20, 12), test__a=[again], test__b=some(50, 2)))
    assert survey.same == ()
    (group,) = survey.near
    assert [member.name for member in group.members] == ["train/a/5.png", "test/a/0.png"]
    assert warned(survey, "nearly the same picture lies in more than one of train, test")
    assert check_data(survey.source, near=None).near == ()


def test_copies_in_data_of_one_piece_are_a_danger_of_our_split(folder):
    pictures = some(0, 12)
    assert warned(check_data(folder(a=[*pictures, pictures[0]], b=some(20, 12))), "1 picture is the same as another")


def test_small_and_unequal_classes_are_warned_of(folder):
    survey = check_data(folder(a=some(0, 3), b=some(20, 30)))
    assert warned(survey, "the class 'a' has fewer than 10 pictures in all")
    assert warned(survey, "the largest class of all ('b', 30) has 10 times as many pictures as the smallest ('a', 3)")


def test_splits_that_look_different_are_warned_of(folder):
    grey = [np.repeat(picture[..., :1], 3, axis=2) for picture in some(40, 5)]
    root = folder(train__a=some(0, 12), train__b=some(20, 12), val__a=grey, val__b=some(60, 1))
    survey = check_data(root)
    assert warned(survey, "differ in what has no colour (0% of train, 83% of val)")
    large = [waves(seed, 300) for seed in range(70, 74)]
    for number, picture in enumerate(large):
        (root / "val" / "a" / f"large{number}.png").write_bytes(encode(picture, "PNG"))
        (root / "val" / "b" / f"large{number}.png").write_bytes(encode(picture[:, ::-1], "PNG"))
    assert warned(check_data(root), "the splits differ in size (train 48 px, val 300 px a side)")


def test_strips_are_shown_and_warned_of(folder):
    strip = np.tile(waves(1), (1, 10, 1))
    survey = check_data(folder(a=[strip, *some(0, 12)], b=some(20, 12)))
    assert survey.shapes == dict.fromkeys(("largest", "most oblong"), (("all", 0, "a/0.png", 48, 480),))
    assert warned(survey, "up to 10 times the short one")


def test_tables_of_several_labels_and_of_values_are_surveyed(folder, tmp_path):
    root = folder(a=some(0, 4))
    (root / "many.csv").write_text("path,label\na/0.png,x;y\na/1.png,x\na/2.png,\na/3.png,x\n")
    survey = check_data(f"csv:{root / 'many.csv'}", task="multilabel")
    assert survey.splits["all"].classes == {"x": 3, "y": 1}
    (root / "values.csv").write_text("path,label\na/0.png,1.5\na/1.png,2\na/2.png,-3\na/3.png,9\n")
    survey = check_data(f"csv:{root / 'values.csv'}", task="regression")
    values = survey.splits["all"].values
    assert (values.low, values.median, values.high) == (-3, 1.75, 9)
    assert survey.splits["all"].imbalance is None
    assert "values, low / median / high" in str(survey)


def test_a_table_with_a_missing_file_is_surveyed(folder):
    root = folder(a=some(0, 2))
    (root / "t.csv").write_text("path,label\na/0.png,x\na/1.png,y\na/gone.png,x\n")
    assert check_data(f"csv:{root / 't.csv'}").splits["all"].bad == (("a/gone.png", "the file does not exist"),)


def test_an_open_data_set_and_arrays_are_surveyed():
    images = np.stack(some(0, 40))
    survey = check_data(open_data((images, np.arange(40) % 2)))
    assert {name: split.count for name, split in survey.splits.items()} == {"train": 32, "val": 4, "test": 4}
    assert survey.splits["train"].kinds == {"array RGB": 32}


def test_what_cannot_be_opened_is_one_clear_error(folder, tmp_path):
    with pytest.raises(JaxftError, match="no folder"):
        check_data(tmp_path / "nowhere")
    with pytest.raises(JaxftError, match="no task is called 'clasify' .did you mean 'classify'"):
        check_data(tmp_path, task="clasify")
    with pytest.raises(JaxftError, match="near is 17"):
        check_data(tmp_path, near=17)
