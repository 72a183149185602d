import os

import jax
import pytest

from jaxft.bench import OutOfMemory, count_flops, make_work
from jaxft.bench.work import _memory
from jaxft.errors import JaxftError

pytestmark = pytest.mark.usefixtures("quick_compiles")

TINY = {"batch": 4, "size": 32}


@pytest.fixture(scope="module")
def head():
    return make_work("resnet18", "head", **TINY, devices=2)


def test_a_call_is_timed_and_calls_carry_their_state_on(head):
    assert 0 < head.run(1) < 60
    assert head.run(3) > 0
    assert (head.images, head.batch, head.size, head.devices, head.part) == (4, 4, 32, 2, "head")
    assert head.compile_seconds > 0
    assert head.compile_from in ("scratch", "cache")
    assert head.memory > 4 * 11_000_000  # ResNet-18's parameters, whole on each device


def test_vgg16_forward_costs_what_is_published():
    """15.47 GMAC (Simonyan & Zisserman's network D), less the products with padding zeros: 3.2 %."""
    flops = count_flops("vgg16", "eval", batch=1, num_classes=1000)
    assert 0.96 < flops / (2 * 15.47e9) < 0.98


def test_head_only_costs_a_forward_pass_and_the_head():
    forward = count_flops("resnet18", "eval", **TINY)
    head = count_flops("resnet18", "head", **TINY)
    assert forward < head < 1.02 * forward


def test_parts_cost_more_the_more_is_trained():
    costs = [count_flops("resnet18", part, batch=32, size=32) for part in ("head", "from:stage4", "train")]
    assert costs == sorted(costs)
    assert 2.5 < costs[2] / costs[0] < 3.1  # forward, gradients of inputs and of weights; no gradient of the image


def test_flops_are_of_the_mathematics_not_of_the_lowering(monkeypatch):
    monkeypatch.setenv("JAXFT_OPS", "cpu")
    forced = count_flops("efficientnet_lite0", "eval", **TINY)
    assert os.environ["JAXFT_OPS"] == "cpu"
    monkeypatch.delenv("JAXFT_OPS")
    assert count_flops("efficientnet_lite0", "eval", **TINY) == forced
    assert "JAXFT_OPS" not in os.environ


def test_flops_count_the_batch():
    one, four = (count_flops("resnet18", "eval", batch=batch, size=32) for batch in (1, 4))
    assert four == pytest.approx(4 * one, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet19"}, "no network is called 'resnet19' .did you mean 'resnet18'"),
        ({"part": "from:stage9"}, "no stage is called 'stage9' .did you mean 'stage4'"),
        ({"part": "tail"}, "'tail' matches no parameter"),
        ({"batch": 3}, "batch is 3, not a multiple of the 2 devices"),
        ({"batch": 0}, "batch is 0"),
        ({"size": 0}, "size is 0"),
        ({"devices": 9}, "devices is 9; there are 8 of kind cpu"),
        ({"devices": 0}, "devices is 0"),
        ({"accum_steps": 3}, "accum_steps is 3: it must divide the batch, 4"),
        ({"part": "eval", "accum_steps": 2}, "an evaluation accumulates nothing"),
        ({"optimizer": "sgdd"}, "no optimizer is called 'sgdd'"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_what_does_not_fit_is_said(arguments, message):
    given = {"model": "resnet18", "part": "head", **TINY, "devices": 2, **arguments}
    with pytest.raises(JaxftError, match=message):
        make_work(given.pop("model"), given.pop("part"), **given)


def test_accumulation_and_bfloat16_run():
    work = make_work("resnet18", "head", **TINY, dtype="bfloat16", accum_steps=2, devices=1, optimizer="adamw")
    assert work.run(1) > 0
    # Neither casts nor microbatches are mathematics.
    assert work.flops == count_flops("resnet18", "head", **TINY, optimizer="adamw")
    assert jax.devices()[0].platform in work.name


def test_running_out_of_memory_is_told_from_other_failures():
    with pytest.raises(OutOfMemory, match="^out of memory: RESOURCE_EXHAUSTED: 12 GB$"), _memory():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 12 GB\n  more")
    with pytest.raises(jax.errors.JaxRuntimeError), _memory():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
