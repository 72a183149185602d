import jax
import jax.numpy as jnp
import pytest

from jaxft.errors import JaxftError
from jaxft.parallel import Limit, Memory, checked, device_limit, fits, gigabytes, memory_of
from jaxft.parallel import memory as module


def write(root, **files):
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("DOT", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MEMINFO = {"proc__meminfo": "MemTotal:       4000 kB\nMemAvailable:   2000 kB\n"}


def test_the_computers_free_memory_is_shared_by_its_devices(tmp_path):
    limit = device_limit(write(tmp_path, **MEMINFO))
    assert limit == Limit(2000 * 1024 // jax.local_device_count(), certain=False)


def test_a_containers_limit_counts_where_it_is_smaller(tmp_path):
    devices = jax.local_device_count()
    root = write(tmp_path, **MEMINFO, sys__fs__cgroup__memoryDOTmax="900000\n", sys__fs__cgroup__memoryDOTcurrent="100000\n")
    assert device_limit(root) == Limit(800000 // devices, certain=False)
    write(root, sys__fs__cgroup__memoryDOTmax="max\n")
    assert device_limit(root) == Limit(2000 * 1024 // devices, certain=False)
    write(
        root,
        sys__fs__cgroup__memory__memoryDOTlimit_in_bytes="500000",
        sys__fs__cgroup__memory__memoryDOTusage_in_bytes="0",
    )
    assert device_limit(root) == Limit(500000 // devices, certain=False)


def test_donated_memory_counts_once():
    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    memory = memory_of(jax.jit(lambda x, y: x + y, donate_argnums=0).lower(shape, shape).compile())
    assert (memory.arguments, memory.outputs, memory.aliased) == (8_000_000, 4_000_000, 4_000_000)
    assert memory.peak == 8_000_000 + memory.temporaries


def test_a_step_fits_within_nine_tenths():
    memory = Memory(arguments=50, outputs=30, aliased=20, temporaries=30)
    assert memory.peak == 90
    assert fits(memory, Limit(100, True))
    assert not fits(memory, Limit(99, True))


def test_a_step_that_an_accelerator_cannot_hold_is_refused_before_it_runs(monkeypatch):
    monkeypatch.setattr(module, "device_limit", lambda: Limit(7_000_000, certain=True))
    x = jnp.ones((1000, 1000))
    step = checked(jax.jit(lambda x: x * 2, donate_argnums=0), print, where="phase2")
    step(x)  # 4 MB
    y = jnp.ones((1000, 1000))
    step = checked(jax.jit(lambda x: x * 2), print, where="phase2")
    with pytest.raises(JaxftError, match="phase2: a step needs 8.00 MB of the 7.00 MB.*explain-step"):
        step(y)
    assert y.sum() == 1e6


def test_where_the_limit_is_not_certain_the_user_is_told_and_the_step_runs(monkeypatch):
    # Besides the 4 MB of the argument, which is there already, 3 MB are free: the result needs 4.
    monkeypatch.setattr(module, "device_limit", lambda: Limit(3_000_000, certain=False))
    said = []
    step = checked(jax.jit(lambda x: x * 2), said.append, where="phase1")
    assert step(jnp.ones((1000, 1000))).sum() == 2e6
    assert step(jnp.ones((1000, 1000))).sum() == 2e6
    assert len(said) == 1
    assert said[0].startswith("phase1: a step needs 8.00 MB of the 7.00 MB each device has")
    monkeypatch.setattr(module, "device_limit", lambda: Limit(30_000_000, certain=False))
    checked(jax.jit(lambda x: x * 2), said.append, where="phase1")(jnp.ones((1000, 1000)))
    assert len(said) == 1


def test_the_executable_that_is_looked_at_is_the_one_that_runs():
    compiled = []
    listen = lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    step = checked(jax.jit(lambda state, batch: (state + batch.sum(), batch.max()), donate_argnums=0), print, where="x")
    state, batch = jnp.float32(0), jnp.ones((4, 4))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(3):
            state, _ = step(state, batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 1
    assert state == 48


def test_sizes_are_written_in_fitting_units():
    assert [gigabytes(size) for size in (1.5e9, 2.34e7, 81968)] == ["1.50 GB", "23 MB", "0.08 MB"]
