"""Loaders are timed with real workers on a few small pictures."""

import argparse
import contextlib
import itertools
import os
import sys

import fed
import loading
import numpy as np
import photographs
import pytest
from alternate import Worker, WorkerError
from PIL import Image

from jaxft.data.convert import convert_data
from jaxft.errors import JaxftError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of three pictures, of 20 to 25 pixels a side."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(6):
        file = root / f"class{number % 2}" / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + number, 25 - number, 3), np.uint8)).save(file)
    return root


def test_a_loader_is_opened_warmed_and_closed_in_every_turn():
    said = []

    @contextlib.contextmanager
    def batches():
        said.append("opened")
        yield (said.append(number) for number in itertools.count())
        said.append("closed")

    work = fed.fed(batches, 16)
    assert work.images == 16 * fed.BATCHES
    assert work.run(2) > 0
    assert said == ["opened", *range(fed.WARM + 2 * fed.BATCHES), "closed"]


def test_photographs_have_the_size_of_photographs_and_are_the_same_each_time(pictures, tmp_path):
    files = sorted(pictures.rglob("*.jpg"))
    first = photographs.make_photographs(tmp_path / "first", files, count=2)
    again = photographs.make_photographs(tmp_path / "again", files, count=2)
    made = sorted(first.rglob("*.jpg"))
    assert [file.relative_to(first).as_posix() for file in made] == ["class0/0000.jpg", "class1/0001.jpg"]
    for file in made:
        assert photographs.LEAST <= file.stat().st_size <= photographs.MOST
        assert (again / file.relative_to(first)).read_bytes() == file.read_bytes()
        with Image.open(file) as opened:
            assert opened.size == (photographs.WIDTH, photographs.HEIGHT)


def test_pictures_that_make_no_photographs_are_one_clear_error(tmp_path):
    with pytest.raises(JaxftError, match="the first one holds none"):
        photographs.make_photographs(tmp_path, [], count=1)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (400, 400, 3), np.uint8)).save(tmp_path / "noise.png")
    with pytest.raises(JaxftError, match="no noise makes a mosaic a file"):
        photographs.make_photographs(tmp_path, [tmp_path / "noise.png"], count=1)


@pytest.mark.parametrize("side", ["jaxft", "grain"])
def test_every_way_to_load_hands_out_batches(side, pictures, tmp_path):
    work = {"root": str(pictures), "records": str(tmp_path / "records"), "examples": 6, "batch": 2, "size": 16, "threads": 1}
    convert_data(f"folder:{pictures}", tmp_path / "records")
    variants = {variant for name, found in loading.sides(1).values() if name == side for variant in found}
    with Worker(side, sys.executable, f"{side}_loading.py") as worker:
        assert side in worker.ask("about")["versions"]
        for variant in variants:
            if "workers=2" in variant:
                continue  # processes take long to start
            found = worker.ask("prepare", work={**work, "variant": variant})
            assert found["images"] == 2 * fed.BATCHES
            assert worker.ask("time", id=found["id"], calls=1)["seconds"] > 0
        with pytest.raises(WorkerError, match="6 examples were found, not 7"):
            worker.ask("prepare", work={**work, "examples": 7, "variant": variant})


@pytest.mark.skipif("JAXFT_TORCH_PYTHON" not in os.environ, reason="JAXFT_TORCH_PYTHON names no Python")
def test_torchvisions_loaders_hand_out_batches(pictures):
    work = {"root": str(pictures), "examples": 6, "batch": 2, "size": 16, "threads": 1}
    with Worker("torch", os.environ["JAXFT_TORCH_PYTHON"], "torch_loading.py") as worker:
        for variant in ("PIL+workers=0", "tensor+workers=1"):
            found = worker.ask("prepare", work={**work, "variant": variant})
            assert worker.ask("time", id=found["id"], calls=1)["seconds"] > 0


def test_growth_is_told_from_the_first_epochs_filling():
    assert loading.growth([100.0, 200.0] + [250.0] * 18) == pytest.approx(0)
    assert loading.growth([100.0, 200.0] + [250.0 + 0.6 * epoch for epoch in range(18)]) == pytest.approx(0.6)
    assert loading.growth([100.0, 200.0] + [250.0] * 17 + [280.0]) == pytest.approx(0)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_is_read_after_each_epoch(pictures, capsys):
    found = loading.memory(pictures, 3, batch=4, threads=1)
    assert len(found) == 3
    assert min(found) > 10
    assert "epoch 3:" in capsys.readouterr().out


def test_of_a_folder_with_splits_training_is_read(pictures, tmp_path):
    assert loading.folder_of(f"few={pictures}") == ("few", pictures)
    (tmp_path / "train").mkdir()
    assert loading.folder_of(f"few={tmp_path}") == ("few", tmp_path / "train")
    for wrong in (str(pictures), f"={pictures}", "few=", f"few={pictures}/nowhere"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not NAME=FOLDER"):
            loading.folder_of(wrong)


def test_numbers_of_cores_are_checked():
    assert loading.core_counts("1") == [1]
    for wrong in ("", "0", "1,", "one", "1000"):
        with pytest.raises(argparse.ArgumentTypeError, match="are not numbers of cores"):
            loading.core_counts(wrong)
