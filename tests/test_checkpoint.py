"""Checkpoints: newest and best are kept, damage is named before anything is read, a failed save loses nothing."""

import errno
import shutil
import subprocess
import types

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxft import checkpoint, tree
from jaxft.checkpoint import Checkpoints
from jaxft.errors import JaxftError, SaveError
from jaxft.parallel import make_mesh, put, replicate, replicated
from jaxft.train import create_state
from jaxft.tuning import FreezeSpec, make_mask
from jaxft.workdir import load_run

PARAMS, STATE = nets.init()
META = {"run": {"model": "nets"}, "standing": {"best_step": 3}}


def make_state(step, train="head", ema=True, seed=0):
    mask = make_mask(FreezeSpec.parse(train), PARAMS, nets.STAGES)
    state = create_state(nets.init(seed)[0], STATE, optax.adamw(1e-3), mask, rng=jax.random.key(step), ema=ema)
    return state.replace(step=jnp.int32(step))


def abstract(state, mesh=None):
    sharding = replicated(mesh or make_mesh(devices=jax.devices()[:1]))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def save_six(folder):
    checkpoints = Checkpoints(folder)
    for step in range(1, 7):
        checkpoints.save(make_state(step, seed=step), META, best_step=3 if step >= 3 else step)
    assert checkpoints.wait()
    return checkpoints


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    folder = tmp_path_factory.mktemp("six") / "checkpoints"
    save_six(folder).close()
    return folder


@pytest.fixture
def saved(six, tmp_path):
    """Steps 1 to 6 were saved; 3 is the best."""
    shutil.copytree(six, tmp_path / "checkpoints")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    yield checkpoints
    checkpoints.close()


@pytest.fixture
def failures(saved):
    """The saves that failed, as they were told."""
    told = []
    saved.failed = lambda step, error: told.append((step, error))
    return told


