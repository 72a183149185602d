"""The receipts that are kept say that all is equal, and the references that come with jaxft can be read."""

import json
from pathlib import Path

import pytest

import jaxft
from jaxft.models import build, list_models
from jaxft.verify.original import read_reference
from jaxft.verify.verify import originals

ROOT = Path(__file__).parent.parent.parent
RECEIPTS = sorted((ROOT / "docs" / "receipts").glob("*.json"))
REFERENCES = sorted((Path(jaxft.__file__).parent / "verify" / "references").glob("*.npz"))


def test_every_network_has_a_receipt_from_each_library_and_some_are_of_real_weights():
    pairs = {f"{name}.{library}" for name in list_models() for library in originals(build(name))}
    found = {file.stem for file in RECEIPTS}
    assert pairs - found == set()
    assert any(not json.loads(file.read_text())["weights"].startswith("seeded") for file in RECEIPTS)


@pytest.mark.parametrize("file", RECEIPTS, ids=lambda file: file.stem)
def test_a_kept_receipt_says_that_the_network_equals_the_librarys(file):
    found = json.loads(file.read_text())
    assert found["equal"] is True
    assert found["parting"] is None
    library, theirs = found["original"].split()
    name = found["network"].partition(".")[0]
    assert name in list_models()
    assert theirs == originals(build(name))[library]
    assert found["layers"] >= 8
    assert found["logits"]["max_rel"] <= found["tolerance"] == 1e-4
    if found["gradients"]:
        assert found["gradients"]["max_rel"] <= 1e-6
    else:  # a batch in train mode is compared of the small ones, and of these
        assert file.stem not in {reference.stem for reference in REFERENCES}
    assert {library, "torch", "jax"} <= found["versions"].keys()


@pytest.mark.parametrize("file", REFERENCES, ids=lambda file: file.stem)
def test_a_reference_that_comes_with_jaxft_can_be_read(file):
    original, about = read_reference(file)
    library = file.stem.rpartition(".")[2]
    assert about["network"] == file.stem.removesuffix(f".{library}")
    assert about["weights"] == "seeded 0"
    assert original.versions.keys() >= {"torch", library}
    assert {"logits", "loss"} <= original.tensors.keys()
