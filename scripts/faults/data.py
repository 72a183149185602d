"""Pictures that come, go, change, or were none, before a run goes on and while it runs."""

import os
import pathlib
import shutil

from faults.table import UNTOUCHED, fault
from PIL import Image


@fault("a picture came", code=2, says="1 came (circle/extra.png)", then=UNTOUCHED)
def picture_came(stage):
    return changed(stage, "circle/extra.png", lambda file: Image.new("RGB", (40, 40), (9, 9, 9)).save(file))


@fault("a picture is gone", code=2, says="1 went (circle/000.png)", then=UNTOUCHED)
def picture_went(stage):
    return changed(stage, "circle/000.png", pathlib.Path.unlink)


@fault("a picture was replaced by another one under its name", code=2, says="the data changed since step", then=UNTOUCHED)
def other_bytes(stage):
    return changed(stage, "cross/003.png", lambda file: Image.new("RGB", (40, 40), (200, 9, 9)).save(file))


@fault("a picture is cut short", code=2, says="cross/003.png", then=UNTOUCHED)
def cut_picture(stage):
    return changed(stage, "cross/003.png", lambda file: os.truncate(file, file.stat().st_size // 2))


@fault("a picture is a text", code=2, says="cross/003.png", then=UNTOUCHED)
def no_picture(stage):
    return changed(stage, "cross/003.png", lambda file: file.write_text("no picture\n"))


@fault("a class folder is empty", code=2, says="the class folder 'photos/dots' holds no pictures", then=UNTOUCHED)
def empty_class(stage):
    return changed(stage, "dots", lambda folder: [file.unlink() for file in folder.iterdir()])


@fault("the folder of the data is gone", code=2, says="no folder 'photos'", then=UNTOUCHED)
def no_data(stage):
    return changed(stage, ".", shutil.rmtree)


def changed(stage, name, change):
    """Something of the data is changed before the run goes on."""
    stage.begin()
    change(stage.photos / name)
    return stage.refused()


@fault("a picture vanishes while the run reads it (a data reader fails)", code=2, says="the file does not exist")
def picture_vanishes(stage):
    return vanishing(stage, stage.photos / "cross")


@fault("the folder of the data vanishes while the run reads it", code=2, says="the file does not exist")
def data_vanish(stage):
    return vanishing(stage, stage.photos)


def vanishing(stage, folder):
    life = stage.held(4)
    aside = stage.folder / "aside"
    folder.rename(aside)
    life.go()
    return life.end(), lambda: shutil.move(aside, folder)
