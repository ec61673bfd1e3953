#!/usr/bin/env bash
# Starts a container, as yourself and without privileges:  launch.sh [COMMAND …]; a shell unless a command is given
#   IMAGE=convoy (or convoy-cpu)      GPUS=all   which; none: without GPUs
#   DATA_DIR=/imagenet_tfrecords → /data, read only     INFER_DIR=/imagenet_infer → /infer_data, read only
#   MODEL_DIR=./output → /model       DOCKER_ARGS="--network host --device /dev/infiniband"   more, for several hosts
#   DRY_RUN=1   print the command only
set -euo pipefail
data=${DATA_DIR:-/imagenet_tfrecords} infer=${INFER_DIR:-/imagenet_infer} model=${MODEL_DIR:-$PWD/output}
image=${IMAGE:-convoy} gpus=${GPUS:-all}
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }

command=(docker run --rm --init --user "$(id -u):$(id -g)" --env HOME=/tmp --env USER="$(id -un)"
         --cap-drop ALL --security-opt no-new-privileges
         --ipc host --ulimit memlock=-1 --ulimit stack=67108864)  # NCCL's shared memory and pinned pages
if [ -t 0 ] && [ -t 1 ]; then command+=(--interactive --tty); fi
if [ "$gpus" != none ]; then command+=(--gpus "$gpus"); fi
mount() { command+=(--mount "type=bind,source=$(absolute "$1"),target=$2${3:-}"); }
mount "$model" /model
# docker refuses folders that are not there; only what is needed has to be.
if [ -e "$data" ]; then mount "$data" /data ,readonly; else echo "launch: no $data, so no /data: set DATA_DIR" >&2; fi
if [ -e "$infer" ]; then mount "$infer" /infer_data ,readonly; fi
# shellcheck disable=SC2206  # several words on purpose
command+=(${DOCKER_ARGS:-} "$image" "$@")
if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
mkdir -p "$model"  # or docker's daemon makes it, as root
exec "${command[@]}"
