import jax
import jax.numpy as jnp
import pytest

from jaxft.explain.program import backward_needs, live_ops, module_of, modules_of, names_in
from jaxft.ops.forms import xla_conv
from jaxft.ops.geometry import Geometry


def flops(function, *args):
    return sum(op.flops for op in live_ops(jax.jit(function).trace(*args).jaxpr))


CONVOLUTIONS = [
    # size, channels, kernel, features, strides, padding, dilation, groups
    (9, 4, 3, 6, 2, (1, 1), 1, 1),
    (8, 4, 3, 4, 1, (1, 1), 2, 4),
    (7, 6, 5, 4, 2, (0, 2), 1, 2),
    (2, 3, 3, 5, 1, (1, 1), 1, 1),
]


@pytest.mark.parametrize(("size", "channels", "window", "features", "stride", "pad", "dilation", "groups"), CONVOLUTIONS)
def test_a_convolution_and_its_two_gradients_count_the_products_with_real_pixels(
    size, channels, window, features, stride, pad, dilation, groups
):
    image = jnp.ones((2, size, size, channels))
    kernel = jnp.ones((window, window, channels // groups, features))
    apply = lambda x, k: xla_conv(x, k, Geometry((stride, stride), (pad, pad), (dilation, dilation), groups))
    # The sum of a convolution of ones is the number of its products.
    products = 2 * int(apply(image, kernel).sum())
    assert flops(apply, image, kernel) == products
    loss = lambda x, k: (apply(x, k) ** 2).sum()
    for argument in (0, 1):
        assert flops(jax.grad(loss, argument), image, kernel) == 2 * products
    assert flops(jax.grad(loss, (0, 1)), image, kernel) == 3 * products


def test_what_no_result_depends_on_is_not_live_and_loops_count_their_trips():
    a = jnp.ones((4, 4))
    one = 2 * 4**3

    def step(a):
        def body(carry, _):
            used, unused = carry
            return (used @ a, unused @ used), None

        (used, unused), _ = jax.lax.scan(body, (a, a), None, length=5)
        a @ unused
        return used

    def last_is_read(a):
        # `second` feeds `first` a trip later: both are live, though only `first` is a result.
        def body(carry, _):
            _, second = carry
            return (second, second @ a), None

        return jax.lax.scan(body, (a, a), None, length=5)[0][0]

    assert flops(step, a) == 5 * one
    assert flops(last_is_read, a) == 5 * one


def test_what_checkpoint_does_twice_is_counted_as_recomputed_and_not_as_backward():
    def loss(w, x):
        with jax.named_scope("block"):
            x = jax.checkpoint(lambda w, x: jnp.sin(jnp.sin(x @ w) @ w))(w, x)
        return x.sum()

    shapes = jnp.ones((8, 8)), jnp.ones((8, 8))
    ops = live_ops(jax.jit(jax.grad(loss)).trace(*shapes).jaxpr)
    product = 2 * 8**3
    assert sum(op.flops for op in ops if op.recomputed) in (product, 2 * product)
    assert sum(op.flops for op in ops if op.backward) == 3 * product  # two kernels and one input
    forward = jax.jit(loss).trace(*shapes).jaxpr
    needs = backward_needs(forward, [True, False], frozenset({"block"}))
    assert needs.flops == {"block": 3 * product, "": 0}
    assert needs.forward == 2 * product


@pytest.mark.parametrize("wrap", ["plain", "jit", "scan", "cond"])
def test_a_gradient_is_needed_along_every_way_from_a_trained_input_and_no_other(wrap):
    def product(x, w):
        if wrap == "jit":
            return jax.jit(jnp.dot)(x, w)
        if wrap == "scan":
            return jax.lax.scan(lambda c, _: (c, x @ w), 0, None, length=1)[1][0]
        if wrap == "cond":
            return jax.lax.cond(x[0, 0] > 0, jnp.dot, lambda x, w: x, x, w)
        return x @ w

    def loss(a, b, c, x):
        first = product(x, a)
        stopped = jax.lax.stop_gradient(first) + jax.lax.stop_gradient(x @ a)
        return (product(first, b) @ c + stopped @ c).sum()

    shapes = [jnp.ones((4, 4))] * 4
    program = jax.jit(loss).trace(*shapes).jaxpr
    one = 2 * 4**3
    for trained, products in (((0, 0, 0), 0), ((0, 0, 1), 2), ((0, 1, 0), 2), ((1, 0, 0), 3), ((1, 1, 1), 6)):
        needs = backward_needs(program, [*map(bool, trained), False], frozenset())
        assert sum(needs.flops.values()) == products * one, (wrap, trained)


def test_an_operation_belongs_to_the_longest_module_in_its_name():
    modules = modules_of(["features/0/kernel", "features/10/kernel", "head/bias", "layer4/1/conv2/kernel"])
    assert modules == {"features", "features/0", "features/10", "head", "layer4", "layer4/1", "layer4/1/conv2"}
    names = {
        "jit(step)/transpose(jvp(VGG))/features/10/conv_general_dilated": "features/10",
        "jit(step)/while/body/closed_call/jvp(VGG)/features/0/cond/branch_0_fun/mul": "features/0",
        "transpose(jvp(VGG))/jvp(VGG)/rematted_computation/features": "features",
        "transpose(jvp(N))/layer4/jvp(N)/layer4/rematted_computation/1/conv2": "layer4/1/conv2",
        "jit(step)/transpose(jvp(N))/layer4/jvp(N)/layer4/checkpoint/1/conv2/add": "layer4/1/conv2",
        "jit(step)/reduce_sum": "",
    }
    for name, module in names.items():
        assert module_of(name, modules) == module


def test_names_that_the_compiler_merged_are_taken_apart():
    text = 'op_name="jit(f)/transpose(jvp(N))/(a/b/add:c/mul)"} op_name="jit(f)/jvp(N)/a/dot"}'
    assert set(names_in(text)) == {
        "jit(f)/transpose(jvp(N))/a/b/add",
        "jit(f)/transpose(jvp(N))/c/mul",
        "jit(f)/jvp(N)/a/dot",
    }
