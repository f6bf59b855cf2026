# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The node's choice of backend: the next one where a GPU is missing or lost, engines, sizes."""
from pathlib import Path
import sys

from fake_cuda import host_kernels
import numpy as np
import pytest
import ros_helpers as ros
from ros_helpers import FRAME, stamps

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.bundle import Bundle
from ros_vseg.graph import at_size
from ros_vseg.image import to_label_array
from ros_vseg.processes import Child
from ros_vseg.stream import Stream

WARN = 1
without_gpu = pytest.mark.skipif(tensorrt.missing() is None, reason='there is a GPU here')


@without_gpu
def test_node_without_a_gpu_goes_on_with_the_next_backend_and_says_so(probe, bundle, tmp_path):
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/next', bundle=bundle,
                   backend='tensorrt', precision='int8') as child:
        child.wait_for_line('labels camera', 60)
        level, message, values = probe.status('next/vseg_node: node')
    assert level == WARN and message.startswith('backend tensorrt could not be loaded: ')
    assert values['backend'] in ('openvino', 'onnxruntime')
    errors = [line for line in child.log.read_text().splitlines() if 'could not be loaded' in line]
    assert len(errors) == 1


@without_gpu
@pytest.mark.parametrize('parameters, reason', [
    ({'backend': 'tensorrt', 'fallback': 'false'}, 'backend tensorrt cannot be used here'),
    ({'size': "'48'"}, "size '48' is not HxW, height first"),
    ({'size': '16x16'}, 'size 16x16 is too small')])
def test_what_cannot_be_configured_is_one_line(bundle, tmp_path, parameters, reason):
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/refuses', bundle=bundle,
                   **parameters) as child:
        child.wait_for_line('cannot configure', 60)
    error, = [line for line in child.log.read_text().splitlines() if 'ERROR' in line]
    assert reason in error


@without_gpu
def test_build_only_without_a_gpu_ends_with_code_1(bundle, tmp_path):
    with ros.start('vseg_node', tmp_path / 'log', bundle=bundle, build_only='true') as child:
        assert child.process.wait(60) == 1
    line, = child.log.read_text().splitlines()
    assert 'FATAL' in line and ('NVIDIA' in line or 'cuda' in line)


def test_network_runs_at_another_size(probe, bundle, tmp_path):
    small = at_size(Bundle.load(bundle), (48, 64))
    stream = Stream(backends.load(small, 'onnxruntime', threads=1))
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/small', bundle=bundle,
                   size='48x64', backend='onnxruntime', threads=1):
        camera = ros.CameraProbe(probe, 'small/vseg_node', 'camera', topic='/small/camera/image')
        picture, stamp = ros.pictures(1)[0], next(stamps)
        labels = to_label_array(camera.label(ros.image(picture, stamp)))
    np.testing.assert_array_equal(labels, stream.step(picture, stamp).labels)


def test_fake_gpu_lost_in_mid_drive_costs_no_frame(probe, bundle, tmp_path):
    """The frame at which it is lost is labelled by the backend that stood by; bgr8 goes up raw."""
    pytest.importorskip('cuda.bindings')
    host_kernels(tmp_path)
    program = Path(__file__).with_name('fake_gpu_node.py')
    argv = [sys.executable, str(program), str(tmp_path / 'kernels.so'), '12',
            'CUDA_ERROR_ECC_UNCORRECTABLE', '--ros-args', '-r', '__ns:=/lost', '-p',
            f'bundle:={bundle}', '-p', 'backend:=tensorrt']
    with Child('node', argv, None, tmp_path / 'log') as child:
        child.wait_for_line('labels camera', 60)
        camera = ros.CameraProbe(probe, 'lost/vseg_node', 'camera', topic='/lost/camera/image')
        begin, used = next(stamps), {probe.status('lost/vseg_node: node')[2]['backend']}
        for number, picture in enumerate(ros.pictures(30)):
            bgr = np.ascontiguousarray(picture[..., ::-1])
            camera.label(ros.image(bgr, begin + number * FRAME, 'bgr8'))
            used.add(probe.last('lost/vseg_node: node')[2]['backend'])
        level, message, values = probe.status('lost/vseg_node: node')
        counts = probe.status('lost/vseg_node: camera')[2]
        child.check_alive()
    assert level == WARN and 'tensorrt on Fake GPU fp32 failed' in message
    assert 'ECC_UNCORRECTABLE' in message and 'going on with openvino' in message
    assert 'restart the node' in message
    assert values['backend'] == 'openvino' and 'tensorrt' in used
    assert counts['received'] == counts['labelled'] == '30'


def test_node_ends_with_its_own_code_when_fake_gpu_needs_a_new_process(probe, bundle, tmp_path):
    """Respawn then brings the GPU back. It is lost at the fourth frame, the third of a graph."""
    pytest.importorskip('cuda.bindings')
    host_kernels(tmp_path)
    program = Path(__file__).with_name('fake_gpu_node.py')
    argv = [sys.executable, str(program), str(tmp_path / 'kernels.so'), '2',
            'CUDA_ERROR_ILLEGAL_ADDRESS', '--ros-args', '-r', '__ns:=/ends', '-p',
            f'bundle:={bundle}', '-p', 'backend:=tensorrt', '-p', 'exit_if_gpu_lost:=true']
    with Child('node', argv, None, tmp_path / 'log') as child:
        child.wait_for_line('labels camera', 60)
        camera = ros.CameraProbe(probe, 'ends/vseg_node', 'camera', topic='/ends/camera/image')
        begin = next(stamps)
        *pictures, last = ros.pictures(4)
        for number, picture in enumerate(pictures):
            camera.label(ros.image(picture, begin + number * FRAME))
        camera.images.publish(ros.image(last, begin + 3 * FRAME))
        assert child.process.wait(60) == 75
    assert 'restart the node' in child.log.read_text()
