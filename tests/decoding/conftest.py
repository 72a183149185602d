"""Where the golden pictures of the decoding tests lie."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fixtures():
    return Path(__file__).parent / "fixtures"