def test_the_newest_and_the_best_are_kept_and_nothing_else(saved, tmp_path):
    after_saving = save_six(tmp_path / "again")
    for checkpoints in (after_saving, saved):
        assert checkpoints.steps() == [3, 6]
        assert checkpoints.newest() == checkpoints.newest_whole() == 6
    after_saving.close()
    for folder in ("again", "checkpoints"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["3", "6"]


def test_the_old_best_stays_until_a_better_one_is_complete(saved, monkeypatch):
    # Else a kill during the save would leave step 6, which calls step 3 the best, without it.
    monkeypatch.setattr(saved._manager, "save", lambda *args, **options: None)  # a save that never ends
    saved.save(make_state(7), META, best_step=7)
    assert saved.steps() == [3, 6]


def test_pruning_leaves_the_newest_and_the_best_that_is_given(saved):
    saved.prune(best_step=3)
    assert saved.steps() == [3, 6]
    saved.prune(best_step=6)
    assert saved.steps() == [6]
    saved.prune(best_step=None)
    assert saved.steps() == [6]


def test_waiting_without_a_save_ends_well_and_removes_nothing(saved, tmp_path):
    assert saved.wait()
    assert saved.steps() == [3, 6]
    fresh = Checkpoints(tmp_path / "fresh")
    assert fresh.wait()
    assert (fresh.steps(), fresh.newest(), fresh.newest_whole()) == ([], None, None)
    fresh.close()


def test_a_step_that_is_saved_already_is_not_saved_again(saved, tmp_path):
    # A run that goes on from step 6 and is stopped before its next one.
    manifest = tmp_path / "checkpoints" / "6" / "MANIFEST"
    before = manifest.read_bytes(), manifest.stat().st_mtime_ns
    saved.save(make_state(6, seed=9), META, best_step=None)
    assert saved.wait()
    assert (manifest.read_bytes(), manifest.stat().st_mtime_ns) == before
    assert_same(saved.restore(6, abstract(make_state(6))), make_state(6, seed=6))
    assert saved.steps() == [3, 6]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_save_is_of_the_moment_it_was_asked_for_and_compiles_nothing(tmp_path, devices):
    mesh = make_mesh(devices=jax.devices()[:devices])
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
    assert checkpoints.wait()
    assert_same(checkpoints.restore(5, abstract(expected, mesh)), expected)
    checkpoints.close()


def test_without_a_best_only_the_newest_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in range(1, 5):
        checkpoints.save(make_state(step), META, best_step=None)
        assert len(checkpoints.steps()) <= 2
    assert checkpoints.wait()
    assert checkpoints.steps() == [4]
    checkpoints.close()


def test_the_better_one_takes_its_place(saved):
    saved.save(make_state(7), META, best_step=7)
    saved.save(make_state(8), META, best_step=7)
    assert saved.wait()
    assert saved.steps() == [7, 8]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_state_comes_back_bit_for_bit_on_any_number_of_devices(saved, devices):
    state = make_state(6, seed=6)
    mesh = make_mesh(devices=jax.devices()[:devices])
    found = saved.restore(6, abstract(state, mesh))
    assert_same(found, state)
    assert len(found.params["head"]["kernel"].sharding.device_set) == devices
    assert saved.meta(6) == META


def test_a_state_of_eight_devices_comes_back_on_one(tmp_path):
    state = make_state(2)
    with_eight = Checkpoints(tmp_path / "checkpoints")
    with_eight.save(replicate(state, make_mesh()), META, best_step=None)
    assert with_eight.wait()
    with_eight.close()
    again = Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert_same(again.restore(2, abstract(state)), state)
    again.close()


@pytest.mark.parametrize(("layout", "other"), [("1x8x1", "8x1x1"), ("2x2x2", "1x4x2"), ("1x8x1", "1x2x1")])
def test_a_split_state_comes_back_split_otherwise(tmp_path, layout, other):
    def placed(layout):
        sizes = [int(size) for size in layout.split("x")]
        mesh = make_mesh(layout, jax.devices()[: int(np.prod(sizes))])

        def place(leaf):
            # By length, not by the rules: the parameters of this network are too small for those to split them.
            axis = next((axis for axis in range(leaf.ndim) if leaf.shape[axis] % sizes[1] == 0), None)
            return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp") if axis is not None else PartitionSpec())

        return jax.tree.map(place, expected)

    expected = jax.tree.map(np.asarray, make_state(5, train="full"))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(put(expected, placed(layout)), META, best_step=None)
    assert checkpoints.wait()
    assert checkpoints.damage(5) == ""
    target = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), expected, placed(other)
    )
    found = checkpoints.restore(5, target)
    checkpoints.close()
    assert_same(found, expected)
    for leaf, place in zip(jax.tree.leaves(found), jax.tree.leaves(placed(other)), strict=True):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def test_weights_for_prediction_are_the_averages_where_there_are_some(tmp_path):
    state = make_state(1)
    state = state.replace(ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, META, best_step=1)
    assert checkpoints.wait()
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


def test_the_state_of_another_optimizer_or_of_other_trained_parts_is_refused_with_the_difference(saved):
    other = r"checkpoint 6 in .* is of another optimizer, or of other trained parts: .* missing \(0/mu/block1/"
    with pytest.raises(JaxftError, match=other):
        saved.restore(6, abstract(make_state(6, train="full")))


@pytest.mark.parametrize("part", ["params", "model_state", "opt_state", "ema"])
def test_a_leaf_of_another_dtype_is_refused_and_not_cast(saved, part):
    state = abstract(make_state(6))
    leaves, treedef = jax.tree.flatten(getattr(state, part))
    number = next(number for number, leaf in enumerate(leaves) if leaf.dtype == jnp.float32)
    leaves[number] = leaves[number].update(dtype=jnp.bfloat16)
    with pytest.raises(
        JaxftError, match=r"1 other shape or dtype \(.* is float32\[.*\], not bfloat16\[.*\]\); step 3 is kept too"
    ):
        saved.restore(6, state.replace(**{part: treedef.unflatten(leaves)}))


