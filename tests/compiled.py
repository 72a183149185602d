"""Which code generator of XLA compiles the programs of the tests on the CPU."""

import os

import jax

#: XLA's older generator compiles a network in a third of the time. jax 0.10 still has it; `XLA_FLAGS= pytest` does without.
_OLDER = "XLA_FLAGS" not in os.environ and jax.__version_info__[:2] == (0, 10)
#: `compiler_options` for the generator that users get, where networks in full size are compared with their originals, and where
#: two programs are to be bit-equal: the older one rounds a sum by what it is fused with.
USERS_GENERATOR: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": True} if _OLDER else {}


def choose_generator():
    """For this process; commands that it starts compile as those of users do."""
    if _OLDER:
        os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
        jax.devices()  # reads them
        del os.environ["XLA_FLAGS"]
