import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from jaxft.bench.machine import published_peak
from jaxft.errors import JaxftError
from jaxft.parallel import targets as module
from jaxft.parallel.targets import FIGURES, Target, TooLarge, environment, parse_target, prepare, too_large


@pytest.mark.parametrize(
    ("text", "target", "devices", "hosts"),
    [
        ("v5e:1x1", Target("v5e:1x1", "tpu", "v5e", (1, 1)), 1, 1),
        ("v5e:4x4", Target("v5e:4x4", "tpu", "v5e", (4, 4)), 16, 4),
        (" V6E:16x16 ", Target("v6e:16x16", "tpu", "v6e", (16, 16)), 256, 64),
        ("v4:2x2x1", Target("v4:2x2x1", "tpu", "v4", (2, 2, 1)), 4, 1),
        ("v5p:4x4x12", Target("v5p:4x4x12", "tpu", "v5p", (4, 4, 12)), 192, 48),
        ("2xv5e:2x4", Target("2xv5e:2x4", "tpu", "v5e", (2, 4), 2), 16, 4),
        ("2*v5e:2x4", Target("2xv5e:2x4", "tpu", "v5e", (2, 4), 2), 16, 4),
        ("1xv5e:2x4", Target("v5e:2x4", "tpu", "v5e", (2, 4)), 8, 2),
        ("h100:8", Target("h100:8", "gpu", "h100", (1, 8)), 8, 1),
        ("h100:1x8", Target("h100:8", "gpu", "h100", (1, 8)), 8, 1),
        ("a100:2x8", Target("a100:2x8", "gpu", "a100", (2, 8)), 16, 2),
    ],
)
def test_a_target_is_read(text, target, devices, hosts):
    found = parse_target(text)
    assert found == target
    assert (found.devices, found.hosts) == (devices, hosts)
    assert parse_target(found.name) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write v5e:4x4"),
        ("v5e", "write v5e:4x4"),
        ("v5e-16", "write v5e:4x4"),
        ("v5e:4x", "write v5e:4x4"),
        ("h200:8", "did you mean 'h100'"),
        ("v7:2x2", "known are v4, v5e, v5p, v6e, a100, h100"),
        ("v5e:2x2x1", "two dimensions, such as v5e:16x16; '2x2x1' has three"),
        ("v5p:4x4", "three dimensions, such as v5p:2x4x4; '4x4' has two"),
        ("v5e:4x2", "did you mean '2x4'?"),
        ("v5e:4x16", "did you mean '8x16' or '16x16' or '4x8'?"),
        ("v6e:3x3", "it has 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        ("v4:2x2x3", "it has 2x2x1, 2x2x2, 2x2x4, 2x4x4, and a x b x c in ascending multiples of 4, of at most 4,096 chips"),
        ("v4:16x16x20", "no slice of '16x16x20'"),
        ("0xv5e:4x4", "at least one slice"),
        ("2xh100:8", "2 hosts are h100:2x8"),
        ("h100:2x2x8", "such as h100:2x8"),
        ("h100:32", "32 of them are h100:4x8"),
        ("h100:12", "hosts of 1 to 8 h100"),
        ("h100:0", "hosts of 1 to 8 h100"),
    ],
)
def test_what_is_no_target_is_told_how_to_be_one(text, said):
    with pytest.raises(JaxftError) as raised:
        parse_target(text)
    assert said in str(raised.value)
    assert f"the target is '{text}'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_figures_agree_with_those_of_the_bench():
    for figures in FIGURES.values():
        assert published_peak(figures.device_kind, "float32") == figures.float32
        assert published_peak(figures.device_kind, "bfloat16") == figures.bfloat16
        assert figures.usable <= figures.memory


