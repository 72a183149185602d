#!/bin/bash
# jaxft under Slurm, on four nodes of eight GPUs; one process a node has all of its GPUs.
#
#   sbatch launch/slurm.sh --config=my_recipe.py --workdir=/shared/runs/photos
#   sbatch --nodes=2 --partition=short --time=04:00:00 launch/slurm.sh --config=...     # sbatch's options count before those here
#
# All arguments go to `jaxft train`. Written against Slurm 22.05: sbatch(1), srun(1), scontrol(1).
#SBATCH --job-name=jaxft
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:8
#SBATCH --exclusive
#SBATCH --time=1-00:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jaxft-%j.log
# --signal: two minutes before the time is up every process is told to save; it needs one step, and the time to write a checkpoint.
# --requeue: Slurm itself starts the job again after a node failure or a preemption; below it is asked to after a stop.

restarts=${JAXFT_RESTARTS:-100}

# srun does not take the batch's --cpus-per-task since 22.05. Its exit code is the highest of all processes'.
srun --cpus-per-task="$SLURM_CPUS_ON_NODE" --kill-on-bad-exit=0 jaxft train "$@"
code=$?

case $code in
  75) why="stopped, saved" ;;
  69 | 134 | 137 | 139 | 143) why="a process was lost" ;;  # 128 + the signal that ended it
  *) exit "$code" ;;
esac
# After scancel the job is COMPLETING or CANCELLED: whoever did that wants no other start.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if [ "$state" != RUNNING ]; then
  echo "jaxft: $why; the job is ${state:-gone}: not started again"
elif [ "${SLURM_RESTART_COUNT:-0}" -ge "$restarts" ]; then
  echo "jaxft: $why; started again $restarts times already (JAXFT_RESTARTS): enough"
else
  echo "jaxft: $why; queued again"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60  # Slurm ends this script meanwhile
fi
exit "$code"
