"""What the data tests share: `pictures.py` by name, and folders of small pictures."""

import numpy as np
import pictures
import pytest


@pytest.fixture
def draw(tmp_path):
    """(names of files, ...) -> a folder that has them: small pictures, each its own, whatever the folder is called."""

    def make(*names, under="photos", size=6):
        root = tmp_path / under
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([*name.encode()]).integers(0, 256, (size, size, 3), dtype=np.uint8)
            (root / name).write_bytes(pictures.encode(pixels, "PNG"))
        return root

    return make
