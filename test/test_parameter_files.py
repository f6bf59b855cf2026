# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters files that the launch files look into."""
import pytest

from ros_vseg.nodes.parameter_files import cameras_of


@pytest.mark.parametrize('text, cameras', [
    ('/**:\n  ros__parameters: {cameras: [a, b]}', ['a', 'b']),
    ('/car/vseg_node:\n  ros__parameters: {cameras: [a]}', ['a']),
    ('car:\n  vseg_node:\n    ros__parameters: {cameras: [a]}', ['a']),
    ('/*/vseg_node:\n  ros__parameters: {cameras: [a]}\n/**:\n  ros__parameters: {threads: 1}',
     ['a']),
    ('/**:\n  ros__parameters: {cameras: [a]}\n/**/vseg_node:\n  ros__parameters: {cameras: [b]}',
     ['b']),
    ('vseg_node:\n  ros__parameters: {cameras: [a]}', ['camera']),
    ('/**:\n  ros__parameters: {cameras: [1, 2]}', ['camera']),
    ('{', ['camera']), ('', ['camera'])])
def test_cameras_of_the_parameters_file(tmp_path, text, cameras):
    file = tmp_path / 'own.yaml'
    file.write_text(text)
    assert cameras_of(str(file), '/car/vseg_node') == cameras
