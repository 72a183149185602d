"""Every lowering of the convolution, and its gradients, against a float64 loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import USERS_GENERATOR

from jaxft import ops
from jaxft.errors import JaxftError
from jaxft.ops.conv import FORMS, form_of
from jaxft.ops.geometry import Geometry, pair, resolve_padding
from jaxft.ops.winograd import blocks, filtering
from jaxft.parallel import batch_sharding, make_mesh, replicated

pytestmark = pytest.mark.usefixtures("quick_compiles")

CASES = {
    "plain 3x3": ((2, 6, 5, 3), (3, 3, 3, 4), {"padding": 1}),
    "strided 3x3 on an odd map": ((2, 7, 5, 3), (3, 3, 3, 2), {"padding": 1, "strides": 2}),
    "SAME stride 2 on an even map": ((1, 6, 8, 2), (3, 3, 2, 2), {"padding": "SAME", "strides": 2}),
    "1x1": ((2, 4, 3, 5), (1, 1, 5, 3), {}),
    "1x1 stride 2 on an odd map": ((2, 5, 7, 3), (1, 1, 3, 2), {"strides": 2}),
    "1x1 stride 2 on an even map": ((1, 4, 6, 3), (1, 1, 3, 2), {"strides": 2}),
    "2x3 tiles": ((2, 4, 6, 3), (2, 3, 3, 4), {"strides": (2, 3)}),
    "one tile": ((2, 3, 3, 2), (3, 3, 2, 4), {"strides": 3}),
    "tiles and a rest": ((2, 5, 7, 2), (2, 2, 2, 3), {"strides": 2}),
    "kernel larger than its map": ((2, 2, 2, 3), (3, 3, 3, 4), {"padding": 1}),
    "kernel on a single pixel": ((3, 1, 1, 3), (3, 3, 3, 2), {"padding": 1}),
    "5x5 on 4x4": ((1, 4, 4, 2), (5, 5, 2, 3), {"padding": 2}),
    "7x7 on 3x3, strided": ((2, 3, 3, 2), (7, 7, 2, 3), {"padding": 3, "strides": 2}),
    "depthwise 3x3": ((2, 5, 6, 4), (3, 3, 1, 4), {"padding": 1, "groups": 4}),
    "depthwise 5x5 SAME stride 2": ((2, 6, 7, 3), (5, 5, 1, 3), {"padding": "SAME", "strides": 2, "groups": 3}),
    "depthwise 3x3 stride 2 on an odd map": ((1, 5, 5, 3), (3, 3, 1, 3), {"padding": 1, "strides": 2, "groups": 3}),
    "depthwise 5x4 with uneven strides and padding": (
        (2, 7, 8, 3),
        (5, 4, 1, 3),
        {"padding": ((2, 1), (0, 2)), "strides": (3, 2), "groups": 3},
    ),
    "depthwise 2x1, smaller than its strides": ((1, 7, 6, 2), (2, 1, 1, 2), {"strides": 3, "groups": 2}),
    "depthwise larger than its map": ((2, 2, 2, 3), (5, 5, 1, 3), {"padding": "SAME", "groups": 3}),
    "grouped": ((2, 5, 5, 6), (3, 3, 2, 9), {"padding": 1, "groups": 3}),
    "dilated": ((1, 7, 7, 2), (3, 3, 2, 2), {"padding": 2, "dilation": 2}),
    "3x3 without padding": ((2, 6, 9, 3), (3, 3, 3, 2), {}),
    "3x3 padded on some sides": ((3, 4, 5, 2), (3, 3, 2, 3), {"padding": ((0, 2), (1, 0))}),
    "3x3 on one row": ((2, 1, 7, 2), (3, 3, 2, 2), {"padding": 1}),
    "grouped, several together": ((1, 4, 5, 8), (3, 3, 2, 4), {"padding": 1, "strides": 2, "groups": 4}),
    "grouped, two convolutions": ((1, 3, 3, 64), (1, 1, 16, 4), {"groups": 4}),
    "uneven padding": ((1, 5, 4, 2), (3, 2, 2, 3), {"padding": ((0, 2), (1, 0))}),
}


def reference(x, kernel, strides=1, padding=0, dilation=1, groups=1):
    """Cross-correlation in float64 by loops over output pixels."""
    strides, dilation = pair(strides), pair(dilation)
    pads = resolve_padding(padding, x.shape[1:3], kernel.shape[:2], strides, dilation)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    height, width, inner, outer = kernel.shape
    rows = (padded.shape[1] - (height - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (padded.shape[2] - (width - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((x.shape[0], rows, columns, outer))
    for i in range(rows):
        for j in range(columns):
            top, left = i * strides[0], j * strides[1]
            seen = padded[:, top : top + height * dilation[0] : dilation[0], left : left + width * dilation[1] : dilation[1]]
            for group in range(groups):
                own = slice(group * outer // groups, (group + 1) * outer // groups)
                part = seen[:, :height, :width, group * inner : (group + 1) * inner]
                out[:, i, j, own] = np.tensordot(part, kernel[..., own], 3)
    return out


def numeric_gradients(x, kernel, cotangent, options):
    """The convolution is linear in each operand: one probe an entry gives the exact gradient."""

    def probe(operand, other_first):
        found = np.zeros_like(operand)
        for index in np.ndindex(operand.shape):
            unit = np.zeros_like(operand)
            unit[index] = 1
            y = reference(unit, kernel, **options) if other_first else reference(x, unit, **options)
            found[index] = (y * cotangent).sum()
        return found

    return probe(x, True), probe(kernel, False)


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    shape, kernel_shape, options = CASES[request.param]
    rng = np.random.default_rng(len(request.param))
    x, kernel = rng.normal(size=shape), rng.normal(size=kernel_shape)
    y = reference(x, kernel, **options)
    cotangent = rng.normal(size=y.shape)
    return x, kernel, options, y, cotangent, numeric_gradients(x, kernel, cotangent, options)


def fits(name, x, kernel, strides=1, padding=0, dilation=1, groups=1):
    strides, dilation = pair(strides), pair(dilation)
    pads = resolve_padding(padding, x.shape[1:3], kernel.shape[:2], strides, dilation)
    return FORMS[name].can(x.shape, kernel.shape, Geometry(strides, pads, dilation, groups))


@pytest.mark.parametrize("lowering", ["auto", "xla", "cpu", *FORMS])
def test_convolution_and_gradients_equal_float64(case, lowering):
    x, kernel, options, y, cotangent, (dx, dk) = case
    if lowering in FORMS and not fits(lowering, x, kernel, **options):
        with pytest.raises(JaxftError, match=f"no '{lowering}' form of a kernel"):
            ops.conv(jnp.asarray(x), jnp.asarray(kernel), lowering=lowering, **options)
        return

    def run(x, kernel, cotangent):
        found, pull = jax.vjp(lambda x, kernel: ops.conv(x, kernel, lowering=lowering, **options), x, kernel)
        return found, *pull(cotangent)

    compiled = jax.jit(run, compiler_options=USERS_GENERATOR)
    found = compiled(*(jnp.asarray(value, jnp.float32) for value in (x, kernel, cotangent)))
    for value, expected in zip(found, (y, dx, dk), strict=True):
        assert value.shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


#: Convolutions of the networks (image, kernel, options) and the form each is compiled to on the CPU.
CHOSEN = {
    "VGG at 224 px, first": ((8, 224, 224, 3), (3, 3, 3, 64), {"padding": 1}, None),
    "VGG at 224 px, second": ((8, 224, 224, 64), (3, 3, 64, 64), {"padding": 1}, "winograd_kernel_gradient"),
    "VGG at 224 px, third block": ((8, 56, 56, 256), (3, 3, 256, 256), {"padding": 1}, "winograd"),
    "VGG on a few tiny pictures": ((2, 4, 4, 256), (3, 3, 256, 256), {"padding": 1}, None),
    "VGG at 32 px, last block": ((64, 2, 2, 512), (3, 3, 512, 512), {"padding": 1}, "patched"),
    "ResNet's strided 3x3": ((8, 56, 56, 128), (3, 3, 128, 128), {"padding": 1, "strides": 2}, None),
    "ResNet's last strided 3x3": ((8, 14, 14, 512), (3, 3, 512, 512), {"padding": 1, "strides": 2}, "patched"),
    "EfficientNet's first": ((8, 224, 224, 3), (3, 3, 3, 32), {"padding": "SAME", "strides": 2}, "patched_forward"),
    "ResNet's first": ((8, 224, 224, 3), (7, 7, 3, 64), {"padding": 3, "strides": 2}, None),
    "ResNet's shortcut": ((8, 56, 56, 256), (1, 1, 256, 512), {"strides": 2}, "pointwise"),
    "EfficientNet's depthwise": ((8, 56, 56, 144), (5, 5, 1, 144), {"padding": "SAME", "groups": 144}, "depthwise"),
    "ViT's patches": ((8, 224, 224, 3), (16, 16, 3, 384), {"strides": 16}, "tiled"),
    "ResNeXt's": ((8, 56, 56, 128), (3, 3, 4, 128), {"padding": 1, "groups": 32}, "grouped"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_table_chooses_by_shape_and_xla_alone_elsewhere(name):
    shape, kernel_shape, options, expected = CHOSEN[name]
    x, kernel = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(kernel_shape, jnp.float32)
    strides, dilation = pair(options.get("strides", 1)), (1, 1)
    pads = resolve_padding(options.get("padding", 0), shape[1:3], kernel_shape[:2], strides, dilation)
    geometry = Geometry(strides, pads, dilation, options.get("groups", 1))
    assert form_of(x, kernel, geometry) == expected
    narrow = form_of(x.update(dtype=jnp.bfloat16), kernel.update(dtype=jnp.bfloat16), geometry)
    assert narrow == (None if expected and expected.startswith("winograd") else expected)
    gradient = jax.jit(jax.grad(lambda x, kernel: ops.conv(x, kernel, **options).sum(), argnums=(0, 1)))
    for platform in ("tpu", "cuda"):
        text = gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") >= 2
        assert "stablehlo.while" not in text
        assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("shape", [(8, 64, 64, 64), (6, 28, 28, 64), (7, 5, 6, 64)])
def test_the_kernel_gradient_in_blocks_equals_float64(shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape)
    kernel, grad = rng.normal(size=(3, 3, 64, 64)), rng.normal(size=shape)
    loss = lambda kernel: (ops.conv(jnp.asarray(x, jnp.float32), kernel, padding=1, lowering="winograd") * grad).sum()
    found = jax.jit(jax.grad(loss))(jnp.asarray(kernel, jnp.float32))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = shape[1:3]
    taps = [padded[:, i : i + height, j : j + width].reshape(-1, 64) for i in range(3) for j in range(3)]
    expected = np.stack([part.T @ grad.reshape(-1, 64) for part in taps]).reshape(3, 3, 64, 64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 13, 64])
@pytest.mark.parametrize("side", [1, 4, 7, 14, 28, 32, 56, 97, 112, 224])
def test_blocks_divide_the_batch_and_the_map_and_are_neither_tiny_nor_huge(batch, side):
    images, rows = blocks(batch, side, side, 64 * 64)
    assert batch % images == 0
    assert side % rows == 0
    assert images == 1 or rows == side
    assert images * rows * side <= max(2048 * 1.6, batch * side * side if batch in (7, 13) else 0)
    if side in (32, 56, 112, 224) and batch in (8, 64):
        assert images * rows * side >= 1024


@pytest.mark.parametrize(("outputs", "taps"), [(4, 3), (3, 4)])
def test_minimal_filtering_is_exact(outputs, taps):
    data, kernel, out = filtering(outputs, taps)
    rng = np.random.default_rng(0)
    d, g = rng.normal(size=6), rng.normal(size=taps)
    np.testing.assert_allclose(out @ ((kernel @ g) * (data @ d)), np.correlate(d, g, "valid"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("devices", [2, 8])
def test_winograd_on_a_batch_over_devices_equals_one_device(devices):
    mesh = make_mesh(devices=jax.devices()[:devices])
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(16, 16, 16, 64)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 64)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, kernel: (ops.conv(x, kernel, padding=1) ** 2).sum(), argnums=(0, 1)))
    one = gradient(x, kernel)
    several = gradient(jax.device_put(x, batch_sharding(mesh)), jax.device_put(kernel, replicated(mesh)))
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(a).max()))


def test_convolution_under_vmap_equals_a_loop():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 2, 4, 4, 2)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 2)), jnp.float32)
    convolve = lambda x: ops.conv(x, kernel, padding=1, groups=2)
    np.testing.assert_allclose(jax.vmap(convolve)(x), jnp.stack([convolve(part) for part in x]), rtol=1e-5, atol=1e-6)


def test_on_the_cpu_no_convolution_is_left_of_a_depthwise_one_and_elsewhere_nothing_else():
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    gradient = jax.jit(jax.grad(lambda x, kernel: ops.conv(x, kernel, padding=1, groups=4).sum(), argnums=(0, 1)))
    assert "stablehlo.convolution" not in gradient.lower(x, kernel).as_text()
    for platform in ("tpu", "cuda"):
        text = gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") >= 2
        assert "stablehlo.while" not in text


@pytest.mark.parametrize("groups", [1, 16])
def test_a_frozen_kernel_costs_no_kernel_gradient(groups):
    x = jnp.ones((4, 2, 2, 16)) if groups == 1 else jnp.ones((4, 16, 16, 16))
    kernel = jnp.ones((3, 3, 16 // groups, 16))
    loss = lambda x, kernel: (ops.conv(x, kernel, padding=1, groups=groups) ** 2).sum()
    flops = lambda argnums: jax.jit(jax.grad(loss, argnums)).lower(x, kernel).compile().cost_analysis()["flops"]
    assert flops(0) < 0.8 * flops((0, 1))


def test_bfloat16_stays_bfloat16():
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 1, 2), jnp.bfloat16)
    assert ops.conv(x, kernel, padding=1, groups=2).dtype == jnp.bfloat16


def test_wrong_channels_padding_and_environment_are_clear_errors(monkeypatch):
    x = jnp.ones((1, 4, 4, 3))
    with pytest.raises(JaxftError, match="takes 2 channels, not 3"):
        ops.conv(x, jnp.ones((3, 3, 2, 4)))
    with pytest.raises(JaxftError, match="padding is 'VALID'"):
        ops.conv(x, jnp.ones((3, 3, 3, 4)), padding="VALID")
    with pytest.raises(JaxftError, match="lowering is 'winogard' \\(did you mean 'winograd'"):
        ops.conv(x, jnp.ones((3, 3, 3, 4)), lowering="winogard")
    monkeypatch.setenv("JAXFT_OPS", "fast")
    with pytest.raises(JaxftError, match="JAXFT_OPS is 'fast'"):
        ops.conv(x, jnp.ones((3, 3, 3, 4)))