def test_a_checkpoint_that_cannot_be_read_is_said_with_the_one_that_is_left(saved, tmp_path):
    for file in (tmp_path / "checkpoints" / "6" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(JaxftError, match=r"checkpoint 6 .* cannot be read .*; step 3 is kept too: .*/checkpoints/3$"):
        saved.restore(6, abstract(make_state(6)))
    assert_same(saved.restore(3, abstract(make_state(3))), make_state(3, seed=3))


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_complete_checkpoint_has_a_list_that_sha256sum_accepts(saved, tmp_path):
    for step in (3, 6):
        folder = tmp_path / "checkpoints" / str(step)
        listed = {line.split("  ")[1] for line in (folder / "MANIFEST").read_text().splitlines()[:-1]}
        assert listed == {path.relative_to(folder).as_posix() for path in files_of(folder)} - {"MANIFEST"}
        assert {name.split("/")[0] for name in listed} >= {"clock", "params", "model_state", "opt_state", "ema", "meta"}
        assert saved.damage(step) == ""
        if shutil.which("sha256sum"):
            subprocess.run(["sha256sum", "-c", "--quiet", "--strict", "MANIFEST"], cwd=folder, check=True)


def test_a_checkpoint_appears_with_its_list_and_whole_also_if_the_program_ends_right_then(saved, tmp_path):
    # What comes onto the list at the end is not in it yet, when a kill comes between the two.
    folder = tmp_path / "checkpoints" / "6"
    (folder / "MANIFEST").unlink()
    shutil.move(folder / "_CHECKPOINT_METADATA", tmp_path / "later")
    checkpoint.write_manifest(folder)
    shutil.move(tmp_path / "later", folder / "_CHECKPOINT_METADATA")
    assert saved.damage(6) == ""
    assert saved.newest_whole() == 6


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "word"),
    [(flip, "is not what was written"), (cut, "is not what was written"), (lambda file: file.unlink(), "is missing")],
)
def test_damage_to_any_file_of_a_checkpoint_is_named_before_its_weights_are_read(saved, tmp_path, harm, word):
    folder, state = tmp_path / "checkpoints" / "6", abstract(make_state(6))
    shutil.copytree(folder, tmp_path / "whole")
    for file in files_of(folder):
        name = file.relative_to(folder).as_posix()
        if not file.stat().st_size:
            continue
        harm(file)
        if name != "MANIFEST":
            found = f"{name} {word}"
        else:
            found = "it has no MANIFEST: it was never completed" if word == "is missing" else "its MANIFEST is damaged ("
        assert saved.damage(6).startswith(found)
        with pytest.raises(JaxftError) as raised:
            saved.restore_weights(6, state.params, state.model_state)
        text = str(raised.value)
        assert text.startswith(f"checkpoint 6 in {tmp_path / 'checkpoints'} is damaged ({found}")
        assert text.endswith(f"); step 3 is kept too: {tmp_path / 'checkpoints' / '3'}")
        assert "\n" not in text
        shutil.copy2(tmp_path / "whole" / name, file)
    assert saved.damage(6) == ""
    assert_same(
        saved.restore_weights(6, state.params, state.model_state)[0]["head"], make_state(6, seed=6).ema["params"]["head"]
    )


def test_a_file_that_does_not_belong_to_a_checkpoint_is_named(saved, tmp_path):
    (tmp_path / "checkpoints" / "6" / "params" / "stray").write_bytes(b"")
    assert saved.damage(6) == "params/stray does not belong to it"


