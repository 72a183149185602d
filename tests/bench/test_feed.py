import itertools

import numpy as np
import pytest
from PIL import Image

from jaxft.bench import draw_photos, make_input_work, make_work, open_source
from jaxft.errors import JaxftError

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_source(str(draw_photos(tmp_path_factory.mktemp("bench"), count=12)))


def test_drawn_pictures_have_the_size_of_photographs_and_are_the_same_each_time(tmp_path, source):
    draw_photos(tmp_path, count=2)
    for number in range(2):
        name = f"class{number}/{number:04d}.jpg"
        data = (tmp_path / name).read_bytes()
        assert data == (source.root / name).read_bytes()
        assert 30_000 < len(data) < 150_000
    assert {Image.open(source.root / name).size for name in source.names} == {(500, 375), (375, 500)}
    assert np.unique(source.labels).tolist() == [0, 1]
    assert len(source) == 12


def test_the_pipeline_is_timed_alone(source):
    work = make_input_work("resnet18", source, batch=4, size=32)
    assert (work.images, work.devices, work.flops, work.part) == (4, 0, None, "input")
    assert work.run(2) > 0
    assert make_input_work("resnet18", source, batch=4, size=32, processes=2).run(2) > 0
    with pytest.raises(JaxftError, match="processes is -1"):
        make_input_work("resnet18", source, batch=4, size=32, processes=-1)


def test_training_that_reads_its_data_tells_how_long_it_waited(source, monkeypatch):
    work = make_work("resnet18", "head", batch=4, size=32, devices=2, num_classes=2, source=source)
    seconds = work.run(2)
    assert 0 < work.wait_shares[0] < 1
    ticks = itertools.count()  # each look at the clock is a second later: two waits of one second in all that time
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    assert work.run(2) > 1 > seconds / 60
    assert work.wait_shares[1] == pytest.approx(2 / 6)


def test_evaluation_does_not_read_training_batches(source):
    with pytest.raises(JaxftError, match="only training is timed together"):
        make_work("resnet18", "eval", batch=4, size=32, devices=1, source=source)


def test_a_folder_that_is_not_there_is_said():
    with pytest.raises(JaxftError, match="no folder 'nowhere'"):
        open_source("nowhere")
