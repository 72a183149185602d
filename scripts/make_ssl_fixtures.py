"""Writes self_supervised.npz and mae.npz into tests' fixtures: contrastive losses, and a masked autoencoder.

Needs torch, transformers, lightly and pytorch-metric-learning: `python scripts/make_ssl_fixtures.py`. In float64: projections
drawn at random, and what the libraries say of them: NT-Xent of lightly, NT-Xent and SupCon (L_out) of pytorch-metric-learning,
with the gradient of the projections; SwAV's Sinkhorn-Knopp of lightly, and DINO's pseudo-code on it. Of the masked autoencoder
the weights of a small ViTMAEForPreTraining, images, noise, the mask, pixels, the loss and a gradient.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightly.loss import NTXentLoss as LightlyNTXent
from lightly.loss.swav_loss import sinkhorn
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from transformers import ViTMAEConfig, ViTMAEForPreTraining

TESTS = Path(__file__).parent.parent / "tests"


def gradient(loss: torch.Tensor, of: torch.Tensor) -> np.ndarray:
    (found,) = torch.autograd.grad(loss, of, retain_graph=True)
    return found.numpy()


def contrastive() -> dict[str, np.ndarray]:
    """12 rows, view by view: six examples of two views, four classes of unequal size; the last class has one example."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 5, generator=generator, dtype=torch.float64).requires_grad_()
    index = torch.arange(6).repeat(2)
    label = torch.tensor([0, 0, 1, 1, 2, 3]).repeat(2)
    found = {"rows": rows.detach().numpy(), "index": index.numpy(), "label": label.numpy()}
    for temperature in (0.1, 0.5):
        lightly = LightlyNTXent(temperature=temperature)(rows[:6], rows[6:])
        pml = NTXentLoss(temperature=temperature)(rows, index)
        np.testing.assert_allclose(lightly.detach(), pml.detach(), rtol=1e-6)
        found[f"ntxent/{temperature}"] = pml.detach().numpy()
        found[f"ntxent/{temperature}/lightly"] = lightly.detach().numpy()
        found[f"ntxent/{temperature}/gradient"] = gradient(pml, rows)
        supcon = SupConLoss(temperature=temperature)(rows, label)
        found[f"supcon/{temperature}"] = supcon.detach().numpy()
        found[f"supcon/{temperature}/gradient"] = gradient(supcon, rows)
    return found


def prototypes() -> dict[str, np.ndarray]:
    """8 rows of 6 prototypes: Sinkhorn-Knopp alone, and the loss of two views, each told by the other."""
    generator = torch.Generator().manual_seed(1)
    teacher, student = (2 * torch.rand(8, 6, generator=generator, dtype=torch.float64) - 1 for _ in range(2))
    student.requires_grad_()
    temperatures = {"teacher": 0.07, "student": 0.1}
    shares = sinkhorn(teacher, iterations=3, epsilon=temperatures["teacher"])
    # The other view's share, as in DINO's pseudo-code: H(t1, s2) / 2 + H(t2, s1) / 2. Sinkhorn-Knopp is over both views at
    # once, as in DINOv2.
    told = torch.roll(shares, 4, dims=0)
    loss = -(told * torch.log_softmax(student / temperatures["student"], dim=1)).sum(1).mean()
    return {
        "teacher": teacher.numpy(),
        "student": student.detach().numpy(),
        "sinkhorn": shares.numpy(),
        "dino": loss.detach().numpy(),
        "dino/gradient": gradient(loss, student),
    }


def masked() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=8,
        decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=1, decoder_intermediate_size=128,
        mask_ratio=0.6, norm_pix_loss=True, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = ViTMAEForPreTraining(config).eval()
    model.decoder.initialize_weights(16)  # the positions, which transformers 5 leaves at 0 where no weights are loaded
    with torch.no_grad():
        for name, value in model.named_parameters():  # what begins as 0 or 1 would hide a mistake
            if "position_embeddings" not in name and (value.ndim == 1 or "token" in name):
                value += 0.1 * torch.randn_like(value)
            if name == "vit.embeddings.position_embeddings":
                value.copy_(0.1 * torch.randn_like(value))
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    outputs = model(pixel_values=images, noise=noise)
    found = {f"weights/{name}": value.detach().numpy() for name, value in model.state_dict().items()}
    first = model.decoder.decoder_embed.weight
    return {
        **found,
        "images": images.numpy(),
        "noise": noise.numpy(),
        "mask": outputs.mask.numpy(),
        "logits": outputs.logits.detach().numpy(),
        "loss": outputs.loss.detach().numpy(),
        "gradient": gradient(outputs.loss, first),
    }


def main() -> None:
    np.savez_compressed(TESTS / "losses" / "fixtures" / "self_supervised.npz", **contrastive(), **prototypes())
    np.savez_compressed(TESTS / "models" / "fixtures" / "mae.npz", **masked())


if __name__ == "__main__":
    main()
