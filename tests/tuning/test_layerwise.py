"""Layer-wise rates against timm's own table of every parameter; rates by stage; errors."""

import json
from pathlib import Path

import pytest

from jaxft.models import build
from jaxft.tuning import assign, layerwise_groups

TIMM = json.loads((Path(__file__).parent / "fixtures" / "layer_decay.json").read_text())


def _torch_name(path):
    *parents, last = path.split("/")
    return ".".join([*parents, {"kernel": "weight", "scale": "weight"}.get(last, last)])


@pytest.mark.parametrize("name", TIMM["networks"])
def test_rate_and_decay_of_every_parameter_are_those_of_timms_table(name):
    expected = {path: (scale, decays) for scale, decays, paths in TIMM["networks"][name] for path in paths}
    model = build(name, num_classes=10)
    params, _ = model.shapes
    found = assign(layerwise_groups(params, model.stages, layer_decay=TIMM["layer_decay"]), params)
    ours = {_torch_name(path): (group.lr_scale, group.weight_decay) for path, group in found.items()}
    assert ours.keys() == expected.keys()
    for path, (scale, decays) in expected.items():
        assert ours[path] == (pytest.approx(scale, rel=1e-12), decays), path
