"""Checkpoints: newest and best are kept, restoring is strict, averages are what predictions use."""

import errno
import types

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxft import checkpoint, tree
from jaxft.checkpoint import Checkpoints
from jaxft.errors import JaxftError, SaveError
from jaxft.parallel import data_mesh, replicate, replicated
from jaxft.train import create_state
from jaxft.tuning import FreezeSpec, make_mask

PARAMS, STATE = nets.init()
META = {"run": {"model": "nets"}, "standing": {"best_step": 3}}


def make_state(step, train="head", ema=True, seed=0):
    mask = make_mask(FreezeSpec.parse(train), PARAMS, nets.STAGES)
    state = create_state(nets.init(seed)[0], STATE, optax.adamw(1e-3), mask, rng=jax.random.key(step), ema=ema)
    return state.replace(step=jnp.int32(step))


def abstract(state, mesh=None):
    sharding = replicated(mesh or data_mesh(jax.devices()[:1]))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture
def saved(tmp_path):
    """Steps 1 to 6 were saved; 3 is the best."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in range(1, 7):
        checkpoints.save(make_state(step, seed=step), META, best_step=3 if step >= 3 else step)
    checkpoints.finish(best_step=3)
    yield checkpoints
    checkpoints.close()


def test_the_newest_and_the_best_are_kept_and_nothing_else(saved):
    assert saved.steps() == [3, 6]
    assert saved.newest() == 6


def test_the_old_best_stays_until_a_better_one_is_complete(saved, monkeypatch):
    # Else a kill during the save would leave step 6, which calls step 3 the best, without it.
    monkeypatch.setattr(saved._manager, "save", lambda *args, **options: None)  # a save that never ends
    saved.save(make_state(7), META, best_step=7)
    assert saved.steps() == [3, 6]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_save_is_of_the_moment_it_was_asked_for_and_compiles_nothing(tmp_path, devices):
    mesh = data_mesh(jax.devices()[:devices])
    expected = jax.tree.map(np.asarray, make_state(5))
    state = replicate(jax.tree.map(np.copy, expected), mesh)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    compiled = []

    def listen(event, _, **labels):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(labels)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        checkpoints.save(state, META, best_step=None)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled
    # The next step takes the memory of the state that is still being written.
    jax.block_until_ready(jax.jit(lambda old: jax.tree.map(lambda leaf: leaf + 1, old), donate_argnums=0)(state))
    checkpoints.finish(best_step=None)
    assert_same(checkpoints.restore(5, abstract(expected, mesh)), expected)
    checkpoints.close()


def test_without_a_best_only_the_newest_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in range(1, 5):
        checkpoints.save(make_state(step), META, best_step=None)
        assert len(checkpoints.steps()) <= 2
    checkpoints.finish(best_step=None)
    assert checkpoints.steps() == [4]
    checkpoints.close()


def test_the_better_one_takes_its_place(saved):
    saved.save(make_state(7), META, best_step=7)
    saved.save(make_state(8), META, best_step=7)
    saved.finish(best_step=7)
    assert saved.steps() == [7, 8]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_state_comes_back_bit_for_bit_on_any_number_of_devices(saved, devices):
    state = make_state(6, seed=6)
    mesh = data_mesh(jax.devices()[:devices])
    found = saved.restore(6, abstract(state, mesh))
    assert_same(found, state)
    assert len(found.params["head"]["kernel"].sharding.device_set) == devices
    assert saved.meta(6) == META


def test_a_state_of_eight_devices_comes_back_on_one(tmp_path):
    state = make_state(2)
    with_eight = Checkpoints(tmp_path / "checkpoints")
    with_eight.save(replicate(state, data_mesh()), META, best_step=None)
    with_eight.close()
    again = Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert_same(again.restore(2, abstract(state)), state)
    again.close()


def test_weights_for_prediction_are_the_averages_where_there_are_some(tmp_path):
    state = make_state(1)
    state = state.replace(ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, META, best_step=1)
    checkpoints.close()
    for read_only in (True, False):  # another process knows only what is on the disk
        reader = Checkpoints(tmp_path / "checkpoints", read_only=read_only)
        params, model_state = reader.restore_weights(1, abstract(state).params, abstract(state).model_state)
        reader.close()
        np.testing.assert_array_equal(params["head"]["bias"], state.params["head"]["bias"] + 1)
        np.testing.assert_array_equal(params["stem"]["conv"]["kernel"], state.params["stem"]["conv"]["kernel"])
        assert_same(model_state, state.model_state)


def test_another_network_is_said_with_the_difference(saved):
    state = abstract(make_state(6))
    wider = tree.flatten(state.params)
    wider["head/bias"] = jax.ShapeDtypeStruct((7,), jnp.float32, sharding=wider["head/bias"].sharding)
    del wider["stem/conv/bias"]
    with pytest.raises(
        JaxftError, match=r"is of another network: .*head/bias is float32\[4\], not float32\[7\].*stem/conv/bias"
    ):
        saved.restore(6, state.replace(params=tree.unflatten(wider)))


def test_another_optimizer_state_is_refused(saved):
    with pytest.raises(JaxftError, match="checkpoint 6 in .* cannot be read"):
        saved.restore(6, abstract(make_state(6, train="full")))


def test_a_damaged_checkpoint_is_said_with_the_one_that_is_left(saved, tmp_path):
    for file in (tmp_path / "checkpoints" / "6" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(JaxftError, match=r"checkpoint 6 .* cannot be read .*; step 3 is kept too: remove .*6 to go on from it"):
        saved.restore(6, abstract(make_state(6)))
    assert_same(saved.restore(3, abstract(make_state(3))), make_state(3, seed=3))


def test_a_disk_without_room_is_said_before_it_is_filled(saved, monkeypatch, tmp_path):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SaveError, match=r"is full \(needs 0 MB, has 0 MB\): checkpoint 7 was not saved; free space"):
        saved.save(make_state(7), META, best_step=3)
    assert saved.steps() == [3, 6]


def test_what_a_failed_save_leaves_is_removed(saved, monkeypatch, tmp_path):
    leftover = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"

    def fail(*args, **options):
        leftover.mkdir()
        (leftover / "half").write_bytes(b"0" * 100)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(saved._manager, "save", fail)
    with pytest.raises(SaveError, match="checkpoint 7 was not saved in .*: .*Input/output error"):
        saved.save(make_state(7), META, best_step=3)
    assert not leftover.exists()
    assert saved.steps() == [3, 6]
