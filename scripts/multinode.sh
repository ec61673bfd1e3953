#!/usr/bin/env bash
# What run_{B0,B4,RN50}_multinode.sub do inside a Slurm job: multinode.sh NAME RECIPE_MODEL [FLAG …]
# docs/launch.md lists what can be set. Here in short, as variables or as flags of the .sub script:
#   datadir=/data                --datadir           the images
#   checkpointdir=NAME_multinode_AMP  --checkpointdir    the run; an array's tasks get folders in it
#   CONTAINER_IMAGE=…            --container-image   run in this image (Pyxis and enroot); unset: bare
#   PRECISION=AMP PLATFORM=A100-80G                  the recipe's; EPOCHS=90E where it has several
#   PARTITION=…                                      must be the one that the job is in
#   SRUN_MPI=pmix                                    how srun's tasks meet; unset: pmix if that works, else none
# All other flags go to main.py.
set -euo pipefail
say() { echo "$name: $*" >&2; }

name=$1 model=$2
shift 2
[ -n "${SLURM_JOB_ID:-}" ] || { say "this is a Slurm job: sbatch -N 4 --ntasks-per-node=8 run_${name}_multinode.sub"; exit 2; }
if [ -n "${PARTITION:-}" ] && [ "$PARTITION" != "${SLURM_JOB_PARTITION:-}" ]; then
  say "the job is in the partition ${SLURM_JOB_PARTITION:-?}, not in PARTITION=$PARTITION, which sbatch does not read:" \
    "sbatch -p $PARTITION …, or set SBATCH_PARTITION"
  exit 2
fi

precision=${PRECISION:-AMP}
datadir=${datadir:-/data}
checkpointdir=${checkpointdir:-$PWD/${name}_multinode_$precision}
image=${CONTAINER_IMAGE:-}
flags=()
while [ $# -gt 0 ]; do
  case $1 in
    --datadir|--checkpointdir|--container-image)
      [ $# -gt 1 ] || { say "$1 needs a value"; exit 2; }
      case $1 in --datadir) datadir=$2 ;; --checkpointdir) checkpointdir=$2 ;; *) image=$2 ;; esac
      shift ;;
    *) flags+=("$1") ;;
  esac
  shift
done
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then  # one run each, which differ in their seed
  checkpointdir=$checkpointdir/$SLURM_ARRAY_TASK_ID
  flags=(--seed "$SLURM_ARRAY_TASK_ID" "${flags[@]}")
fi
mkdir -p "$checkpointdir"

# A rank that ends has either failed, and the others notice within seconds, or saved like all others.
# Killing them at the first exit (--kill-on-bad-exit) could cut off rank 0's writing.
options=(--label --distribution=block --kill-on-bad-exit=0 --wait=120)
# A Horovod without MPI takes no notice of PMIx and meets through a server of task 0.
# Tried, because srun also lists plugins whose library is missing.
mpi=${SRUN_MPI:-}
if [ -z "$mpi" ]; then
  mpi=none
  if [ -z "${DRY_RUN:-}" ] && srun --mpi=pmix --nodes=1 --ntasks=1 true >/dev/null 2>&1; then mpi=pmix; fi
fi
options+=("--mpi=$mpi")
if [ -n "$image" ]; then
  options+=("--container-image=$image" "--container-mounts=$datadir:/data,$checkpointdir:/model"
            --container-workdir=/workspace --no-container-mount-home)
  datadir=/data checkpointdir=/model python=python
else
  python=$PWD/.venv/bin/python
  [ -x "$python" ] || python=python3
fi

command=(srun "${options[@]}" "${PYTHON:-$python}" main.py --recipe "$model/$precision/${PLATFORM:-A100-80G}${EPOCHS:+/$EPOCHS}"
         --data_dir "$datadir" --model_dir "$checkpointdir" --resume_checkpoint --no-requeue "${flags[@]}")
if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi

code=0
"${command[@]}" || code=$?
if [ "$code" = 75 ]; then  # stopped by a signal, everything saved: --signal's, or a preemption's
  job=$SLURM_JOB_ID
  # One of an array's tasks has the array's own number, with which all of them would be queued again.
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
  say "job $job saved and stopped; queueing it again, to go on from $checkpointdir"
  scontrol requeue "$job"
fi
exit "$code"
