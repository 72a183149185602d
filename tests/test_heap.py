import os
import subprocess
import sys
import types

import pytest

from jaxft import heap
from jaxft.errors import JaxftError
from jaxft.heap import keep_heap

FAULTS = """
import resource
from jaxft.heap import keep_heap
kept = keep_heap()
assert kept == keep_heap()
import jax, jax.numpy as jnp
double = jax.jit(lambda x: 2 * x)
x = jnp.ones((48, 1 << 20))  # 192 MB: far above what glibc keeps by itself
for _ in range(3):
    double(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    double(x).block_until_ready()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


def faults(setting):
    environment = {**os.environ, "JAXFT_HEAP": setting, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kept, count = map(int, done.stdout.split())
    return kept, count


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_a_kept_heap_gets_no_new_pages_in_a_warm_step():
    kept, few = faults("on")
    nothing, many = faults("off")
    assert nothing == 0
    assert kept > 1 << 28
    assert many > 1000
    assert few < many / 20


def test_another_setting_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("JAXFT_HEAP", "yes")
    with pytest.raises(JaxftError, match="JAXFT_HEAP is 'yes', not 'on' or 'off'"):
        keep_heap()


@pytest.mark.parametrize(
    ("plugins", "files", "only_cpu"),
    [
        (set(), (), True),
        ({"libtpu"}, (), True),
        ({"libtpu"}, ("vfio/vfio",), True),
        ({"libtpu"}, ("accel0",), False),
        ({"libtpu"}, ("vfio/0",), False),
        ({"xla_cuda12"}, (), True),
        ({"xla_cuda12", "libtpu"}, ("nvidia0", "nvidiactl"), False),
        ({"libtpu"}, ("nvidia0",), True),
        ({"xla_rocm7"}, ("kfd",), False),
        ({"something_new"}, (), False),
    ],
)
def test_a_compiler_for_other_hardware_does_not_make_this_computer_have_it(monkeypatch, tmp_path, plugins, files, only_cpu):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(heap, "_plugins", lambda: plugins)
    monkeypatch.setattr(heap, "jax", types.SimpleNamespace(config=types.SimpleNamespace(jax_platforms=None)))
    assert heap._only_cpu(tmp_path) is only_cpu


def test_plugins_are_found_by_their_modules(monkeypatch, tmp_path):
    (tmp_path / "jax_plugins" / "xla_cuda12").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "xla_cuda12" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jax_plugins", raising=False)
    assert "xla_cuda12" in heap._plugins()
