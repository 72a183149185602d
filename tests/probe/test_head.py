"""A linear map of features becomes the head of any network whose head is one."""

import jax
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.models import build, deit, list_models, vit
from jaxft.preprocessing import Preprocessing
from jaxft.probe import Linear, has_linear_head, with_linear_head

RNG = np.random.default_rng(0)
DISTILLED = vit.architecture(vit.Config(16, 1, 2, 8, dist_token=True, placed=2, pool="tokens"), Preprocessing(16, 16), "deit")

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.mark.parametrize(("network", "width"), [("resnet10t", 512), ("regnetx_002", 368), (DISTILLED, 32)])
def test_the_networks_logits_are_those_of_the_map(network, width):
    model = build(network, 3, size=None if network is DISTILLED else 32)
    params, state = jax.jit(model.init)(jax.random.key(0))
    linear = Linear(RNG.normal(size=(width, 3)), RNG.normal(size=3))
    changed = with_linear_head(model, params, linear)
    features = RNG.normal(size=(4, width)).astype(np.float32)
    outputs, _ = model.apply(changed, state, features, start="head")
    np.testing.assert_allclose(outputs["logits"], linear.logits(features), atol=1e-4)
    with pytest.raises(JaxftError, match=r"kernel is \[.*, the linear map \["):
        with_linear_head(model, params, Linear(np.zeros((width + 2, 3)), np.zeros(3)))


def test_of_the_networks_squeezenet_alone_has_no_linear_head_and_no_other_kind_of_head_is_one():
    some = ("alexnet", "vgg11", "googlenet", "densenet121", "mobilenetv2_100", "convnext_tiny", "swin_tiny_patch4_window7_224")
    found = {name: has_linear_head(build(name)) for name in list_models("*") if name in (*some, "squeezenet1_0")}
    assert [name for name, linear in found.items() if not linear] == ["squeezenet1_0"]
    assert len(found) > 5
    assert has_linear_head(build(deit.ARCHITECTURES["deit_tiny_distilled_patch16_224"]))
    for head in ("mlp", "cosine", "cosine:8"):
        assert not has_linear_head(build("resnet10t", head=head))
    with pytest.raises(JaxftError, match="the head of squeezenet1_0 is no linear map of its features"):
        with_linear_head(build("squeezenet1_0"), {}, Linear(np.zeros((2, 2)), np.zeros(2)))
