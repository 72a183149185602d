"""What only DenseNet has: files with former names, and maps that are laid side by side again and again."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxft import tree
from jaxft.models import build, densenet
from jaxft.weights import convert, export
from jaxft.weights.names import rules


def test_torchvisions_published_files_are_read_by_their_former_names_of_a_dense_layer():
    model = build(densenet.architecture(densenet.Config((2, 1), growth=8)), 5)
    params, state = jax.jit(model.init)(jax.random.key(0))
    variables, table = {"params": params, **state}, rules(model, "torchvision")
    # Those files are older than the counts of batches, too.
    current = {name: value for name, value in export(variables, table).items() if not name.endswith("num_batches_tracked")}
    former = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value for name, value in current.items()}
    assert "features.denseblock1.denselayer2.norm.1.running_mean" in former
    jax.tree.map(np.testing.assert_array_equal, convert(former, table, model.variables).tree, variables)


def test_recomputed_a_block_keeps_memory_in_proportion_to_its_depth():
    def kept(depth, remat):
        """Bytes of what the backward pass is given, besides the parameters."""
        model = build(densenet.architecture(densenet.Config((depth,))), 5, size=64, remat=remat)
        params, state = model.shapes
        image = jax.ShapeDtypeStruct((16, 64, 64, 3), jnp.float32)

        def backward(params, state, image):
            _, back = jax.vjp(lambda p: model.apply(p, state, image, train=True)[0]["logits"], params)
            return dict(enumerate(jax.tree.leaves(back)))

        return tree.nbytes(jax.eval_shape(backward, params, state, image)) - tree.nbytes(params)

    for remat in ("all", ""):
        small, middle, large = (kept(depth, remat) for depth in (4, 8, 16))
        assert (large - middle == 2 * (middle - small)) == bool(remat), (remat, small, middle, large)
