#!/usr/bin/env bash
# Builds, checks and measures on a machine with an NVIDIA card, in under nine minutes, most wanted first:
#
#     benchmarks/gpu_all.sh                         text of every part in $OUT (workspace/benchmarks); see summary.txt first
#     ONLY="make-sd15 curve" benchmarks/gpu_all.sh  some parts, by their names there
#     benchmarks/gpu_all.sh --tiny                  the same parts with tiny models in a few minutes, on a processor too
#
# WHEELS=DIR installs the wheels of DIR first, for machines that have PyTorch and no network. PYTHON names the interpreter.
# Other programs' commands for train_speed.py are read from benchmarks/peers/sd15 and benchmarks/peers/sdxl, one a line.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-workspace/benchmarks}
work=${WORK:-$(mktemp -d)}
python=${PYTHON:-python3}
deadline=530 # seconds from the start
mkdir -p "$out"
[[ -n ${WORK:-} ]] || trap 'rm -rf "$work"' EXIT # models take 10 GB
: >"$out/summary.txt"
export RESULTS=$out/results.jsonl LORA_SD_HOME=$work/home HF_HUB_OFFLINE=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

if [[ ${1:-} == --tiny ]]; then
    sd15=tiny sdxl=tiny-sdxl small=128 large=128 steps=4 skip=1 curve=6 cached=4
    small_batches="1 2" large_batches="1"
else
    sd15=sd15 sdxl=sdxl small=512 large=1024 steps=60 skip=15 curve=200 cached=64
    small_batches="1 4 8" large_batches="1 4"
fi

# part NAME LIMIT COMMAND…: its output is shown and kept in $out/NAME.txt; it ends after LIMIT seconds, or with the time
part() {
    local name=$1 limit=$2 began=$SECONDS left=$((deadline - SECONDS)) status
    shift 2
    [[ " ${ONLY:-$name} " == *" $name "* ]] || return
    ((limit = left < limit ? left : limit))
    if ((limit < 5)); then
        echo "$name: no time was left" | tee -a "$out/summary.txt"
        return
    fi
    echo "== $name"
    # the trainer saves when it is asked to end: 5 seconds later it is ended
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$out/$name.txt"
    status=${PIPESTATUS[0]}
    ((status == 124 || status == 137)) && status="$status: its time was over"
    echo "$name: exit $status after $((SECONDS - began)) s" | tee -a "$out/summary.txt"
}

make_inputs() { # KIND RESOLUTION PICTURES
    "$python" benchmarks/make_model.py "$1" "$work/$1"
    "$python" benchmarks/make_images.py "$work/pictures$2" "$3" "$2"
}

speed() { # KIND RESOLUTION BATCHES…
    local kind=$1 resolution=$2 peers=() line
    shift 2
    if [[ -f benchmarks/peers/$kind ]]; then
        while read -r line; do peers+=(--peer "$line"); done <"benchmarks/peers/$kind"
    fi
    "$python" benchmarks/train_speed.py --model "$work/$kind" --images "$work/pictures$resolution" \
        --resolution "$resolution" --batch "$@" --steps "$steps" --skip "$skip" "${peers[@]}"
}

profile() { # KIND RESOLUTION BATCH
    "$python" benchmarks/profile_step.py "$skip" -m lora_sd train --model.base "$work/$1" --data.images "$work/pictures$2" \
        --data.resolution "$2" --lora.targets transformer --optim.batch_size "$3" --optim.steps $((skip + 3)) \
        --preview.every 0 --save.every 0
}

machine() {
    uname -srm && nproc
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    "$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)'
}
# timeout runs programs, not functions
export -f make_inputs speed profile machine
export work python steps skip

if [[ -n ${WHEELS:-} ]]; then
    part install 90 "$python" -m pip install --quiet --no-index --no-deps --target "$work/packages" "$WHEELS"/*.whl
    export PYTHONPATH=$work/packages:$PYTHONPATH
fi
part machine 30 bash -c machine
part make-sd15 60 bash -c "make_inputs $sd15 $small 32"
part speed-sd15 120 bash -c "speed $sd15 $small $small_batches"
part tests 120 "$python" -m pytest -q -p no:cacheprovider -m gpu $(grep -l 'mark\.gpu' tests/test_*.py)
part make-sdxl 60 bash -c "make_inputs $sdxl $large 16"
part speed-sdxl 100 bash -c "speed $sdxl $large $large_batches"
part memory-sd15 80 "$python" benchmarks/memory.py --model "$work/$sd15" --resolution "$small" --batch $large_batches \
    --memory low lowest
part memory-sdxl 110 "$python" benchmarks/memory.py --model "$work/$sdxl" --resolution "$large" --batch $large_batches \
    --memory low lowest
part ten-buckets 60 "$python" benchmarks/train_speed.py --model "$work/$sd15" --resolution "$small" --batch 4 \
    --shapes 1 10 --steps "$steps" --skip "$skip"
part curve 100 "$python" benchmarks/graph_curve.py --model "$work/$sd15" --images "$work/pictures$small" \
    --resolution "$small" --steps "$curve"
part profile 60 bash -c "profile $sd15 $small 1"
part cache 70 "$python" benchmarks/cache_speed.py --model "$work/$sd15" --pictures "$cached" --repeats 1
part startup 70 "$python" benchmarks/startup.py --model "$work/$sd15" --pictures "$cached" --repeats 1
cat "$out/summary.txt"
