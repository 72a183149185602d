"""What the scripts that need torch share."""

import torch
import torchvision


def check() -> None:
    """Says which versions make the fixtures."""
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
