# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A signal ends work on frames between two of them, and not inside a library."""
import subprocess
import sys

CODE = """
import os, signal
from ros_vseg import interrupts
from ros_vseg.interrupts import until_interrupted
interrupts.defer()
done = []
try:
    for number in until_interrupted(range(5)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        done.append(number)     # the frame at work is completed
except interrupts.Interrupted as error:
    print(done, error.exit_code in (130, 143))
"""


def test_the_frame_at_work_is_completed():
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.stdout == '[0, 1, 2] True\n' and not done.stderr
