"""Both sides know every operation."""

import ast

import augment_speed
import jax
import jax.numpy as jnp
import jaxft_augment
import pytest
from alternate import FOLDER

from jaxft.errors import JaxftError


@pytest.mark.parametrize("name", augment_speed.OPERATIONS)
def test_an_operation_is_traced_for_a_batch(name):
    batch = {
        "image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8),
        **dict.fromkeys(("label", "shown", "index"), jax.ShapeDtypeStruct((2,), jnp.int32)),
    }
    found = jax.eval_shape(jaxft_augment._look(augment_speed.OPERATIONS[name], 32), batch)
    image = found["image"] if isinstance(found, dict) else found
    assert image.shape == (2, 32, 32, 3)
    assert not isinstance(found, dict) or found["label"].shape == (2, jaxft_augment.CLASSES)


def test_torchvision_has_a_counterpart_of_every_operation():
    tables = [node for node in ast.walk(ast.parse((FOLDER / "torch_augment.py").read_text())) if isinstance(node, ast.Dict)]
    known = {key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)}
    assert set(augment_speed.OPERATIONS) <= known


def test_operations_are_chosen_by_name():
    assert augment_speed.chosen("blur,flip") == ["blur", "flip"]
    assert augment_speed.chosen(None) == list(augment_speed.OPERATIONS)
    with pytest.raises(JaxftError, match="did you mean 'posterize'"):
        augment_speed.chosen("posterise")
