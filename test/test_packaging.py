# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The package as pip and as colcon install it, and what it says of itself."""
import ast
import importlib
import importlib.util
from pathlib import Path
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree
import zipfile

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROS_MODULES = {
    'rclpy', 'ament_index_python', 'builtin_interfaces', 'diagnostic_msgs', 'lifecycle_msgs',
    'rcl_interfaces', 'rosgraph_msgs', 'sensor_msgs', 'std_msgs', 'std_srvs', 'vision_msgs'}
# import name -> requirement, where they differ
DISTRIBUTIONS = {'cv2': 'opencv-python-headless', 'yaml': 'pyyaml'}
EXECUTABLES = {'vseg_node', 'replay', 'record', 'cloud', 'vseg'}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Return a copy of what is packaged, so that no build output lands in the checkout."""
    copy = tmp_path_factory.mktemp('sources')
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'package.xml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    for name in ('ros_vseg', 'launch', 'config', 'resource'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    return copy


@pytest.fixture(scope='module')
def wheel(sources, tmp_path_factory):
    """Return the wheel's files by name."""
    folder = tmp_path_factory.mktemp('wheel')
    _python(['-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
             '--wheel-dir', str(folder), '.'], sources)
    [path] = folder.glob('ros_vseg-*.whl')
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _python(arguments, folder):
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _data(wheel):
    return {name.partition('.data/data/')[2] for name in wheel if '.data/data/' in name}


def test_wheel_holds_every_file_of_the_package(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'ros_vseg').rglob('*')
             if path.is_file() and '__pycache__' not in path.parts}
    assert 'ros_vseg/demo_clip/street/street.mcap' in files
    assert files <= set(wheel)


def test_wheel_installs_share_as_ament_wants_it(wheel):
    data = _data(wheel)
    assert 'share/ament_index/resource_index/packages/ros_vseg' in data
    assert 'share/ros_vseg/package.xml' in data
    for folder, pattern in (('launch', '*.launch.py'), ('config', '*')):
        names = {f'share/ros_vseg/{folder}/{path.name}' for path in (ROOT / folder).glob(pattern)}
        assert names and names <= data


def test_executables_exist(wheel):
    [entry_points] = [text for name, text in wheel.items() if name.endswith('entry_points.txt')]
    found = dict(re.findall(r'^(\w+) = ([\w.]+:\w+)$', entry_points.decode(), re.MULTILINE))
    assert set(found) == EXECUTABLES
    for target in found.values():
        module, function = target.split(':')
        assert callable(getattr(importlib.import_module(module), function))


def test_colcon_puts_executables_where_ros2_run_looks(sources, tmp_path):
    _python(['setup.py', '--quiet', 'install', '--root', str(tmp_path), '--prefix', '/install',
             '--record', str(tmp_path / 'record')], sources)
    executables = {path.name for path in (tmp_path / 'install/lib/ros_vseg').iterdir()}
    assert executables == EXECUTABLES
    assert (tmp_path / 'install/share/ros_vseg/launch/vseg.launch.py').is_file()


def test_one_version_everywhere(wheel):
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    version = package.find('version').text
    assert package.get('format') == '3'
    assert package.find('name').text == 'ros_vseg'
    assert any(name.startswith(f'ros_vseg-{version}.dist-info/') for name in wheel)
    assert f'\n{version} (' in (ROOT / 'CHANGELOG.rst').read_text()


def _imports(path):
    """Return the top-level names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition('.')[0])
    return names - set(sys.stdlib_module_names) - {'ros_vseg'}


def test_what_is_imported_is_required(wheel):
    [metadata] = [text for name, text in wheel.items() if name.endswith('.dist-info/METADATA')]
    required = set(re.findall(r'^Requires-Dist: ([\w-]+)[^;\n]*$', metadata.decode(), re.M))
    imported = set().union(*map(_imports, (ROOT / 'ros_vseg').rglob('*.py'))) - ROS_MODULES
    optional = {'argcomplete', 'cuda', 'nvtx', 'rerun', 'tensorrt', 'tensorrt_rtx'}
    assert {DISTRIBUTIONS.get(name, name) for name in imported - optional} == required


def test_ros_messages_that_are_imported_are_dependencies():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    declared = {entry.text for entry in package.findall('exec_depend')}
    imported = set().union(*map(_imports, (ROOT / 'ros_vseg').rglob('*.py'))) & ROS_MODULES
    assert imported <= declared


def test_docs_show_the_parameters_as_the_schema_has_them():
    spec = importlib.util.spec_from_file_location('table', ROOT / 'tools/parameter_table.py')
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    page = (ROOT / 'docs/parameters.md').read_text()
    assert '| `max_gap` | number |' in page
    assert table.render(page) == page, 'run python tools/parameter_table.py'


def test_every_source_file_names_its_licence():
    expected = ['# Copyright 2026 The ros_vseg authors', '# SPDX-License-Identifier: Apache-2.0']
    for folder in ('ros_vseg', 'launch', 'test', 'tools', 'training'):
        for path in (ROOT / folder).rglob('*.py'):
            lines = path.read_text().splitlines()
            assert not lines or lines[:2] == expected, path


@pytest.mark.parametrize('distribution, python, fits, not_fits', [
    ('humble', '3.10', '1.26.4', '2.2.6'), ('jazzy', '3.12', '1.26.4', '2.4.0'),
    ('kilted', '3.12', '1.26.4', '2.4.0'), ('lyrical', '3.14', '2.4.0', '1.26.4')])
def test_a_sourced_distribution_gets_the_numpy_of_its_messages(distribution, python, fits,
                                                               not_fits):
    requirements = importlib.import_module('packaging.requirements')
    lines = (ROOT / 'requirements/ros-sourced.txt').read_text().splitlines()
    found = [requirements.Requirement(line) for line in lines if line and line[0] != '#']
    chosen = [each for each in found if each.marker.evaluate({'python_version': python})]
    assert [each.name for each in chosen] == ['numpy']
    assert chosen[0].specifier.contains(fits) and not chosen[0].specifier.contains(not_fits)
    assert distribution.capitalize() in (ROOT / 'README.md').read_text()
