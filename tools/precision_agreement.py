# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
How many labels keep their class when the network computes in fp16, bf16 or int8, not in fp32.

python tools/precision_agreement.py FRAMES CALIBRATION [BUNDLE]: frames to compare on and frames to
calibrate int8 with (folders, videos or bags). The graphs that engines are built from run in ONNX
Runtime on the processor, which needs no GPU; bf16 does not run there and is OpenVINO's own, where
the processor has it.
"""
from pathlib import Path
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from tqdm import tqdm

from ros_vseg import backends
from ros_vseg.backends.onnxruntime import OnnxRuntimeBackend
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.calibrate import calibrate
from ros_vseg.engines.engine import graph_for
from ros_vseg.errors import BackendError
from ros_vseg.media.sources import open_source
from ros_vseg.stream import Stream


def main() -> None:
    """Print the shares of equal labels."""
    frames, calibration = sys.argv[1:3]
    bundle = Bundle.load(sys.argv[3] if len(sys.argv) > 3 else default_bundle_path())
    with tempfile.TemporaryDirectory() as folder:
        calibrate(bundle, open_source(calibration), Path(folder))
        streams = {name: stream_of(bundle, graph_for(bundle, name, 'sm86', Path(folder)))
                   for name in ('fp32', 'fp16', 'int8')}
    try:
        streams['bf16'] = Stream(backends.load(bundle, 'openvino', precision='bf16'))
    except BackendError as error:
        print(f'bf16: {error}')
    equal: dict[str, list[float]] = {name: [] for name in streams if name != 'fp32'}
    for frame in tqdm(open_source(frames), disable=None):
        labels = {name: stream.step(frame.image, frame.stamp, frame.frame_id).labels
                  for name, stream in streams.items()}
        for name, shares in equal.items():
            shares.append(float(np.mean(labels[name] == labels['fp32'])))
    for name, shares in equal.items():
        print(f'{name}: {100 * np.mean(shares):.2f} % of labels equal to fp32 on {len(shares)} '
              f'frames; the worst frame {100 * min(shares):.2f} %')


def stream_of(bundle: Bundle, model: onnx.ModelProto) -> Stream:
    """Stream of a graph as it is: onnxruntime 1.31's fusions break Q/DQ with float16 scales."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    graph = model.SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])
    return Stream(OnnxRuntimeBackend(bundle, graph, session, 'onnxruntime', 'as it is'))


if __name__ == '__main__':
    main()
