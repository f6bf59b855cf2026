# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What docker/ and docs/jetson.md name exists: neither can be tried without the machines."""
import argparse
import ast
from importlib import import_module
import json
from pathlib import Path
import re
import shlex
import subprocess

import pytest

from ros_vseg.bench import table as bench
from ros_vseg.commands.cli import build_parser
from ros_vseg.nodes.parameters import VSEG_NODE

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / 'docs/jetson.md').read_text()
DOCKERFILES = sorted((ROOT / 'docker').glob('Dockerfile.*'))


def instructions(path):
    """Return the instructions of a Dockerfile as lists of words."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
    text = '\n'.join(lines).replace('\\\n', ' ')
    return [line.split() for line in text.splitlines() if line.strip()]


def commands(first):
    """Return the guide's commands that start with a word, from code blocks and from prose."""
    blocks = re.findall(r'^```bash\n(.*?)^```', GUIDE, re.M | re.S)
    prose = re.sub(r'^```.*?^```|``.*?``', '', GUIDE, flags=re.M | re.S)
    lines = [line for block in blocks for line in re.split(r'\n|&&|;', block)]
    lines += [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', prose)]
    found = [line.strip() for line in lines if line.strip().startswith(first + ' ')]
    return sorted({' '.join(shlex.split(line, comments=True)) for line in found})


def messages():
    """Return every string in the package, with an ellipsis where a value goes in."""
    found = set()
    for path in (ROOT / 'ros_vseg').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add(''.join(
                    part.value if isinstance(part, ast.Constant) else '…' for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return {re.sub('…+', '…', text) for text in found}


def extra(name):
    """Return the package names of an extra in setup.py."""
    for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text())):
        if isinstance(node, ast.keyword) and node.arg == 'extras_require':
            return {re.match(r'[\w-]+', each)[0] for each in ast.literal_eval(node.value)[name]}
    raise AssertionError('setup.py has no extras_require')


def test_there_are_three_dockerfiles():
    assert [path.suffix for path in DOCKERFILES] == ['.desktop', '.jetson', '.jetson7']


@pytest.mark.parametrize('name, ros, ubuntu, cuda', [
    ('jetson', 'humble', 'jammy', 12), ('jetson7', 'jazzy', 'noble', 13)])
def test_a_jetpack_s_image_has_the_ros_and_cuda_that_belong_to_it(name, ros, ubuntu, cuda):
    path = ROOT / f'docker/Dockerfile.{name}'
    text, words = path.read_text(), sum(instructions(path), [])
    assert f'ROS_DISTRO={ros}' in words and f"'cuda-bindings=={cuda}.*'" in words
    assert f'.{ubuntu}_all.deb' in text and f'docker/Dockerfile.{name} ' in text
    assert f'docker/Dockerfile.{name}`' in GUIDE


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists(path):
    copies = [words[1:] for words in instructions(path) if words[0] == 'COPY']
    sources = {source for words in copies for source in words[:-1]}
    assert {'setup.py', 'package.xml', 'ros_vseg', 'docker/entrypoint.sh'} <= sources
    assert {source for source in sources if not (ROOT / source).exists()} == set()


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_what_setup_py_reads_is_copied(path):
    copied = {word for words in instructions(path) if words[0] == 'COPY' for word in words}
    assert {'setup.cfg', 'pyproject.toml', 'README.md', 'resource', 'config', 'launch'} <= copied


def test_the_desktop_image_installs_the_extra_and_names_nothing_twice():
    words = [word for line in instructions(ROOT / 'docker/Dockerfile.desktop') for word in line]
    names = extra('gpu')
    assert any(word.strip("'").endswith('[gpu]') for word in words)
    assert names == {'cuda-bindings', 'nvidia-cuda-nvrtc', 'tensorrt-rtx-cu13'}
    assert not [word for word in words if any(name in word for name in names)]


def test_what_messages_tell_to_install_is_in_the_extra():
    modules = import_module('ros_vseg.engines.build').MODULES
    package = import_module('ros_vseg.backends').BACKENDS['tensorrt'][1]
    assert {modules['tensorrt_rtx'], package} <= extra('gpu')


def test_entrypoint_is_shell():
    subprocess.run(['bash', '-n', str(ROOT / 'docker/entrypoint.sh')], check=True)


@pytest.mark.parametrize('command', commands('vseg'))
def test_guide_names_commands_of_vseg(command):
    parser, words = build_parser(), command.split()[1:]
    [known] = [action.choices for action in parser._actions
               if isinstance(action, argparse._SubParsersAction)]
    assert words[0] in known
    options = parser.parse_args(words)
    figures = {*bench.NAMES, *bench.ON_GPU, *bench.ON_REQUEST}
    assert words[0] != 'bench' or set(options.names) <= figures


def test_guide_names_the_main_commands():
    used = {command.split()[1] for command in commands('vseg')}
    assert {'build', 'run', 'doctor', 'bench'} <= used


@pytest.mark.parametrize('command', commands('ros2 launch'))
def test_guide_names_launch_files_and_their_arguments(command):
    words = command.split()[2:]
    assert words[0] == 'ros_vseg'
    [table] = [node.value for node in ast.parse((ROOT / 'launch' / words[1]).read_text()).body
               if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'ARGUMENTS']
    declared = {entry.elts[0].value for entry in table.elts if isinstance(entry, ast.Tuple)}
    declared |= {parameter.name for parameter in VSEG_NODE}     # the starred ones
    assert {word.partition(':=')[0] for word in words[2:]} <= declared


def test_guide_names_parameters_that_exist():
    schema = json.loads((ROOT / 'config/vseg.schema.json').read_text())
    text = json.dumps(schema)
    used = set(re.findall(r'`(\w+): (?:true|false)`', GUIDE))
    block = re.search(r'^```yaml\n(.*?)^```', GUIDE, re.M | re.S)[1]
    used |= set(re.findall(r'^ {4}(\w+):', block, re.M))
    assert {'build', 'engines', 'fallback'} <= used
    assert {name for name in used if f'"{name}": {{' not in text} == set()


def test_guide_quotes_messages_as_the_code_has_them():
    table = GUIDE.partition('| it says | so |')[2].partition('\n\n')[0]
    quoted = [row.split(' | ')[0].strip('|` ') for row in table.splitlines()[2:]]
    known = messages()
    assert len(quoted) > 10
    assert [text for text in quoted if not any(text in each for each in known)] == []
