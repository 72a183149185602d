"""Eight simulated CPU devices for every test; what is not sharded runs on the first."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
