"""Times of a profile: what belongs to which instruction, and of what kind that is."""

import jax
import jax.numpy as jnp
import pytest
from profile_step import Instruction, instructions, shares


def event(name, start, length, thread=1):
    return {"pid": 1, "tid": thread, "ts": start, "dur": length, "args": {"hlo_op": name}}


def test_what_runs_inside_another_on_the_same_thread_is_not_counted_twice():
    events = [event("while", 0, 100), event("dot", 10, 30), event("add", 50, 20), event("dot", 80, 10)]
    assert shares(events) == {"while": 40, "dot": 40, "add": 20}


def test_what_runs_side_by_side_shares_the_time_and_what_nothing_runs_in_is_waiting():
    events = [event("a", 0, 10), event("b", 5, 10, 2), event("a", 20, 5)]
    assert shares(events) == {"a": 12.5, "b": 7.5, "": 5}


def test_the_next_instruction_on_a_thread_is_not_inside_the_one_before():
    assert shares([event("a", 0, 10), event("b", 10, 10), event("a", 20, 5)]) == {"a": 15, "b": 10}


@pytest.fixture(scope="module")
def compiled():
    def step(x, w):
        with jax.named_scope("layer"):
            y = jnp.tanh(x @ w) * 2 + 1
        return y[::-1].sum(0), y

    return instructions(jax.jit(step).lower(jnp.ones((64, 32)), jnp.ones((32, 16))).compile().as_text())


def test_a_compiled_programs_instructions_have_their_kind_shape_and_layer(compiled):
    kinds = {instruction.kind for instruction in compiled.values()}
    assert {"matrix product", "elementwise"} <= kinds
    product = next(instruction for instruction in compiled.values() if instruction.kind == "matrix product")
    assert product.shape == "f32[64,16]"
    assert product.layer.startswith("forward layer/dot_general")


def test_a_fusion_is_of_the_first_kind_that_one_of_its_operations_has():
    assert Instruction(operations=frozenset({"add", "transpose", "dot"})).kind == "matrix product"
    assert Instruction(operations=frozenset({"add", "transpose"})).kind == "copy or layout"
    assert Instruction(operations=frozenset({"add"})).kind == "elementwise"
    backward = Instruction(path="jit(step)/transpose(jvp(Net))/layer1/conv/dot_general")
    assert backward.layer == "backward layer1/conv/dot_general"
    assert backward.module == "conv"
    assert Instruction(path="jit(step)/jvp(Net)/layer1/0/max").module == "layer"
