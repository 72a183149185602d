import pytest
from explain.traced import judged, masked_afterwards, with_input_gradient

FAMILIES = ("vgg11_bn", "resnet18", "efficientnet_lite0")
NORMS = {
    "vgg11_bn": ",".join(f"features/{index}" for index in (1, 5, 9, 12, 16, 19, 23, 26)),
    "resnet18": "**/bn*,**/downsample/1",
    "efficientnet_lite0": "**/bn*",
}

#: The convolutions that read what the frozen stages before stage 4 give.
FIRST = {
    "vgg11_bn": ["features/15"],
    "resnet18": ["layer4/0/conv1", "layer4/0/downsample/0"],
    "efficientnet_lite0": ["blocks/3/0/conv_pw"],
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("train", "frozen_norms"), [("head", False), ("from:stage4", False), ("full", True), ("full", False)])
def test_the_training_step_does_exactly_the_backward_work_that_its_trained_leaves_ask_for(name, train, frozen_norms):
    verdict, _, _ = judged(name, train, NORMS[name] if frozen_norms else "")
    assert verdict.clean, verdict
    assert verdict.found == verdict.needed > 0
    assert verdict.recomputed == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_heads_step_costs_the_forward_pass_and_the_head(name):
    verdict, traced, _ = judged(name, "head")
    assert verdict.found == 2 * 8 * 10 * {"vgg11_bn": 4096, "resnet18": 512, "efficientnet_lite0": 1280}[name]
    step, forward = (program.lower().cost_analysis()["flops"] for program in traced)
    assert step == pytest.approx(forward + verdict.needed, rel=0.02)
    full, _, _ = judged(name, "full")
    assert full.forward + full.found > 2.5 * (verdict.forward + verdict.found)


def test_accumulated_gradients_are_judged_inside_their_loop():
    verdict, _, _ = judged("resnet18", "from:stage3", accum_steps=4)
    whole, _, _ = judged("resnet18", "from:stage3")
    assert verdict.clean
    assert (verdict.forward, verdict.found) == (whole.forward, whole.found)


def test_a_step_that_computes_in_bfloat16_is_judged_alike():
    half, _, _ = judged("resnet18", "from:stage3", dtype="bfloat16")
    whole, _, _ = judged("resnet18", "from:stage3")
    assert half == whole


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_everything_masked_afterwards_are_caught(name):
    verdict, _, mask = judged(name, "from:stage4", bad=masked_afterwards)
    assert not verdict.clean
    assert verdict.found > 1.2 * verdict.needed
    blamed = {work.module: work.what for work in verdict.wasted if work.flops}
    kernels = {path.removesuffix("/kernel") for path, trained in mask.items() if path.endswith("kernel") and not trained}
    assert kernels < blamed.keys()
    # The first trained layers hand a gradient on to frozen ones.
    assert blamed.keys() - kernels == set(FIRST[name])
    assert {blamed[module] for module in FIRST[name]} == {"an input gradient that only frozen layers take"}


def test_the_gradient_of_a_frozen_kernel_after_a_trained_layer_is_told_from_its_input_gradient():
    good, _, _ = judged("resnet18", "stage1,head")
    assert good.clean
    assert {"layer2/0/conv1", "layer4/1/conv2", "layer3/0/downsample/0"} <= {work.module for work in good.through}
    bad, _, _ = judged("resnet18", "stage1,head", bad=masked_afterwards)
    waste = {work.module: work for work in bad.wasted}
    assert waste["layer4/1/conv2"].what == "a gradient for a frozen kernel"
    assert waste["layer4/1/conv2"].flops == next(work.flops for work in good.through if work.module == "layer4/1/conv2")
    assert waste["conv1"].what == "a backward pass through what no gradient has to reach"
    assert waste["layer1/0/conv1"].what == "an input gradient that only frozen layers take"
    assert "layer1/0/conv2" not in waste


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_frozen_scales_and_biases_are_caught_though_they_are_no_products(name):
    verdict, _, _ = judged(name, "full", NORMS[name], bad=masked_afterwards)
    assert verdict.found == verdict.needed
    assert not verdict.clean
    assert {work.what for work in verdict.wasted} == {"a gradient for a frozen scale or bias"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_backward_pass_through_a_frozen_prefix_is_caught(name):
    verdict, _, _ = judged(name, "head", bad=with_input_gradient)
    assert not verdict.clean
    first = {"vgg11_bn": "features/0", "resnet18": "conv1", "efficientnet_lite0": "conv_stem"}[name]
    assert first in {work.module for work in verdict.wasted}
    assert verdict.found >= verdict.forward * 0.9


@pytest.mark.usefixtures("quick_compiles")
def test_the_compiled_program_in_the_cpus_lowering_is_judged_by_the_names_in_it():
    good, _, _ = judged("vgg11", "head", compiled=True)
    assert good.clean
    assert good.compiled == ()
    bad, _, _ = judged("vgg11", "head", bad=with_input_gradient, compiled=True)
    assert any("transpose(jvp(VGG))/features/3/" in name for name in bad.compiled)
