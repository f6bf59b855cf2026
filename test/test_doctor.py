# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor and /diagnostics advise for the ROS middleware that runs."""
import fcntl
import socket
import subprocess
import sys

import pytest

from ros_vseg import rmw
from ros_vseg.commands import cli, doctor, transport
from ros_vseg.nodes import diagnostics
from ros_vseg.processes import PROFILE_VARIABLES, ros_environment


def running(monkeypatch, identifier):
    monkeypatch.setattr('rclpy.utilities.get_rmw_implementation_identifier', lambda: identifier)


@pytest.mark.parametrize('identifier, looked_at', [
    ('rmw_fastrtps_cpp', {'Fast DDS profile', 'shared memory'}),
    ('rmw_cyclonedds_cpp', {'socket buffers'}), ('rmw_zenoh_cpp', {'Zenoh router'}),
    ('rmw_connextdds', {'large images'})])
def test_only_what_concerns_the_middleware_is_looked_at(monkeypatch, identifier, looked_at):
    running(monkeypatch, identifier)
    findings = doctor._ros()
    assert {finding.what for finding in findings} == {'ROS 2', 'RMW', *looked_at}
    assert any(finding.text.startswith(identifier) for finding in findings)


def test_profile_is_missed_only_with_fast_dds(monkeypatch):
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert 'fastdds.xml' in ' '.join(each.text for each in doctor._transport(rmw.FAST_DDS))
    for other in (rmw.CYCLONE_DDS, rmw.ZENOH):
        assert 'fastdds.xml' not in ' '.join(each.text for each in doctor._transport(other))


def test_small_socket_buffers_are_a_hint(monkeypatch):
    monkeypatch.setattr(doctor, 'RECEIVE_BUFFER', 2**60)
    finding = doctor._receive_buffer()
    assert finding.state == doctor.HINT and 'rmem_max' in finding.text
    monkeypatch.setattr(doctor, 'RECEIVE_BUFFER', 1)
    assert doctor._receive_buffer().state == doctor.OK


def test_router_is_looked_for(monkeypatch):
    with socket.socket() as server:
        server.bind(('localhost', 0))
        monkeypatch.setattr(doctor, 'ROUTER', server.getsockname())
        assert doctor._router().state == doctor.HINT and 'rmw_zenohd' in doctor._router().text
        server.listen()
        assert doctor._router().state == doctor.OK


@pytest.mark.parametrize('identifier, words', [
    ('rmw_fastrtps_cpp', 'config/fastdds.xml'), ('rmw_cyclonedds_cpp', 'rmem_max'),
    ('rmw_zenoh_cpp', 'rmw_zenohd'), ('rmw_connextdds', 'large messages')])
def test_diagnostics_advise_for_the_middleware(monkeypatch, identifier, words):
    monkeypatch.setattr(diagnostics, 'get_rmw_implementation_identifier', lambda: identifier)
    assert words in diagnostics._remedy()
    status = diagnostics.node_status('vseg_node', None, '')
    assert {pair.key: pair.value for pair in status.values} == {'rmw': identifier}


def test_images_that_fit_arrive_from_one_camera_and_from_several():
    """The shipped profile's segment holds all of them, however late the receiver takes them."""
    counts = [transport.send(cameras, 240, 320) for cameras in (1, 4)]
    assert counts == [(20, 20), (80, 80)]


@pytest.mark.parametrize('arrived, state', [(0, doctor.MISSING), (3, doctor.HINT)])
@pytest.mark.parametrize('middleware, remedy', [
    (rmw.FAST_DDS, 'config/fastdds.xml'), (rmw.CYCLONE_DDS, 'rmem_max'),
    (rmw.ZENOH, 'rmw_zenohd')])
def test_images_that_are_lost_are_told_with_the_remedy(monkeypatch, middleware, remedy, arrived,
                                                       state):
    monkeypatch.setattr(transport, 'send', lambda cameras, height, width: transport.Counts(
        20 * cameras, arrived if height == 1024 else 20 * cameras))
    large, small = doctor._images(middleware, 1024, 2048)
    assert large[:2] == (state, '1 x 1024x2048 rgb8') and remedy in large.text
    assert large.text.startswith(f'{arrived} of 20 images arrived: ')
    assert small == (doctor.OK, '4 x 480x640 rgb8', '80 of 80 images arrived')


def test_the_transport_is_that_of_the_users_environment(monkeypatch):
    """What the doctor says of a profile must be what its images went through."""
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert not set(PROFILE_VARIABLES) & set(ros_environment(profile=False))
    assert set(PROFILE_VARIABLES) & set(ros_environment())
    monkeypatch.setenv(PROFILE_VARIABLES[0], 'mine.xml')
    assert ros_environment(profile=False)[PROFILE_VARIABLES[0]] == 'mine.xml'


def test_a_transport_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(transport, 'MODULE', 'ros_vseg.nodes.none')
    finding, _ = doctor._images(rmw.FAST_DDS, 1, 1)
    assert finding.state == doctor.MISSING and 'No module named' in finding.text
    assert '\n' not in finding.text


def test_a_sender_without_a_receiver_gives_up():
    code = ('import sys; from ros_vseg.nodes import burst; burst.PATIENCE = 0.5; '
            'sys.argv[1:] = "send 1 2 2".split(); burst.main()')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 1 and 'the receiver did not answer' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('size', ['wide', '0x640'])
def test_a_size_of_images_that_is_none_is_refused(size, capsys):
    assert cli.main(['doctor', '--dds', size]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'HxW' in error


def test_shared_memory_of_ended_processes_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(transport, 'SHARED_MEMORY', tmp_path)
    for name, size in (('fastdds_0123456789abcdef', 3 * 2**20), ('fastrtps_00000000000000ff', 1),
                       ('fastdds_fedcba9876543210', 2**20), ('fastdds_port7000', 9)):
        (tmp_path / name).write_bytes(bytes(size))
        (tmp_path / f'{name}_el').touch()
    with open(tmp_path / 'fastdds_fedcba9876543210_el', 'rb') as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert {path.name for path in transport.left_behind()} == {
            'fastdds_0123456789abcdef', 'fastrtps_00000000000000ff'}
        finding = doctor._shared_memory()
    assert finding.state == doctor.HINT
    assert '3 MiB are held there by 2 Fast DDS segments' in finding.text
