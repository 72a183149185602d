import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxft.explain.collectives import Collective, Exchange, collectives, exchanges
from jaxft.parallel import make_mesh

ASYNCHRONOUS = """HloModule m

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %s = f32[] add(%x, %y)
}

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %ar = (f32[8]{0}, /*index=1*/bf16[4,2]{1,0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
}

%cond.1 (p: (s32[], f32[8])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main.9_spmd (p0: f32[8], p1: f32[16]) -> f32[16] {
  %w = (s32[], f32[8]{0}) while(%t), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"3"}}
  %ags = (f32[2,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%p0), dimensions={0}
  %agd = f32[16,4]{1,0} all-gather-done(%ags)
  %ars = f32[5]{0} all-reduce-start(%p1), to_apply=%add
  %cps = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%p1), source_target_pairs={{0,1}}
  %rs = s8[6]{0} reduce-scatter(%p1), dimensions={0}, to_apply=%add
  ROOT %x = pred[7]{0} all-to-all(%p1), dimensions={0}
}
"""


def test_started_combined_and_looped_collectives_count_their_results():
    assert collectives(ASYNCHRONOUS) == (
        Collective("all-reduce", 4, 3 * (8 * 4 + 8 * 2) + 5 * 4),
        Collective("all-gather", 1, 16 * 4 * 4),
        Collective("reduce-scatter", 1, 6),
        Collective("all-to-all", 1, 7),
        Collective("collective-permute", 1, 4 * 4),
    )


def test_collectives_of_a_compiled_program_are_counted_with_the_trips_of_their_loop():
    mesh, spec = make_mesh(), PartitionSpec("data")

    def local(x):
        total = jax.lax.fori_loop(0, 5, lambda _, value: jnp.sin(jax.lax.psum(value, "data")), x.sum(0))
        return jax.lax.all_gather(x, "data", tiled=True).sum(0) + total

    function = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=False)
    text = jax.jit(function).lower(jax.ShapeDtypeStruct((16, 12), jnp.float32)).compile().as_text()
    assert collectives(text) == (Collective("all-reduce", 5, 5 * 12 * 4), Collective("all-gather", 1, 16 * 12 * 4))


def test_a_started_all_reduce_of_jax_0_12_shows_its_operands_too():
    line = "%s = ((f32[5]{0}, f32[2]{0}), (f32[5]{0}, f32[2]{0})) all-reduce-start(%a, %b), replica_groups={}, to_apply=%add"
    one = "%t = ((f32[5]{0}), f32[5]{0}) all-reduce-start(%a), replica_groups={}, to_apply=%add"
    text = f"HloModule m\n\nENTRY %main (p: f32[5]) -> f32[5] {{\n  {line}\n  {one}\n}}\n"
    assert collectives(text) == (Collective("all-reduce", 2, 28 + 20),)


def test_a_program_for_one_device_has_none():
    assert collectives(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == ()


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("{{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("{}", ()),
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("[4,2]<=[2,4]T(1,0)", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=2,'b'=4] {'b'}", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("mesh['a'=2,'b'=4] {'a'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'c'}", ((0, 2), (1, 3))),
        ("mesh['a'=4], device_ids=(3,1,2,0) {'a'}", ((3, 1, 2, 0),)),
        ("mesh['a'=8] {'a':(1)2}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("mesh['a'=8] {'a':(4)2}", ((0, 1), (2, 3), (4, 5), (6, 7))),
    ],
)
def test_all_ways_to_write_who_talks_to_whom_are_read(written, groups):
    line = (
        f"  %r = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={written}, use_global_device_ids=true, to_apply=%add"
    )
    text = f"HloModule m\n\nENTRY %main (p: f32[8]) -> f32[8] {{\n{line}\n}}\n"
    assert exchanges(text) == (Exchange("all-reduce", 32, 1, groups),)


#: As libtpu 0.0.42 writes a gather beside a convolution: where it starts, where it goes on, where it ends.
CHAINED = """HloModule m

%start (p: bf16[16]) -> (bf16[16], bf16[128]) {
  %g = bf16[128]{0} all-gather(%p), channel_id=3, replica_groups={{0,1}}, frontend_attributes={chain_id="7"}
  ROOT %c = (bf16[16], bf16[128]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[16]) -> bf16[128] {
  %g.1 = bf16[128]{0:S(1)} all-gather(%p), channel_id=3, replica_groups={{0,1}}, frontend_attributes={chain_id="7"}
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[32] {
  %r = f32[64]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %d = f32[32]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={32}
}

ENTRY %main (p: bf16[16]) -> bf16[128] {
  %f = (bf16[16], bf16[128]) fusion(%p), kind=kCustom, calls=%start
  %f.1 = bf16[128] fusion(%p), kind=kCustom, calls=%async_collective_fusion.1
  %f.2 = f32[32] fusion(%q), kind=kCustom, calls=%all-reduce-scatter.1
  %s = (f32[8,16], u32[]{:S(2)}) send(%b, %t), channel_id=2, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %v = (f32[8,16], u32[]{:S(2)}) recv(%t), channel_id=1, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %s.1 = (f32[999], u32[]) send(%b, %t), channel_id=9, frontend_attributes={_xla_host_transfer_handler_name="callback"}
  %e = token[] send-done(%s), channel_id=2, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
}
"""


def test_what_the_tpu_compiler_takes_apart_is_put_together_and_slices_tell_each_other_by_sends():
    assert collectives(CHAINED) == (
        Collective("all-gather", 1, 256),
        Collective("reduce-scatter", 1, 128),
        Collective("send", 1, 512),
        Collective("recv", 1, 512),
    )
