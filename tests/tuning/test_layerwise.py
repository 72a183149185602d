"""Layer-wise rates against timm's own table of every parameter; rates by stage; errors."""

import json
from pathlib import Path

import nets
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import build
from jaxft.tuning import Group, assign, layers, layerwise_groups

TIMM = json.loads((Path(__file__).parent / "fixtures" / "layer_decay.json").read_text())


def _torch_name(path):
    *parents, last = path.split("/")
    return ".".join([*parents, {"kernel": "weight", "scale": "weight"}.get(last, last)])


def _joined(path):
    """What are two matrices in timm's SigLIP, of the query and of key and value, is one here."""
    return path.replace("attn_pool.q.", "attn_pool.qkv.").replace("attn_pool.kv.", "attn_pool.qkv.")


@pytest.mark.parametrize("name", TIMM["networks"])
def test_rate_and_decay_of_every_parameter_are_those_of_timms_table(name):
    expected = {_joined(path): (scale, decays) for scale, decays, paths in TIMM["networks"][name] for path in paths}
    model = build(name, num_classes=10)
    params, _ = model.shapes
    found = assign(layerwise_groups(params, model.stages, layer_decay=TIMM["layer_decay"]), params)
    ours = {_torch_name(path): (group.lr_scale, group.weight_decay) for path, group in found.items()}
    assert ours.keys() == expected.keys()
    for path, (scale, decays) in expected.items():
        assert ours[path] == (pytest.approx(scale, rel=1e-12), decays), path


def _network():
    params, _ = nets.init()
    return params, nets.STAGES


def test_layers_name_every_leaf_once_in_the_order_of_the_network():
    model = build("resnet18", num_classes=10)
    found = layers(model.shapes[0], model.stages)
    assert list(found) == ["stem", *(f"layer{stage}/{block}" for stage in range(1, 5) for block in range(2)), "head"]
    assert sorted(path for paths in found.values() for path in paths) == sorted(tree.paths(model.shapes[0]))


@pytest.mark.parametrize(
    "name", ["alexnet", "vgg11_bn", "googlenet", "inception_v3", "squeezenet1_0", "swinv2_tiny_window8_256"]
)
def test_every_other_family_has_layers_too_each_leaf_in_one(name):
    model = build(name, num_classes=10)
    found = layers(model.shapes[0], model.stages)
    assert sorted(path for paths in found.values() for path in paths) == sorted(tree.paths(model.shapes[0]))
    assert list(found)[-1] == "head"
    assert len(found) > len(model.stages)


def test_rates_by_stage_multiply_the_decay_and_the_first_term_counts():
    params, stages = _network()
    groups = layerwise_groups(params, stages, layer_decay=0.5, stage_lr="stem:0.1, **/bias:3, stage2:0, head:2")
    found = {path: group.lr_scale for path, group in assign(groups, params).items()}
    assert found["stem/conv/kernel"] == found["stem/conv/bias"] == pytest.approx(0.1 * 0.5**3)
    assert found["block1/conv/kernel"] == pytest.approx(0.5**2)
    assert found["block1/bn/bias"] == pytest.approx(3 * 0.5**2)
    assert found["block2/conv/kernel"] == 0
    assert (found["head/kernel"], found["head/bias"]) == (2, 3)


def test_which_leaves_decay_stays_as_the_groups_given_say():
    params, stages = _network()
    plain = assign(None, params)
    for path, group in assign(layerwise_groups(params, stages, layer_decay=0.5), params).items():
        assert group.weight_decay == plain[path].weight_decay
    every = assign(layerwise_groups(params, stages, layer_decay=0.5, groups=(Group("all", ("**",)),)), params)
    assert all(group.weight_decay for group in every.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 0.0}, r"layer_decay is 0.0: it must lie in \(0, 1\]"),
        ({"layer_decay": 1.1}, r"layer_decay is 1.1"),
        ({"stage_lr": "stem=0.1"}, r"stage_lr has 'stem=0.1': a term is written STAGE:FACTOR"),
        ({"stage_lr": "stem:fast"}, r"stage_lr has 'stem:fast'"),
        ({"stage_lr": "stem:-1"}, r"stage_lr has 'stem:-1'"),
        ({"stage_lr": ":0.1"}, r"stage_lr has ':0.1'"),
        (
            {"stage_lr": "stagee1:0.1"},
            r"'stagee1' is no stage .did you mean 'stage1'.*; the stages are stem, stage1, stage2, head",
        ),
        ({"stage_lr": "block3/**:0.1"}, r"matches no parameter .did you mean 'block"),
    ],
)
def test_a_factor_or_a_name_that_does_not_fit_is_one_clear_error(settings, message):
    with pytest.raises(JaxftError, match=message) as caught:
        layerwise_groups(*_network(), **settings)
    assert "\n" not in str(caught.value)
