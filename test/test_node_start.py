# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How the node starts: --help, what is refused in one line, no word to third parties."""
from importlib import metadata
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest
import ros_helpers as ros
import yaml

from ros_vseg.nodes.parameters import CAMERA, VSEG_NODE
from ros_vseg.processes import demo_clip, ros_environment

ROOT = Path(__file__).parents[1]


def segments(process):
    """Return the shared memory segments of Fast DDS that a process, alone in its domain, has."""
    try:
        maps = Path(f'/proc/{process.pid}/maps').read_text()
    except OSError:     # it has ended
        return set()
    return {Path(path) for path in re.findall(r'/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}', maps)}


def run(*arguments, **changes):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120,
        env={**os.environ, **changes}, cwd=ROOT)


@pytest.mark.parametrize('option', ['--help', '-h'])
def test_help_answers_and_ends(option):
    done = run('-m', 'ros_vseg.nodes.vseg_node', option)
    assert done.returncode == 0 and not done.stderr
    for parameter in (*VSEG_NODE, *CAMERA):
        assert f'{parameter.name}: ' in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 100


REFUSED = {
    'empty list for text': ({'size': []}, "'size' is []: it must be a string"),
    'empty list for a number': ({'threads': []}, "'threads' is []: it must be a whole number"),
    'empty list of cameras': ({'cameras': []}, "'cameras' is []: it must be a list"),
    'list for text': ({'size': [1, 2]}, "'size' is [1, 2]: it must be a string"),
    'number for text': ({'size': 256}, "'size' is 256: it must be a string"),
    'text for a list': ({'cameras': 'front'}, "'cameras' is 'front': it must be a list"),
    'text for a number': ({'threads': 'two'}, "'threads' is 'two': it must be a whole"),
    'text for a switch': ({'autostart': 'maybe'}, "'autostart' is 'maybe': it must be true"),
    'transport': ({'camera': {'transport': 'tcp'}}, "'camera.transport' is 'tcp': it must be one"),
    'priority': ({'camera': {'priority': 0.0}}, "'camera.priority' is 0.0: it must be a decimal"),
    'mask': ({'masks': {'people': 'car'}}, "'masks.people' is 'car': it must be a list"),
    'mask of numbers': ({'masks': {'people': [1]}}, "'masks.people' is [1]: it must be a list")}


@pytest.mark.parametrize('case', REFUSED)
def test_a_parameters_file_is_refused_in_one_line(tmp_path, case):
    values, reason = REFUSED[case]
    path = tmp_path / 'parameters.yaml'
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    done = run('-m', 'ros_vseg.nodes.vseg_node', '--ros-args', '--params-file', str(path))
    line, = done.stderr.splitlines()
    assert done.returncode == 2 and reason in line and 'FATAL' in line


@pytest.mark.parametrize('arguments, reason', [
    (['--params-file', 'broken.yaml'], 'params file'), (['--params-file', 'gone.yaml'], 'YAML'),
    (['-p', 'threads'], 'parameter override'), (['--log-level', 'loud'], 'log level'),
    (['--colour'], '--colour')])
def test_arguments_that_ros_refuses_leave_no_traceback(tmp_path, arguments, reason):
    (tmp_path / 'broken.yaml').write_text('/**:\n  ros__parameters: [\n')
    arguments = [str(tmp_path / text) if text.endswith('.yaml') else text for text in arguments]
    done = run('-m', 'ros_vseg.nodes.vseg_node', '--ros-args', *arguments)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    line, = [line for line in done.stderr.splitlines() if 'FATAL' in line]
    assert reason in line


@pytest.mark.parametrize('arguments', [['my.onnx'], ['--backend', 'openvino'],
                                       ['bundle:=my.onnx', '--ros-args', '-p', 'threads:=1']])
def test_arguments_of_no_meaning_are_refused(arguments):
    """They named another network than the one that then labelled."""
    done = run('-m', 'ros_vseg.nodes.vseg_node', *arguments)
    line, = done.stderr.splitlines()
    assert done.returncode == 2 and arguments[0] in line and '--ros-args -p NAME:=VALUE' in line


def test_a_log_that_cannot_be_written_is_no_fault_of_the_arguments():
    """Exit code 1: a launch file's respawn tries again."""
    done = run('-m', 'ros_vseg.nodes.vseg_node', HOME='/dev/null', ROS_HOME='', ROS_LOG_DIR='')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    line, = [line for line in done.stderr.splitlines() if 'FATAL' in line]
    assert 'set ROS_LOG_DIR' in line


