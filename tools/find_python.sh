#!/usr/bin/env bash
# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
#
# Print the first usable Python of the versions named (find_python.sh 3.11 3.12), or what to do.
set -u
for version in "$@"; do
    for python in "python$version" "$HOME/.pyenv/versions/$version".*/bin/python; do
        # A pyenv shim may exist without its version being active: run it to know.
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$python"
            exit 0
        fi
    done
done
cat >&2 <<MESSAGE
ros_vseg: no Python $(sed 's/ /, /g' <<<"$*") with venv was found.
  Install one:      sudo apt install python$1 python$1-venv
  or name it:       make ... PYTHON=/path/to/python$1
  or, with ROS 2:   source /opt/ros/<distribution>/setup.bash, then make again
MESSAGE
exit 1
