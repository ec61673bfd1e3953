#!/usr/bin/env bash
# Builds the image convoy (GPUs, on NVIDIA's container), or convoy-cpu:  build.sh [cpu] [FLAG of docker build …]
#   IMAGE=convoy   its name      FROM_IMAGE=…   the base      DRY_RUN=1   print the command only
set -euo pipefail
cd "$(dirname "$0")/../.."
image=${IMAGE:-convoy} file=Dockerfile
if [ "${1:-}" = cpu ]; then image=${IMAGE:-convoy-cpu} file=Dockerfile.cpu; shift; fi
command=(docker build --file "$file" --tag "$image")
[ -z "${FROM_IMAGE:-}" ] || command+=(--build-arg "FROM_IMAGE=$FROM_IMAGE")
command+=("$@" .)
if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
exec "${command[@]}"