def test_a_damaged_checkpoint_is_moved_aside_and_said_and_the_one_before_is_the_newest(saved, tmp_path):
    folder, said = tmp_path / "checkpoints", []
    flip(folder / "6" / "meta" / "metadata")
    before = {path.relative_to(folder / "6"): path.read_bytes() for path in files_of(folder / "6")}
    assert saved.newest_whole(said.append) == 3
    aside = folder / "damaged-6"
    assert said == [f"checkpoint 6 is damaged (meta/metadata is not what was written); it was moved to {aside}"]
    assert {path.relative_to(aside): path.read_bytes() for path in files_of(aside)} == before
    saved.close()
    again = Checkpoints(folder)
    assert again.steps() == [3]
    assert again.newest_whole(said.append) == 3
    assert_same(again.restore(3, abstract(make_state(3))), make_state(3, seed=3))
    # The run makes that step again, and what is damaged then finds a place of its own.
    again.save(make_state(6, seed=6), META, best_step=3)
    assert again.wait()
    assert again.steps() == [3, 6]
    (folder / "6" / "MANIFEST").unlink()
    assert again.newest_whole(said.append) == 3
    again.close()
    assert said[1:] == [
        f"checkpoint 6 is damaged (it has no MANIFEST: it was never completed); it was moved to {folder / 'damaged-6-2'}"
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["3", "damaged-6", "damaged-6-2"]


def test_after_a_damaged_checkpoint_was_moved_the_same_step_can_be_saved_again(saved, tmp_path):
    flip(tmp_path / "checkpoints" / "6" / "meta" / "metadata")
    assert saved.newest_whole() == 3
    assert saved.steps() == [3]
    saved.save(make_state(6, seed=8), META, best_step=3)
    assert saved.wait()
    assert (saved.steps(), saved.damage(6)) == ([3, 6], "")
    assert_same(saved.restore(6, abstract(make_state(6))), make_state(6, seed=8))


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew_in_its_place(saved, tmp_path):
    said = []
    for step in (3, 6):
        cut(tmp_path / "checkpoints" / str(step) / "MANIFEST")
    with pytest.raises(JaxftError, match=r"no checkpoint in .*/checkpoints is whole: start anew in another --workdir"):
        saved.newest_whole(said.append)
    assert [line.split(" (")[0] for line in said] == ["checkpoint 6 is damaged", "checkpoint 3 is damaged"]


def test_a_damaged_older_checkpoint_stays_where_it_is(saved, tmp_path):
    flip(tmp_path / "checkpoints" / "3" / "meta" / "metadata")
    said = []
    assert saved.newest_whole(said.append) == 6
    assert said == []
    assert saved.steps() == [3, 6]
    assert saved.damage(3) == "meta/metadata is not what was written"


def test_a_disk_without_room_is_said_before_it_is_filled(saved, failures, monkeypatch, tmp_path):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(saved._manager, "save", lambda *args, **options: pytest.fail("it was begun"))
    saved.save(make_state(7), META, best_step=3)
    ((step, error),) = failures
    assert step == 7
    assert isinstance(error, SaveError)
    assert str(error) == (
        f"the disk of {tmp_path / 'checkpoints'} is full (needs 0 MB, has 0 MB): checkpoint 7 was not saved; make room"
    )
    assert not saved.wait()  # the last save did not end well, but it is told once
    assert len(failures) == 1
    assert saved.steps() == [3, 6]


def test_what_a_failed_save_leaves_is_removed(saved, failures, monkeypatch, tmp_path):
    leftover = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"

    def fail(*args, **options):
        leftover.mkdir()
        (leftover / "half").write_bytes(b"0" * 100)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(saved._manager, "save", fail)
        saved.save(make_state(7), META, best_step=3)
    ((step, error),) = failures
    assert step == 7
    assert isinstance(error, SaveError)
    assert str(error) == f"checkpoint 7 was not saved in {tmp_path / 'checkpoints'}: [Errno 5] Input/output error"
    assert not leftover.exists()
    assert saved.steps() == [3, 6]
    saved.save(make_state(8, seed=8), META, best_step=3)
    assert saved.wait()
    assert saved.steps() == [3, 8]
    assert len(failures) == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded")]
)
def test_a_save_that_fails_while_it_is_written_is_told_when_it_is_waited_for(saved, failures, monkeypatch, tmp_path, error):
    def failing():
        finish()
        shutil.rmtree(tmp_path / "checkpoints" / "7", ignore_errors=True)
        raise RuntimeError("a thread failed") from error

    finish = saved._manager.wait_until_finished
    saved.save(make_state(7), META, best_step=7)
    with monkeypatch.context() as patched:
        patched.setattr(saved._manager, "wait_until_finished", failing)
        assert not saved.wait()
    ((step, found),) = failures
    assert (step, str(found)) == (
        7,
        f"the disk of {tmp_path / 'checkpoints'} is full: checkpoint 7 was not saved; make room",
    )
    assert not saved.wait()
    assert len(failures) == 1
    assert saved.steps() == [3, 6], "what was the best before stays"
    saved.save(make_state(8, seed=8), META, best_step=3)
    assert saved.wait()
    assert saved.steps() == [3, 8]


