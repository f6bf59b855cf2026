# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor and /diagnostics advise for the ROS middleware that runs."""
import socket

import pytest

from ros_vseg import rmw
from ros_vseg.commands import doctor
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
