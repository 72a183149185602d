"""Every family against the libraries its weights come from, on the same weights: names and shapes, inference with every stage,
one batch in train mode. Tiny networks; of those in full size, numbers of parameters, names and shapes.

What they compute there stands in fixtures/zoo, written by scripts/make_zoo_fixtures.py. Of all in full size some logits stand
there too, written by scripts/make_receipts.py.
"""

import fcntl
import json
from pathlib import Path

import compared
import numpy as np
import originals
import pytest

from jaxft import tree
from jaxft.models import build, list_models, size_of
from jaxft.verify import seeded
from jaxft.verify.compare import difference, run_layers
from jaxft.verify.original import Theirs, kept_entries
from jaxft.verify.verify import in_float64, seeded_model, seeded_variables
from jaxft.weights import export
from jaxft.weights.names import conventions, foreign_shapes

CASES = originals.cases()
#: A family's first; of the others, and of Inception and GoogLeNet, the batch in train mode, which takes longest to compile, is
#: slow.
EVERY_RUN = {family.CASES[0].name for family in originals.families().values() if family.CASES} - {
    "inception_v3",
    "googlenet_aux",
}
TRAINED = [pytest.param(name, marks=[] if name in EVERY_RUN else pytest.mark.slow) for name in CASES]
SINGLE, DOUBLE = 1e-4, 1e-5  # relative; the fixtures hold float32 of float64 gradients


pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module", params=CASES)
def network(request):
    return compared.Compared(CASES[request.param])


def test_the_state_dict_comes_back_name_by_name_and_bit_for_bit(network):
    ignored = {source for rule in network.table if rule.dst is None for source in rule.sources}
    counts = {name for name in network.weights if name.endswith("num_batches_tracked")}
    constants = {source for rule in network.table if rule.constant is not None for source in rule.sources}
    found = {name: value for name, value in export(network.variables, network.table).items() if name not in constants}
    assert found.keys() == network.weights.keys() - ignored | counts
    for name, value in found.items():
        assert value.shape == network.weights[name].shape, name
        np.testing.assert_array_equal(value, network.weights[name], err_msg=name)


def test_logits_and_every_stage_equal_the_originals(network):
    assert network.logits_error() <= SINGLE
    errors = network.stage_errors()
    assert set(errors) >= {stage for stage in network.model.stages if stage.startswith("stage")}
    assert max(errors.values()) <= SINGLE, errors


@pytest.mark.parametrize("network", TRAINED, indirect=True)
def test_a_batch_in_train_mode_equals_the_originals_in_loss_gradients_and_statistics(network):
    assert network.loss_error() <= DOUBLE
    for errors in (network.gradient_errors(), network.statistic_errors()):
        wrong = {name: error for name, error in errors.items() if not error <= DOUBLE}
        assert not wrong


def _assert_full(name):
    model = build(name)
    assert originals.full()[name].keys() <= set(conventions(model))
    for convention, expected in originals.full()[name].items():
        assert originals.names_hash(foreign_shapes(model, convention)) == expected["names"], convention
        assert tree.count(model.variables["params"]) == expected["parameters"]


@pytest.mark.parametrize("name", originals.smallest())
def test_a_familys_smallest_network_has_the_originals_parameters_names_and_shapes(name):
    _assert_full(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if name not in originals.smallest()])
def test_every_network_has_the_originals_parameters_names_and_shapes(name):
    _assert_full(name)


LOGITS = np.load(compared.FIXTURES / "full_logits.npz")
RECEIPTS = Path(__file__).parent.parent.parent / "docs" / "receipts"


@pytest.fixture
def one_at_a_time(request, tmp_path_factory):
    """Of networks with over 600 M parameters, whose tests take 8 to 20 GB, only one worker computes one."""
    if size_of(request.getfixturevalue("key").rpartition(".")[0]).parameters < 600e6:
        yield
        return
    with (tmp_path_factory.getbasetemp().parent / "large-networks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("key", LOGITS.files)
def test_a_networks_logits_in_full_size_equal_the_originals(key):
    """On the weights and in the dtype of the receipt, and two images of seed 0, as in `jaxft verify`; without torch."""
    name, _, library = key.rpartition(".")
    receipt = json.loads((RECEIPTS / f"{key}.json").read_text())
    gain = float(receipt["weights"].removeprefix("seeded 0, gain ")) if "gain" in receipt["weights"] else 1.0
    model = seeded_model(name)
    variables, images = seeded_variables(model, library, 0, gain), seeded.images(0, 2, model.preprocessing.size)
    ours = run_layers(in_float64(model) if receipt["dtype"] == "float64" else model, variables, images)[0]["logits"]
    assert ours.shape == (2, 1000)
    theirs = Theirs(ours.shape, kept_entries("logits", ours.size), LOGITS[key])
    assert difference("logits", ours, theirs).max_rel <= SINGLE
