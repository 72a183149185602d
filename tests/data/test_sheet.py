"""The page of pictures: whole, harmless, bounded."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from pictures import encode, smooth
from PIL import Image

from jaxft.data import Arrays, Files, check_data, open_data, sheet
from jaxft.errors import JaxftError

EVIL = "<script>alert(1)<!--&\"'"


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; knows whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.images, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in ("meta", "img", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for number, name in enumerate(("cat", EVIL.replace("/", ""))):
        for split in ("train", "val"):
            (root / split / name).mkdir(parents=True)
            for place in range(14):
                pixels = np.roll(smooth(30 + place, 40 + number), place * 7 + 90 * number, axis=1)
                (root / split / name / f"{place}.png").write_bytes(encode(pixels, "PNG"))
    (root / "train" / "cat" / "bad.png").write_bytes(b"")
    (root / "train" / "cat" / f"{EVIL.replace('/', '')}.png").write_bytes(b"text")
    return root


def test_a_page_is_whole_and_has_every_section(pets, tmp_path):
    check_data(pets, sheet=tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text())
    assert page.open == []
    text = "".join(page.words)
    for title in ("Splits", "Sizes", "Same picture", "Unreadable", "Classes", "the file is empty", "bad.png"):
        assert title in text
    assert "svg" in page.tags
    assert len(page.images) > 20
    for image in page.images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as opened:
            opened.load()
            assert max(opened.size) <= 96


def test_names_cannot_become_markup(pets, tmp_path):
    check_data(pets, sheet=tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert EVIL.replace("/", "") in "".join(page.words)
    # Nothing is fetched, nothing runs.
    assert not re.search(r"(?:src|href)=\"(?!data:)|@import|url\(|\son\w+=", text)


def test_the_page_of_a_thousand_classes_is_bounded(tmp_path, monkeypatch):
    names = [f"class {number}" for number in range(1100)]
    images = np.random.default_rng(0).integers(0, 256, (2200, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(sheet, "MOST_THUMBNAILS", 60)
    monkeypatch.setattr(sheet, "MOST_CLASSES", 50)
    splits = open_data({"train": (images, np.arange(2200) % 1100), "val": (images[:9], np.arange(9))}, class_names=names)
    survey = check_data(splits, near=None, sheet=tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text())
    assert len(survey.same) == 9
    assert len(page.images) == 50 + 2 * 9
    assert "The first 50 classes." in page.words


def test_a_thumbnail_of_noise_is_bounded_too(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    found = sheet._figure(Arrays(noise[None], np.zeros(1, np.int32), ["noise"]), 0, "noise", "")
    assert 1000 < len(found) < 1.4 * sheet.MOST_BYTES + 300


def test_tables_of_values_and_of_several_labels_have_pages(tmp_path):
    images = np.stack([np.roll(smooth(20, 20), n, axis=0) for n in range(12)])
    for task, labels in (("regression", np.linspace(-1, 1, 12)), ("multilabel", np.eye(12)[:, :3])):
        check_data(open_data((images, labels), task=task), task=task, sheet=tmp_path / f"{task}.html")
        page = Page((tmp_path / f"{task}.html").read_text())
        assert page.open == []
        assert page.images


def test_a_picture_that_went_meanwhile_leaves_its_name(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(smooth(9, 9), "PNG"))
    source = Files(tmp_path, ["a.png"], np.zeros(1, np.int32))
    (tmp_path / "a.png").unlink()
    assert sheet._figure(source, 0, "a.png", "a & b") == "<figure>a &amp; b (unreadable)</figure>"


def test_a_folder_that_is_not_there_is_one_clear_error(pets, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JaxftError, match="cannot write the sheet"):
        check_data(pets, sheet=tmp_path / "file" / "out.html")