@pytest.mark.parametrize('parameters, reason', [
    ({'masks.people': '[pedestrain]'}, 'mask people: label set '),
    ({'cameras': '[a, a/mask]', 'masks.label': '[car]'}, 'cameras a and a/mask would both'),
    ({'label_set': '~nobody-here/x.yaml'}, "label_set is '~nobody-here/x.yaml': there is no"),
    ({'label_set': '~/gone.yaml'}, os.path.expanduser('~/gone.yaml')),
    ({'masks.my.mask': '[car]'}, "mask 'my.mask' cannot be a topic"),
    ({'probabilities': '[street]'}, "has no class 'street'")])
def test_what_cannot_be_configured_is_one_line(bundle, tmp_path, parameters, reason):
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/refuses', bundle=bundle,
                   **parameters) as child:
        child.wait_for_line('cannot configure', 60)
    error, = [line for line in child.log.read_text().splitlines() if 'ERROR' in line]
    assert reason in error


# Prints what this process asks of the network or starts, then what it has loaded.
WATCH = """
import sys
def note(event, arguments):
    if event.startswith(('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'urllib')) or (
            event == 'os.fork' or event == 'subprocess.Popen' and 'python' in str(arguments)):
        print('event', event, arguments[:2])
sys.addaudithook(note)
{work}
import openvino
print('openvino', openvino.__version__)
if getattr(sys.modules.get('openvino_telemetry'), '__file__', None):
    print('event telemetry is loaded')
"""
WORK = {
    'vseg doctor': "from ros_vseg.commands.cli import main; main(['doctor'])",
    'backends': 'from ros_vseg import backends; backends.available()',
    'bundle loaded': """
from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
backends.load(Bundle.load(default_bundle_path()), 'openvino')""",
    'vseg_node': """
import rclpy
from ros_vseg.nodes.lifecycle import VsegNode
rclpy.init(args=['vseg_node', '--ros-args', '-p', 'backend:=openvino'])
node = VsegNode()
print('configured', node.trigger_configure())
node.destroy_node()
rclpy.shutdown()""",
    'benchmarks': 'import ros_vseg.bench.network, ros_vseg.bench.decoder'}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('module', ['vseg_node', 'cloud_program'])
def test_a_signal_during_the_imports_is_no_traceback(tmp_path, number, module):
    log = tmp_path / 'log'
    with open(log, 'wb') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', f'ros_vseg.nodes.{module}', '--ros-args', '-p',
             'autostart:=false'],
            env={**ros_environment(), 'PYTHONPATH': str(ROOT)}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while '_rclpy_pybind11' not in Path(f'/proc/{process.pid}/maps').read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)     # OpenVINO and others are still to come
        assert process.wait(30) in (-number, 0)
    finally:
        process.kill()
    assert 'Traceback' not in log.read_text()


def has_telemetry():
    try:
        return metadata.version('openvino-telemetry')
    except metadata.PackageNotFoundError:
        return None


@pytest.mark.skipif(not has_telemetry(), reason='this OpenVINO has no telemetry')
@pytest.mark.parametrize('entry', WORK)
def test_openvino_reports_to_nobody(tmp_path, entry):
    # a home where nobody has refused, and no sign of a test service, where it is silent
    signs = {'HOME': str(tmp_path), 'CI': '', 'TF_BUILD': '', 'JENKINS_URL': ''}
    done = run('-c', WATCH.format(work=WORK[entry]), **signs)
    assert done.returncode == 0, done.stderr
    assert 'openvino 20' in done.stdout and 'event' not in done.stdout
    assert not (tmp_path / 'intel').exists()


PROGRAMS = {    # what says that it is up; None: it is once DDS has its memory
    'vseg_node': (['vseg_node'], 'labels camera with'),
    'vseg_node refused': (['vseg_node', '--ros-args', '-p', 'backend:=1'], None),
    'replay': (['replay', str(demo_clip())], None),
    'replay refused': (['replay', 'gone'], None),
    'record': (['record', 'out'], None),
    'cloud': (['cloud'], 'points on'),
    'cloud refused': (['cloud', '--ros-args', '-p', 'slop:=7.0'], None),
    'burst': (['burst', 'receive', '1'], None)}


@pytest.mark.parametrize('case', PROGRAMS)
def test_a_node_that_ends_gives_its_shared_memory_back(tmp_path, case):
    # 67 MB with the profile: respawn, or a long test run, would fill the machine's memory
    (program, *arguments), line = PROGRAMS[case]
    held = set()
    log = tmp_path / 'log'
    with open(log, 'wb') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', f'ros_vseg.nodes.{program}', *arguments], cwd=tmp_path,
            env={**ros_environment(), 'PYTHONPATH': str(ROOT)}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and not (
                held if line is None else line in log.read_text()):
            held |= segments(process)
            time.sleep(0.01)
        assert held or 'refused' in case, log.read_text()
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
    assert not [path for path in held if path.exists()], log.read_text()
