"""A tiny network beside what its original computed: relative errors, for the tests and for the table in docs/models.md."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import originals
import seeded

from jaxft.models import build
from jaxft.verify.compare import batch_in_train_mode
from jaxft.weights import convert
from jaxft.weights.names import rules

FIXTURES = Path(__file__).parent / "fixtures" / "zoo"


class Compared:
    """A case with its seeded weights, converted, and the fixture of scripts/make_zoo_fixtures.py or make_keras_fixtures.py."""

    def __init__(self, case):
        self.case = case
        self.fixture = np.load(FIXTURES / f"{case.name}.npz")
        self.model = self.build("float32")
        self.table = rules(self.model, case.convention)
        shapes = {name: tuple(shape) for name, shape in self.json("shapes").items()}
        self.weights = seeded.state_dict(1, shapes)
        self.variables = convert(self.weights, self.table, self.model.variables).tree
        self.images = seeded.images(1, case.batch, case.size)

    def json(self, key):
        return json.loads(str(self.fixture[key]))

    def build(self, dtype):
        return build(self.case.architecture, originals.CLASSES, size=self.case.size, dtype=dtype, **self.case.options)

    @functools.cached_property
    def outputs(self):
        """Of inference in float32."""
        state = {key: value for key, value in self.variables.items() if key != "params"}
        return jax.jit(lambda p, s, x: self.model.apply(p, s, x)[0])(self.variables["params"], state, self.images)

    @functools.cached_property
    def step(self):
        """(loss, {foreign name: gradient or new statistic}) of a batch in train mode in float64."""
        labels = seeded.labels(1, self.case.batch, originals.CLASSES)
        with jax.enable_x64(True):
            model = self.build("float64")
        return batch_in_train_mode(model, self.variables, self.images, labels, self.table, tuple(self.case.aux))

    def logits_error(self):
        expected = self.fixture["logits"]
        return float(np.abs(self.outputs["logits"] - expected).max() / np.abs(expected).max())

    def stage_errors(self):
        """Stage -> error, of the stages that the fixture has."""
        shapes = self.json("map_shapes")
        assert {stage: list(self.outputs[stage].shape) for stage in shapes} == shapes
        return digest_errors({stage: self.outputs[stage] for stage in shapes}, self.fixture["maps"])

    def loss_error(self):
        expected = float(self.fixture["loss"])
        return abs(self.step[0] - expected) / abs(expected)

    def gradient_errors(self):
        """Foreign name -> error; what the network does not have has no gradient there either."""
        found, names = self.step[1], self.json("grad_names")
        rows = [row for row, name in enumerate(names) if name in found]
        return digest_errors({names[row]: found[names[row]] for row in rows}, self.fixture["grads"][rows])

    def statistic_errors(self):
        names = [name for name in self.json("shapes") if name.endswith(originals.STATISTICS)]
        return digest_errors({name: self.step[1][name] for name in names}, self.fixture["statistics"])


def digest_errors(found, expected):
    """Name -> the error of a tensor's norm, relative to it, or a tenth of that of the furthest sampled entry, relative to the
    root mean square: the larger of the two. What is zero but for rounding must be that here too.
    """
    largest, errors = max(expected[:, 0], default=0), {}
    for (name, value), ours, theirs in zip(found.items(), originals.digest(found), expected, strict=True):
        norm = max(theirs[0], 1e-9 * largest)
        entries = np.abs(ours[1:] - theirs[1:]).max() / (norm / np.sqrt(np.asarray(value).size))
        errors[name] = float(max(abs(ours[0] - theirs[0]) / norm, entries / 10))
    return errors