def test_all_targets_of_a_kind_have_one_environment():
    assert environment(parse_target("v4:2x2x1")) == environment(parse_target("2xv5e:4x4"))
    assert environment(parse_target("h100:8")) == {"JAX_PLATFORMS": "cpu"}
    assert environment(parse_target("v4:2x2x1"))["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize(("text", "extra"), [("v5e:4x4", "compile-tpu"), ("h100:8", "compile-cuda")])
def test_a_missing_compiler_is_named(monkeypatch, text, extra):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    before = dict(os.environ)
    with pytest.raises(JaxftError, match=rf"pip install 'jaxft\[{extra}\]'"):
        prepare(parse_target(text))
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (29.00G) exceeds "
            "available HBM (15.75G).",
            TooLarge(29 << 30, int(15.75 * 2**30)),
        ),
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (1.5T) exceeds available HBM (512.00M). HLO module: jit_step.\nSee https://openxla.org/xla/errors/error_1000",
            TooLarge(3 << 39, 1 << 29),
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 30.50G of 15.75G "
            "hbm. Exceeded hbm capacity by 14.75G.",
            TooLarge(61 << 29, int(15.75 * 2**30)),
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem.", None),
        ("INVALID_ARGUMENT: no such thing", None),
    ],
)
def test_a_refusal_is_read(text, found):
    assert too_large(RuntimeError(text)) == found


STEP = """
import json, sys
from jaxft.parallel import targets
target = targets.parse_target(sys.argv[1])
targets.prepare(target)
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
devices = targets.target_devices(target)
mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

def loss(kernel, images):
    found = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (jax.nn.relu(found) ** 2).mean()

def compiled(each, size):
    step = jax.jit(lambda kernel, images: kernel - jax.grad(loss)(kernel, images), donate_argnums=0)
    return step.lower(
        jax.ShapeDtypeStruct((3, 3, 3, 8), jnp.float32, sharding=whole),
        jax.ShapeDtypeStruct((each * len(devices), size, size, 3), jnp.float32, sharding=split),
    ).compile()

step = compiled(2, 16)
result = {
    "devices": len(devices),
    "hosts": len({device.process_index for device in devices}),
    "slices": len({getattr(device, "slice_index", None) for device in devices}),
    "kinds": sorted({device.device_kind for device in devices}),
    "reduced": "all-reduce" in step.as_text() or "reduce-scatter" in step.as_text() or "send" in step.as_text(),
    "arguments": step.memory_analysis().argument_size_in_bytes,
    "one": float(jnp.ones(())),
}
try:
    compiled(4096, 1024)
    result["refused"] = None
except jax.errors.JaxRuntimeError as error:
    refusal = targets.too_large(error)
    result["refused"] = [refusal.needed, refusal.usable]
print(json.dumps(result))
"""


COMPILED = {
    "libtpu": ("v4:2x2x1", "v5e:1x1", "2xv5e:2x4", "v5p:2x2x2", "v6e:4x4"),
    "jax_plugins": ("h100:2x8", "a100:8"),
}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, marks=pytest.mark.skipif(not importlib.util.find_spec(needed), reason=f"takes {needed}"))
        for needed, texts in COMPILED.items()
        for text in texts
    ],
)
def test_a_step_compiles_for_what_is_not_here(text):
    target = parse_target(text)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_PLATFORMS", "TPU_"))}
    run = subprocess.run([sys.executable, "-c", STEP, text], capture_output=True, text=True, timeout=300, check=False, env=bare)
    assert run.returncode == 0, run.stderr
    assert not re.search("Traceback|TPU_", run.stderr)
    found = json.loads(run.stdout)
    assert (found["devices"], found["hosts"]) == (target.devices, target.hosts)
    assert found["slices"] == target.slices
    assert found["kinds"] == [target.figures.device_kind]
    assert found["reduced"] == (target.devices > 1)
    assert found["arguments"] > 0
    assert found["one"] == 1.0  # JAX itself still computes, on the CPU
    if target.kind == "gpu":
        assert found["refused"] is None  # XLA for NVIDIA leaves it to whoever runs it
    else:
        needed, usable = found["refused"]
        assert needed > usable == pytest.approx(target.figures.usable, rel=1e-3)


@pytest.mark.skipif(not importlib.util.find_spec("jax_plugins"), reason="takes jax_plugins")
def test_a_plugin_that_gave_up_is_told_how_to_stay():
    late = "import jax; jax.devices(); from jaxft.parallel import targets\n"
    late += "target = targets.parse_target('h100:8'); targets.prepare(target)\n"
    late += "try: print(len(targets.target_devices(target)))\nexcept targets.JaxftError as error: print(error)"
    for platforms, said in (({}, r"8|set JAX_PLATFORMS=cpu"), ({"JAX_PLATFORMS": "cpu"}, r"^8$")):
        bare = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"} | platforms
        run = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, timeout=300, check=True, env=bare)
        assert re.search(said, run.stdout)
