# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Child processes: a DDS domain of their own, a clear word when they die, none left behind."""
from contextlib import ExitStack
from pathlib import Path
import socket
import sys
import time

import pytest

from ros_vseg import processes
from ros_vseg.errors import VsegError
from ros_vseg.processes import Child, ChildError, free_domain_id, ros_environment, share_path


def test_domain_that_another_participant_uses_is_not_taken(monkeypatch):
    """Few are taken for this: other programs on this machine need some too."""
    free = free_domain_id()
    taken = [domain for domain in (1, 2, 3, 4) if domain != free]
    with ExitStack() as sockets:
        for domain in taken:
            participant = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                participant.bind(('', 7400 + 250 * domain + 10 * (domain % 2)))
            except OSError:
                pass        # in use already: as good
        monkeypatch.setattr(processes.random, 'sample', lambda *_: [*taken, free])
        assert free_domain_id() == free
        monkeypatch.setattr(processes.random, 'sample', lambda *_: taken)
        with pytest.raises(VsegError, match='every ROS_DOMAIN_ID from 1 to 100 is in use'):
            free_domain_id()


@pytest.fixture
def plain_environment(monkeypatch, tmp_path):
    """Return a prefix that holds no ROS package, in an environment without ROS variables."""
    for name in (*processes.PROFILE_VARIABLES, 'AMENT_PREFIX_PATH', 'ROS_DISTRO', 'ROS_DOMAIN_ID'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    return tmp_path


@pytest.mark.parametrize('package, variable, other', [
    ('fastdds', 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
    ('fastrtps', 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')])
def test_profile_goes_into_the_variable_that_this_fast_dds_reads(
        package, variable, other, plain_environment, monkeypatch):
    (plain_environment / 'share' / package).mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(plain_environment))
    environment = ros_environment()
    assert Path(environment[variable]).name == 'fastdds.xml' and other not in environment
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 100


def test_profile_of_the_user_is_kept(plain_environment, monkeypatch):
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/own.xml')
    environment = ros_environment()
    assert environment['FASTRTPS_DEFAULT_PROFILES_FILE'] == '/own.xml'
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' not in environment


def test_humble_stays_on_this_machine_in_its_own_way(plain_environment, monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    environment = ros_environment()
    assert environment['ROS_LOCALHOST_ONLY'] == '1'


def test_data_file_that_is_not_there_is_named():
    assert '<dds' in share_path('config/fastdds.xml').read_text()
    with pytest.raises(processes.VsegError, match='config/none.xml is not installed'):
        share_path('config/none.xml')


def _child(tmp_path, code):
    return Child('child', [sys.executable, '-c', code], None, tmp_path / 'log')


def test_death_is_told_with_the_last_words(tmp_path):
    with _child(tmp_path, 'print("first", flush=True); raise SystemExit("the reason")') as child:
        child.process.wait(60)
        with pytest.raises(ChildError, match=r'(?s)exit code 1:.*first.*the reason'):
            child.check()


def test_waiting_for_a_line_ends_with_the_line_the_death_or_the_time(tmp_path):
    sleep = 'import time; print("ready", flush=True); time.sleep(60)'
    with _child(tmp_path, sleep) as child:
        child.wait_for_line('ready', 60)
        with pytest.raises(ChildError, match="did not say 'more' in"):
            child.wait_for_line('more', 0.2)
    with _child(tmp_path, 'print("over")') as child:
        with pytest.raises(ChildError, match='ended with exit code 0'):
            child.wait_for_line('more', 60)


def test_process_that_ignores_interrupts_is_ended_with_its_children(tmp_path):
    code = ('import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);'
            'one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]);'
            'print("pid", one.pid, flush=True); one.wait()')
    with _child(tmp_path, code) as child:
        child.wait_for_line('pid', 60)
    assert child.process.returncode not in (None, 0)
    grandchild = int(child.log.read_text().split()[1])
    deadline = time.monotonic() + 60
    while _runs(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        return '(zombie)' not in Path(f'/proc/{pid}/status').read_text()
    except OSError:
        return False
