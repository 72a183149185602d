import pytest
from tiny_run import draw_folder, write_recipe


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, photos):
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.py", photos)
