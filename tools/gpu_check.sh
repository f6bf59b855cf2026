#!/usr/bin/env bash
# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
#
# All that only a GPU can say, in about ten minutes: tools/gpu_check.sh [REPORT]
# PYTHON names the interpreter (default: python3). A step that fails is in the report; the exit code
# is the number of steps that failed.
set -u
cd "$(dirname "$0")/.."
REPORT=${1:-gpu_report.txt}
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0

step() {    # step SECONDS TITLE COMMAND...
    local limit=$1 title=$2 code
    shift 2
    { echo; echo "## $title"; echo "\$ $*"; } >> "$REPORT"
    echo "$title ..."
    timeout "$limit" "$@" >> "$REPORT" 2>&1
    code=$?
    echo "exit code $code" >> "$REPORT"
    if [ $code -ne 0 ]; then
        failed=$((failed + 1))
        echo "  failed with code $code"
    fi
}

echo "# GPU check of ros_vseg, $(date -u +%FT%TZ), commit $(git rev-parse --short HEAD 2>/dev/null)" > "$REPORT"
step 20 'GPU and driver' nvidia-smi
step 60 'What is installed' "$PYTHON" -m ros_vseg.commands.cli doctor
step 120 'Kernels, ring, graphs, threads and memory on the GPU' \
    "$PYTHON" -m pytest test/test_gpu.py -q -k real --noconftest -p no:cacheprovider
step 180 'Driver: page-locked memory, captures beside other threads, lost GPUs, waits' \
    "$PYTHON" tools/gpu_check.py
step 300 'Stages against their floors' \
    "$PYTHON" -m ros_vseg.commands.cli bench device --backend tensorrt --rounds 200
echo >> "$REPORT"
echo "$failed steps failed" | tee -a "$REPORT"
echo "report: $REPORT"
exit $failed
