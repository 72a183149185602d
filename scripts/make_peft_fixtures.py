"""Writes tests/weights/fixtures/peft.npz: what PEFT and torch make of LoRA and DoRA. Needs torch, transformers, peft and timm.

    python scripts/make_peft_fixtures.py

A tiny ViT of transformers and a tiny ConvNeXt of timm's, with adapters whose matrices are all drawn: the files PEFT saves,
the logits, the gradients of a loss by every matrix, and the weights that PEFT merges.
"""

import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

OUT = Path(__file__).parents[1] / "tests" / "weights" / "fixtures" / "peft.npz"
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32}


def vit() -> torch.nn.Module:
    return ViTForImageClassification(ViTConfig(**VIT, patch_size=8, num_labels=5, layer_norm_eps=1e-12))


def convnext() -> torch.nn.Module:
    return timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 8, 8, 16), num_classes=5)


CASES = {
    "lora": (vit, {"target_modules": ["q_proj", "v_proj"], "r": 3, "lora_alpha": 6}),
    "dora": (vit, {"target_modules": ["q_proj", "v_proj", "fc1"], "r": 3, "lora_alpha": 6, "use_dora": True}),
    "rslora": (
        vit,
        {"target_modules": ["k_proj", "fc2"], "r": 4, "lora_alpha": 6, "rank_pattern": {"fc2": 2}, "use_rslora": True},
    ),
    "conv": (convnext, {"target_modules": ["downsample.1", "stem.0", "fc2"], "r": 2, "lora_alpha": 5}),
    "conv_dora": (convnext, {"target_modules": ["stages.2.downsample.1"], "r": 2, "lora_alpha": 5, "use_dora": True}),
}


def case(name: str) -> dict[str, np.ndarray]:
    torch.manual_seed(1)
    make, options = CASES[name]
    network = make().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim < 2 else torch.nn.init.kaiming_normal_(parameter)
    base = {key: value.clone() for key, value in network.state_dict().items()}
    found = {}
    head = "classifier" if make is vit else "head.fc"
    adapted = get_peft_model(network, LoraConfig(**options, modules_to_save=[head], lora_dropout=0.0)).eval()
    for key, parameter in adapted.named_parameters():
        if "lora_" in key and "magnitude" not in key:
            torch.nn.init.normal_(parameter, std=0.2)
        if "magnitude" in key:
            parameter.data *= 1 + 0.1 * torch.rand_like(parameter)
    image = torch.randn(2, 3, 32, 32)
    logits = adapted(image)
    logits = logits if isinstance(logits, torch.Tensor) else logits.logits
    (logits * torch.arange(5.0)).sum().backward()
    with tempfile.TemporaryDirectory() as folder:
        adapted.save_pretrained(folder)
        found["file"] = np.frombuffer((Path(folder) / "adapter_model.safetensors").read_bytes(), np.uint8)
        found["config"] = np.frombuffer((Path(folder) / "adapter_config.json").read_bytes(), np.uint8)
    for key, parameter in adapted.named_parameters():
        if parameter.grad is not None and "original" not in key:
            found[f"grad/{key.replace('.default', '').replace('modules_to_save.', '')}"] = parameter.grad
    found |= {"image": image.permute(0, 2, 3, 1), "logits": logits}
    merged = adapted.merge_and_unload()
    kernels = {key: value for key, value in merged.state_dict().items() if not torch.equal(value, base[key])}
    found |= {f"merged/{key}": value for key, value in kernels.items()}
    shared = {f"{make.__name__}/{key}": _array(value) for key, value in base.items()}
    return shared | {f"{name}/{key}": _array(value) for key, value in found.items()}


def _array(value: torch.Tensor | np.ndarray) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


if __name__ == "__main__":
    found = {}
    for name in CASES:
        found |= case(name)
    np.savez_compressed(OUT, **found)
    print(OUT, OUT.stat().st_size)
