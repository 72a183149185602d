"""Which code generator of XLA compiles the programs of the tests on the CPU."""

import os

import jax

#: jax 0.10 still has XLA's older generator, which compiles sooner: the gradient of a ResNet-10-T in 0.9 s instead of 3.8
#: without most optimisations, 4.4 instead of 6.8 with all (two x86-64 cores, other work beside, 2026-11-26). `XLA_FLAGS=`
#: in the environment does without it.
_OLDER = "XLA_FLAGS" not in os.environ and jax.__version_info__[:2] == (0, 10)
#: `compiler_options` for the generator that users get, where networks in full size are compared with their originals, where our
#: own forms of the convolution are compared with float64, and where two programs are held against each other to the last bits:
#: the older one rounds a sum by what it is fused with.
USERS_GENERATOR: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": True} if _OLDER else {}


def older_generator():
    """Variables for commands that need not compile as those of users do."""
    return {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"} if _OLDER else {}


def choose_generator():
    """For this process; commands that it starts compile as those of users do."""
    if _OLDER:
        os.environ.update(older_generator())
        jax.devices()  # reads them
        del os.environ["XLA_FLAGS"]
