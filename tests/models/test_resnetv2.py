"""What only ResNet v2 has: a last layer that timm writes as a convolution."""

import jax
import numpy as np

from jaxft.models import build
from jaxft.weights import export, load_model, save_safetensors
from jaxft.weights.names import rules


def test_a_head_written_as_a_convolution_is_loaded_with_the_rest(tmp_path):
    model = build("resnetv2_50x1_bit", 7)
    tensors = export(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.variables), rules(model, "timm"))
    tensors["head.fc.weight"] = np.arange(7 * 2048, dtype=np.float32).reshape(7, 2048, 1, 1)
    file = tmp_path / "bit.safetensors"
    save_safetensors(file, tensors)
    loaded = load_model("resnetv2_50x1_bit", pretrained=str(file))
    assert loaded.report.new == ()
    np.testing.assert_array_equal(loaded.params["head"]["fc"]["kernel"], tensors["head.fc.weight"][:, :, 0, 0].T)
    other = load_model("resnetv2_50x1_bit", 5, str(file))
    assert other.report.new == ("head/fc/bias", "head/fc/kernel")
