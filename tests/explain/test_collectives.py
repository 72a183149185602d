import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxft.explain.collectives import Collective, collectives
from jaxft.parallel import data_mesh

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
    mesh, spec = data_mesh(), PartitionSpec("data")

    def local(x):
        total = jax.lax.fori_loop(0, 5, lambda _, value: jnp.sin(jax.lax.psum(value, "data")), x.sum(0))
        return jax.lax.all_gather(x, "data", tiled=True).sum(0) + total

    function = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=False)
    text = jax.jit(function).lower(jax.ShapeDtypeStruct((16, 12), jnp.float32)).compile().as_text()
    assert collectives(text) == (Collective("all-reduce", 5, 5 * 12 * 4), Collective("all-gather", 1, 16 * 12 * 4))


def test_a_program_for_one_device_has_none():
    assert collectives(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == ()
