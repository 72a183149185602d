import getpass
import json
import platform
import time

import jax
import pytest

from jaxft.bench import machine, matmul_peak, peak
from jaxft.bench.machine import device_peak, peak_rss, published_peak


def test_facts_name_versions_and_devices_but_no_host_and_no_person():
    facts = machine()
    assert facts["jax"] == jax.__version__
    assert facts["device_count"] == 8
    assert 1 <= facts["usable_cores"] <= facts["cores"]
    assert facts["cpu"]
    text = json.dumps(facts).lower().replace(facts["cpu"].lower(), "")
    for private in (platform.node(), getpass.getuser(), "/"):
        assert private.lower() not in text.split('"')
        assert private != "/" or "/" not in text


@pytest.mark.parametrize(
    ("kind", "dtype", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100-SXM4-80GB", "float32", 156),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("TPU v5 lite", "bfloat16", 197),
        ("Tesla T4", "float32", 8.1),
    ],
)
def test_published_peaks_are_found_by_the_device_kind(kind, dtype, teraflops):
    assert published_peak(kind, dtype) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(("kind", "dtype"), [("Tesla T4", "bfloat16"), ("NVIDIA B999", "float32"), ("cpu", "float32")])
def test_a_device_without_a_published_peak_has_none(kind, dtype):
    assert published_peak(kind, dtype) is None


def test_the_peak_is_measured_once_and_simulated_devices_share_it():
    rate = matmul_peak("float32", (256,), 0.05)
    assert 1e8 < rate < 1e15
    start = time.perf_counter()
    assert matmul_peak("float32", (256,), 0.05) == rate
    assert time.perf_counter() - start < 0.01
    one, four = peak("float32", 1), peak("float32", 4)
    assert one.origin == "measured matmul"
    assert one == four


def test_resident_memory_is_in_bytes():
    assert 50e6 < peak_rss() < 1e12
    assert device_peak() is None  # the CPU's backend keeps no such count
