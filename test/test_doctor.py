# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor and /diagnostics advise for the ROS middleware that runs."""
import socket
import subprocess
import sys

import pytest

from ros_vseg import rmw
from ros_vseg.commands import cli, doctor, transport
from ros_vseg.nodes import diagnostics
from ros_vseg.processes import PROFILE_VARIABLES


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


def test_images_that_do_not_fit_are_counted_and_the_remedy_is_told(monkeypatch):
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(doctor, 'SEVERAL', (1, 1, 1))
    large, small = doctor._images(rmw.FAST_DDS, 1024, 2048)
    assert large.what == '1 x 1024x2048 rgb8' and large.state != doctor.OK
    assert ' of 20 images arrived: ' in large.text and 'config/fastdds.xml' in large.text
    assert small == (doctor.OK, '1 x 1x1 rgb8', '20 of 20 images arrived')


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