def test_a_failure_is_told_by_the_next_save_at_the_latest_and_that_one_is_begun(saved, failures, monkeypatch, tmp_path):
    def failing():
        monkeypatch.undo()
        saved._manager.wait_until_finished()
        shutil.rmtree(tmp_path / "checkpoints" / "7", ignore_errors=True)
        raise OSError(errno.EIO, "Input/output error")

    saved.save(make_state(7), META, best_step=3)
    monkeypatch.setattr(saved._manager, "wait_until_finished", failing)
    saved.save(make_state(8, seed=8), META, best_step=3)
    assert [step for step, _ in failures] == [7]
    assert saved.wait()
    assert saved.steps() == [3, 8]
    assert_same(saved.restore(8, abstract(make_state(8))), make_state(8, seed=8))


def test_a_checkpoint_whose_list_cannot_be_written_is_a_failed_save(saved, failures, monkeypatch, tmp_path):
    def fail(folder, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_manifest", fail)
        saved.save(make_state(7), META, best_step=7)
        assert not saved.wait()
    ((step, error),) = failures
    assert step == 7
    assert "is full (No space left on device): checkpoint 7 was not saved; make room" in str(error)
    assert saved.steps() == [3, 6]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "6"]


def test_a_disk_that_fills_up_after_a_checkpoint_was_written_costs_no_checkpoint(saved, failures, monkeypatch, tmp_path):
    def fail_at_the_end(folder, **options):
        if not options:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_manifest(folder, **options)

    write_manifest = checkpoint.write_manifest
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_manifest", fail_at_the_end)
        saved.save(make_state(7), META, best_step=7)
        assert saved.wait()
    assert failures == []
    assert saved.steps() == [7]
    assert saved.damage(7) == ""
    assert_same(saved.restore(7, abstract(make_state(7))), make_state(7))


def test_the_record_of_a_damaged_newest_checkpoint_is_not_believed(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    newest = max(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdigit())
    (record,) = (
        path for path in (workdir / "checkpoints" / str(newest) / "meta").iterdir() if b"best_step" in path.read_bytes()
    )
    record.write_bytes(record.read_bytes().replace(b'"stale": 0', b'"stale": 7'))  # reads well, and says something else
    with pytest.raises(JaxftError, match=rf"checkpoint {newest} in .* is damaged \(meta/.* is not what was written\)"):
        load_run(workdir)


def test_an_older_checkpoint_that_cannot_be_removed_is_said_ends_nothing_and_goes_later(six, tmp_path, monkeypatch):
    shutil.copytree(six, tmp_path / "checkpoints")
    said = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", say=said.append)

    def refuse(step):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints._manager, "delete", refuse)
        checkpoints.save(make_state(7), META, best_step=3)
        assert checkpoints.wait()
    assert said == [f"WARNING: checkpoint 6 in {tmp_path / 'checkpoints'} cannot be removed (Read-only file system)"]
    assert checkpoints.steps() == [3, 6, 7]
    checkpoints.save(make_state(8), META, best_step=3)
    assert checkpoints.wait()
    assert checkpoints.steps() == [3, 8]
    assert len(said) == 1
    checkpoints.close()
