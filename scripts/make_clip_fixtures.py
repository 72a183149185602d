"""Writes tests/probe/fixtures: what tiny networks for images and texts of Hugging Face's transformers say of images and texts.

Weights and images are those of `jaxft.verify.seeded`, a function of their names and shapes; kept are the shapes of what sees,
the embeddings of the texts before they are normalised, the scale and bias, and the logits.

Needs torch and transformers, in an environment of their own:
    python scripts/make_clip_fixtures.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "jaxft" / "verify")]  # the module alone: it needs NumPy, the package JAX
from seeded import images, state_dict  # noqa: E402

OUT = ROOT / "tests" / "probe" / "fixtures"
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60}
TEXTS = 5


def networks():
    clip = transformers.CLIPConfig(
        text_config={**TEXT, "bos_token_id": 0, "eos_token_id": 59, "pad_token_id": 1},
        vision_config={**VISION, "hidden_act": "quick_gelu"},
        projection_dim=24,
    )
    # SigLIP has no projections: texts are as wide as images.
    siglip = transformers.SiglipConfig(
        text_config={**TEXT, "hidden_size": 32, "projection_size": 32},
        vision_config={**VISION, "hidden_act": "gelu_pytorch_tanh"},
    )
    return {"clip": transformers.CLIPModel(clip), "siglip": transformers.SiglipModel(siglip)}


def record(network):
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    weights = {
        name: torch.from_numpy(np.array(value)) for name, value in state_dict(1, shapes).items() if "position_ids" not in name
    }
    weights["logit_scale"] = torch.tensor(3.3).reshape(shapes["logit_scale"])
    if "logit_bias" in shapes:
        weights["logit_bias"] = torch.tensor(-7.5).reshape(shapes["logit_bias"])
    network.load_state_dict(weights, strict=False)
    network.eval()
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(2, 59, (TEXTS, 9)))
    tokens[:, -1] = 59  # where CLIP reads what a text means
    pixels = torch.from_numpy(np.ascontiguousarray(images(1, 6, 32).transpose(0, 3, 1, 2)))
    with torch.no_grad():
        found = network(input_ids=tokens, pixel_values=pixels)
        embedded = network.get_text_features(input_ids=tokens)
    embedded = getattr(embedded, "pooler_output", embedded)
    seen = {name: shape for name, shape in shapes.items() if name.startswith(("vision_model.", "visual_projection"))}
    return {
        "shapes": json.dumps(seen),
        "texts": embedded.numpy(),
        "logit_scale": network.logit_scale.item(),
        "logit_bias": float(getattr(network, "logit_bias", 0.0)),
        "image_embeds": found.image_embeds.numpy(),
        "logits": found.logits_per_image.numpy(),
    }


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, network in networks().items():
        np.savez_compressed(OUT / f"{name}.npz", **record(network))
        print(OUT / f"{name}.npz", (OUT / f"{name}.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
