import jax
import jax.numpy as jnp
import pytest

from jaxft.explain.collectives import Exchange
from jaxft.explain.roofline import bytes_sent, homes, roofline
from jaxft.explain.traffic import main_memory_bytes
from jaxft.parallel import make_mesh
from jaxft.parallel.targets import FIGURES

ONE, TWO = (0,) * 8, (0,) * 4 + (1,) * 4
ALL = (tuple(range(8)),)


@pytest.mark.parametrize(
    ("kind", "nbytes", "within", "between"),
    [
        # Eight devices of one home; then two homes of four.
        ("all-reduce", 800, (1400, 0), (1200, 200)),
        ("all-gather", 800, (700, 0), (600, 100)),
        ("reduce-scatter", 100, (700, 0), (600, 100)),
        ("all-to-all", 800, (700, 0), (300, 400)),
    ],
)
def test_bytes_sent_are_those_of_the_algorithms_that_send_the_least(kind, nbytes, within, between):
    assert bytes_sent([Exchange(kind, nbytes, 1, ALL)], ONE) == within
    assert bytes_sent([Exchange(kind, nbytes, 1, ())], ONE) == within
    assert bytes_sent([Exchange(kind, nbytes, 3, ALL)], TWO) == tuple(3 * size for size in between)


def test_the_group_that_sends_most_counts_and_neighbours_do_not_cross():
    pairs = Exchange("collective-permute", 10, 1, ((0, 1), (3, 4)))
    assert bytes_sent([pairs], ONE) == (10, 0)
    assert bytes_sent([pairs], TWO) == (10, 10)
    across = Exchange("all-reduce", 100, 1, ((0, 4), (1, 5)))
    assert bytes_sent([across], TWO) == (0, 100)
    assert bytes_sent([Exchange("all-reduce", 100, 1, ((0,), (1,)))], TWO) == (0, 0)


def test_slices_send_what_the_program_hands_to_their_network():
    found = [Exchange("send", 100, 2, (), "ALL_REDUCE"), Exchange("recv", 100, 2, (), "ALL_REDUCE")]
    assert bytes_sent(found, ONE, slices=2) == (0, 200)
    assert bytes_sent(found, ONE, slices=4) == (0, 300)
    assert bytes_sent([Exchange("send", 100, 1, (), "ALL_GATHER")], ONE, slices=4) == (0, 100)


def test_devices_here_share_a_home():
    assert homes(make_mesh()) == (0,) * 8


def estimate(generation, dtype="float32", **more):
    given = {"flops": 0, "nbytes": 0, "link_bytes": 0, "network_bytes": 0, **more}
    return roofline(FIGURES[generation], dtype=dtype, batch_size=64, **given)


def test_a_step_takes_at_least_what_takes_longest():
    line = estimate("v5e", flops=197e12, nbytes=819e9 / 2, link_bytes=200e9 / 4)
    assert (line.compute, line.memory, line.links, line.network) == (1, 0.5, 0.25, 0)
    assert (line.seconds, line.bound, line.images_per_second) == (1, "compute", 64)
    assert estimate("h100", flops=989.4e12).compute == 2 * estimate("h100", "bfloat16", flops=989.4e12).compute == 2
    slow = estimate("h100", nbytes=1, network_bytes=50e9)
    assert (slow.seconds, slow.bound) == (1, "network")
    unknown = estimate("v4", nbytes=1200e9, network_bytes=1)
    assert (unknown.network, unknown.seconds, unknown.bound) == (None, 1, "memory")


FUSED = """HloModule m

%slices (p: f32[64,8], i: s32[]) -> f32[1,8] {
  %p = f32[64,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  %v = f32[64,8]{1,0} bitcast(%p)
  %d = f32[1,8]{1,0} dynamic-slice(%v, %i, %z), dynamic_slice_sizes={1,8}
  ROOT %n = f32[1,8]{1,0} negate(%d)
}

%updates (p.1: f32[64,8], u: f32[1,8], i.1: s32[]) -> f32[64,8] {
  %p.1 = f32[64,8]{1,0} parameter(0)
  %u = f32[1,8]{1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  %s = f32[1,8]{1,0} sine(%u)
  ROOT %w = f32[64,8]{1,0} dynamic-update-slice(%p.1, %s, %i.1, %i.1)
}

ENTRY %main (a: f32[64,8], b: s32[]) -> f32[64,8] {
  %a = f32[64,8]{1,0} parameter(0)
  %b = s32[] parameter(1)
  %f = f32[1,8]{1,0} fusion(%a, %b), kind=kLoop, calls=%slices
  %g = f32[64,8]{1,0} fusion(%a, %f, %b), kind=kLoop, calls=%updates
  %c = (f32[64,8]{1,0:S(1)}, f32[64,8]{1,0}, u32[]) copy-start(%g)
  %c.1 = f32[64,8]{1,0:S(1)} copy-done(%c)
  %k = f32[64,8]{1,0:S(1)} sine(%c.1)
  %l = ((f32[64,8]{1,0}), f32[2,8]{1,0:S(1)}, s32[]) slice-start(%g), slice={[0:2], [0:8]}
  %l.1 = f32[2,8]{1,0:S(1)} slice-done(%l)
  %h = (f32[64,8]{1,0}, u8[4096]{0}) custom-call(%g), custom_call_target="__cudnn$convForward"
  ROOT %o = f32[64,8]{1,0} get-tuple-element(%h), index=0
}
"""


def test_slices_updates_copies_and_what_stays_on_the_chip_count_what_they_move():
    index, row, whole = 4, 32, 2048
    fused = (row + index + row) + (row + index + row)  # a slice, negated; an update in place
    copies = whole + 2 * row  # on to the chip
    assert main_memory_bytes(FUSED) == fused + copies + 2 * whole  # and a convolution, without its work space


def test_a_compiled_program_moves_its_operands_and_results_as_often_as_its_loop():
    def step(x, y):
        return jax.lax.fori_loop(0, 5, lambda _, value: jnp.dot(value, y), x)

    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    once, size = main_memory_bytes(jax.jit(jnp.dot).lower(shape, shape).compile().as_text()), 64 * 64 * 4
    assert once == 3 * size
    assert 5 * once <= main_memory_bytes(jax.jit(step).lower(shape, shape).compile().as_text()) < 10 * once  # with copies
