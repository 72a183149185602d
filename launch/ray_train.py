"""`jaxft train` as a run of Ray Train's JaxTrainer: Ray starts the processes, and all of them again when one is lost.

python launch/ray_train.py --hosts=4 --gpus=8 --config=my_recipe.py --workdir=/shared/runs/photos
python launch/ray_train.py --hosts=4 --tpu=4x4 --accelerator=TPU-V5LITEPOD --config=my_recipe.py --workdir=/shared/runs/photos

Written against Ray 2.60.0: `pip install "ray[train]==2.60.0"` beside jaxft on all hosts; workdir and data lie where all hosts
see them. Ray itself calls `jax.distributed.initialize`; `jaxft.parallel.start`, which `train` calls, then only begins to watch.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.jax import JaxConfig, JaxTrainer

from jaxft.cli.config import read_config, split_overrides


def train_one(given: dict[str, Any]) -> None:
    """One process of the run. What raises here, or ends the process, is a failure for Ray: all processes start again."""
    from jaxft.run import train  # in the worker alone: Ray chooses its devices first

    result = train(given["config"], given["workdir"])
    if result.status != "finished":
        raise RuntimeError(f"stopped at step {result.step}, saved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=lambda text: Path(text).absolute())
    parser.add_argument("--hosts", type=int, default=1, help="processes; each has all devices of its host")
    parser.add_argument("--gpus", type=int, default=0, help="of each host")
    parser.add_argument("--tpu", help="topology of the slice; --hosts is then its number of hosts")
    parser.add_argument("--accelerator", help="type of the slice, as Ray names it")
    parser.add_argument("--restarts", type=int, default=10, help="how often all may start again")
    plain, overrides = split_overrides(sys.argv[1:])
    options = parser.parse_args(plain)
    if options.tpu:
        scaling = ScalingConfig(
            num_workers=options.hosts, use_tpu=True, topology=options.tpu, accelerator_type=options.accelerator
        )
    elif options.gpus:
        scaling = ScalingConfig(num_workers=options.hosts, use_gpu=True, resources_per_worker={"GPU": options.gpus})
    else:
        scaling = ScalingConfig(num_workers=options.hosts)
    # JaxTrainer joins the processes only for TPUs and GPUs; with JAX_PLATFORMS=cpu what it does for TPUs joins those of CPUs.
    backend = JaxConfig(use_tpu=not options.gpus, use_gpu=bool(options.gpus))
    JaxTrainer(
        train_one,
        train_loop_config={"config": read_config(options.config, overrides), "workdir": str(options.workdir)},
        jax_config=backend,
        scaling_config=scaling,
        run_config=RunConfig(
            name=options.workdir.name,
            storage_path=str(options.workdir.parent / "ray"),  # Ray's own notes; checkpoints are in the workdir
            failure_config=FailureConfig(max_failures=options.restarts),
        ),
    ).fit()


if __name__ == "__main__":
    main()
