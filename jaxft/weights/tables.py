"""The name tables: for each family of networks and each convention of names, where every tensor goes."""

from __future__ import annotations

import re
from collections.abc import Callable

from jaxft.errors import JaxftError, near
from jaxft.models import architecture_of, efficientnet, vgg
from jaxft.weights.rules import CONV, DENSE, IDENTITY, Rule, flatten_chw


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


def _vit_blocks(prefix: str, layers: dict[str, str]) -> list[Rule]:
    """`layers`: a part of a block -> what stands before its `weight` and `bias` in the foreign names."""
    rules = []
    for own, name in layers.items():
        leaf, op = ("scale", IDENTITY) if own.startswith("norm") else ("kernel", DENSE)
        rules.append(Rule(f"{prefix}.{name}weight", f"params/blocks/{{b}}/{own}/{leaf}", op))
        rules.append(Rule(f"{prefix}.{name}bias", f"params/blocks/{{b}}/{own}/bias"))
    return rules


def _vit_timm(name: str) -> tuple[Rule, ...]:
    rules = [Rule("cls_token", "params/cls_token"), Rule("pos_embed", "params/pos_embed")]
    rules += _conv("patch_embed.proj", "patch_embed/proj", bias=True)
    parts = ("norm1", "attn/qkv", "attn/proj", "norm2", "mlp/fc1", "mlp/fc2")
    rules += _vit_blocks("blocks.{b}", {part: part.replace("/", ".") + "." for part in parts})
    rules += [Rule("norm.weight", "params/norm/scale"), Rule("norm.bias", "params/norm/bias")]
    return (*rules, *_head("head", "head"))


def _vit_torchvision(name: str) -> tuple[Rule, ...]:
    """torchvision's names, and the former ones of two layers, which its files have."""
    rules = [Rule("class_token", "params/cls_token"), Rule("encoder.pos_embedding", "params/pos_embed")]
    rules += _conv("conv_proj", "patch_embed/proj", bias=True)
    layers = {
        "norm1": "ln_1.",
        "attn/qkv": "self_attention.in_proj_",
        "attn/proj": "self_attention.out_proj.",
        "norm2": "ln_2.",
    }
    prefix = "encoder.layers.encoder_layer_{b}"
    rules += _vit_blocks(prefix, {**layers, "mlp/fc1": "mlp.0.", "mlp/fc2": "mlp.3."})
    rules += _vit_blocks(prefix, {"mlp/fc1": "mlp.linear_1.", "mlp/fc2": "mlp.linear_2."})
    rules += [Rule("encoder.ln.weight", "params/norm/scale"), Rule("encoder.ln.bias", "params/norm/bias")]
    return (*rules, *_head("heads.head", "head"))


_TABLES: dict[str, dict[str, Callable[[str], tuple[Rule, ...]]]] = {
    "vgg": {"torchvision": _vgg_torchvision},
    "resnet": {"torchvision": _resnet, "timm": _resnet},
    "vit": {"timm": _vit_timm, "torchvision": _vit_torchvision},
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
