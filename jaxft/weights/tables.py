"""The name tables: for each family of networks and each convention of names, where every tensor goes."""

from __future__ import annotations

import re
from collections.abc import Callable

from jaxft.errors import JaxftError, near
from jaxft.models import architecture_of, efficientnet, vgg
from jaxft.weights.rules import CONV, DENSE, Rule, flatten_chw


def _norm(src: str, dst: str) -> list[Rule]:
    return [
        Rule(f"{src}.weight", f"params/{dst}/scale"),
        Rule(f"{src}.bias", f"params/{dst}/bias"),
        Rule(f"{src}.running_mean", f"batch_stats/{dst}/mean"),
        Rule(f"{src}.running_var", f"batch_stats/{dst}/var"),
        Rule(f"{src}.num_batches_tracked", None),
    ]


def _conv(src: str, dst: str, *, bias: bool = False) -> list[Rule]:
    rules = [Rule(f"{src}.weight", f"params/{dst}/kernel", CONV)]
    return [*rules, Rule(f"{src}.bias", f"params/{dst}/bias")] if bias else rules


def _head(src: str, dst: str) -> list[Rule]:
    """One dense layer, or the two of `head="mlp"`, which other libraries would call `hidden` and `out`."""
    rules = []
    for suffix in ("", "hidden", "out"):
        name, path = (f"{src}.{suffix}", f"{dst}/{suffix}") if suffix else (src, dst)
        rules += [Rule(f"{name}.weight", f"params/{path}/kernel", DENSE), Rule(f"{name}.bias", f"params/{path}/bias")]
    return rules


def _vgg(name: str, prefix: str, dense: list[Rule]) -> tuple[Rule, ...]:
    depth = int(re.findall(r"\d+", name)[0])
    batch_norm = name.endswith("_bn")
    rules: list[Rule] = []
    for block in vgg.convolutions(depth, batch_norm):
        for index, _ in block:
            rules += _conv(f"{prefix}{index}", f"features/{index}", bias=True)
            if batch_norm:
                rules += _norm(f"{prefix}{index + 1}", f"features/{index + 1}")
    return (*rules, *dense)


def _vgg_torchvision(name: str) -> tuple[Rule, ...]:
    dense = [
        Rule("classifier.0.weight", "params/classifier/0/kernel", flatten_chw(512, 7, 7)),
        Rule("classifier.0.bias", "params/classifier/0/bias"),
        Rule("classifier.3.weight", "params/classifier/3/kernel", DENSE),
        Rule("classifier.3.bias", "params/classifier/3/bias"),
    ]
    return _vgg(name, "features.", [*dense, *_head("classifier.6", "classifier/6")])


def _resnet(name: str) -> tuple[Rule, ...]:
    """torchvision's names, which timm shares."""
    rules = _conv("conv1", "conv1") + _norm("bn1", "bn1")
    for convolution in ("conv1", "conv2", "conv3"):
        rules += _conv(f"layer{{s}}.{{b}}.{convolution}", f"layer{{s}}/{{b}}/{convolution}")
        norm = convolution.replace("conv", "bn")
        rules += _norm(f"layer{{s}}.{{b}}.{norm}", f"layer{{s}}/{{b}}/{norm}")
    rules += _conv("layer{s}.{b}.downsample.0", "layer{s}/{b}/downsample/0")
    rules += _norm("layer{s}.{b}.downsample.1", "layer{s}/{b}/downsample/1")
    return (*rules, *_head("fc", "fc"))


def _lite_timm(name: str) -> tuple[Rule, ...]:
    rules = _conv("conv_stem", "conv_stem") + _norm("bn1", "bn1")
    for convolution in ("conv_pw", "conv_dw", "conv_pwl"):
        rules += _conv(f"blocks.{{s}}.{{b}}.{convolution}", f"blocks/{{s}}/{{b}}/{convolution}")
    for norm in ("bn1", "bn2", "bn3"):
        rules += _norm(f"blocks.{{s}}.{{b}}.{norm}", f"blocks/{{s}}/{{b}}/{norm}")
    rules += _conv("conv_head", "conv_head") + _norm("bn2", "bn2")
    return (*rules, *_head("classifier", "classifier"))


def _lite_lukemelas(name: str) -> tuple[Rule, ...]:
    """The names of the PyPI files: blocks are numbered through, and normalisations from 0, expansion or not."""
    rules = _conv("_conv_stem", "conv_stem") + _norm("_bn0", "bn1")
    number = 0
    for stage, (blocks, _, _, expansion, _) in enumerate(efficientnet.scaled_stages(int(name[-1]))):
        for block in range(blocks):
            src, dst = f"_blocks.{number}", f"blocks/{stage}/{block}"
            if expansion > 1:
                layers = [
                    ("_expand_conv", "_bn0", "conv_pw"),
                    ("_depthwise_conv", "_bn1", "conv_dw"),
                    ("_project_conv", "_bn2", "conv_pwl"),
                ]
            else:
                layers = [("_depthwise_conv", "_bn1", "conv_dw"), ("_project_conv", "_bn2", "conv_pw")]
            for order, (convolution, norm, own) in enumerate(layers, start=1):
                rules += _conv(f"{src}.{convolution}", f"{dst}/{own}") + _norm(f"{src}.{norm}", f"{dst}/bn{order}")
            number += 1
    rules += _conv("_conv_head", "conv_head") + _norm("_bn1", "bn2")
    return (*rules, *_head("_fc", "classifier"))


_TABLES: dict[str, dict[str, Callable[[str], tuple[Rule, ...]]]] = {
    "vgg": {"torchvision": _vgg_torchvision},
    "resnet": {"torchvision": _resnet, "timm": _resnet},
    "efficientnet_lite": {"timm": _lite_timm, "lukemelas": _lite_lukemelas},
}


def conventions(name: str) -> tuple[str, ...]:
    """The conventions a network's weights can be read from and written in."""
    return tuple(_TABLES[architecture_of(name).family])


def rules(name: str, convention: str) -> tuple[Rule, ...]:
    """The table of a network and a convention.

    Raises:
      JaxftError: no such network or convention.
    """
    tables = _TABLES[architecture_of(name).family]
    if convention not in tables:
        raise JaxftError(f"{name} has no names of '{convention}'{near(convention, tables)}; it has {', '.join(tables)}")
    return tables[convention](name)
