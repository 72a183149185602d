"""Eight simulated CPU devices for every test; what is not sharded runs on the first."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Test files are imported by path; what they share is imported by name from here.
_TESTS = Path(__file__).parent
sys.path[:0] = [str(_TESTS), str(_TESTS / "models")]

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
