#!/usr/bin/env bash
# Tries on a GPU what CPUs cannot show, in under 10 minutes: benchmarks/gpu/check.sh [SITE]
#   SITE          the folder that bundle.sh's pieces were unpacked to; without it, the packages of PYTHON
#   PYTHON        the interpreter (python3)     OUT=build/gpu   where logs and tables go
#   SECONDS_LEFT  time for everything (560): the comparison with timm at the end takes what is left
#   SKIP=peers    without that comparison
#   TINY=1        the same steps on a CPU, with small images: to try this script
# Each step prints its name, its seconds and its last line; a step that fails does not end the others.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
site=${1:-} python=${PYTHON:-python3} out=${OUT:-build/gpu} left=${SECONDS_LEFT:-560}
mkdir -p "$out"; failed=0
own=() peers=(--out "$out")
if [ -n "$site" ]; then
  own=(env "PYTHONPATH=$site:$PWD" "LD_LIBRARY_PATH=$(printf '%s:' "$site"/nvidia/*/lib)" "PATH=$site/nvidia/cuda_nvcc/bin:$PATH"
       "XLA_FLAGS=--xla_gpu_cuda_data_dir=$site/nvidia/cuda_nvcc")
  peers+=(--site "$site")
fi
if [ "${TINY:-}" = 1 ]; then
  model=(--arch efficientnet-test --image_size 32) batch=4 precision=bf16 peers+=(--tiny)
else
  model=(--arch efficientnet-b0) batch=512 precision=fp16
fi

step() {  # NAME SECONDS COMMAND…
  local name=$1 limit=$2 begun=$SECONDS code=0 how=ended; shift 2
  [ $((left - begun)) -ge "$limit" ] || limit=$((left - begun))
  if [ "$limit" -lt 5 ]; then echo "$name: no time left"; return; fi
  timeout -k 5 "$limit" "${own[@]}" "$python" "$@" >"$out/$name.log" 2>&1 || code=$?
  [ $code = 0 ] || { failed=1 how="FAILED with $code"; }
  echo "$name: $how after $((SECONDS - begun)) s: $(grep -v '^ *$' "$out/$name.log" | tail -1)"
}
timed() { step "$1" "$2" main.py --mode training_benchmark --data_backend synthetic "${model[@]}" --train_batch_size $batch --prof 30 "${@:3}" --model_dir "$out/$1"; }

step env 90 main.py --mode env
cat "$out/env.log"
step nccl 90 -m benchmarks.gpu.nccl
timed half 150 --benchmark_precisions $precision --benchmark_xla off,on
timed augmentation 120 --benchmark_precisions $precision --use_xla --augment_on device --augmenter_name randaugment
timed channels_first 90 --benchmark_precisions $precision --use_xla --data_format channels_first
own=(env)  # they find SITE themselves
[ "${SKIP:-}" = peers ] || step peers 600 -m benchmarks.gpu --budget_s $((left - SECONDS - 10)) "${peers[@]}"
exit $failed
