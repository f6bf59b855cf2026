# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The parameter file, its schema and the declared parameters say the same."""
import json
from pathlib import Path
import re

import jsonschema
import pytest
import rclpy
import yaml

from ros_vseg.nodes import parameters

CONFIG = Path(__file__).parents[1] / 'config'
TEXT = (CONFIG / 'vseg.yaml').read_text()
SCHEMA = json.loads((CONFIG / 'vseg.schema.json').read_text())
NODE = SCHEMA['properties']['/**']['properties']['ros__parameters']
PROPERTIES, OF_CAMERA = NODE['properties'], NODE['additionalProperties']['properties']
JSON_TYPES = {bool: 'boolean', int: 'integer', float: 'number', str: 'string', tuple: 'array'}
NAMES = [parameter.name for parameter in parameters.VSEG_NODE]
CAMERA_NAMES = [parameter.name for parameter in parameters.CAMERA]
ENTRIES = {**{name: PROPERTIES.get(name) for name in NAMES},
           **{f'camera.{name}': OF_CAMERA.get(name) for name in CAMERA_NAMES}}


@pytest.fixture(scope='module')
def declared():
    """Return {name: (value, ParameterDescriptor)} as a real node declares the table."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('declares', context=context)
    parameters.declare_vseg_node(node)
    yield {name: (parameters.value(node, name), node.describe_parameter(name))
           for name in ENTRIES}
    node.destroy_node()
    rclpy.shutdown(context=context)


def values():
    return yaml.safe_load(TEXT)['/**']['ros__parameters']


def test_yaml_is_valid_and_holds_every_default():
    jsonschema.validate(yaml.safe_load(TEXT), SCHEMA)
    defaults = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default
                for p in parameters.VSEG_NODE}
    assert values() == defaults


def test_yaml_explains_every_parameter():
    for name in NAMES:
        assert re.search(rf'^    # [A-Z].*\n(    # .*\n)*    {name}:', TEXT, re.MULTILINE), name


@pytest.mark.parametrize('name, value', [
    ('overlay_alpha', 1.5), ('threads', -1), ('backend', 'cuda'), ('cameras', []),
    ('cameras', ['a', 'a']), ('cameras', ['a camera']), ('max_gap', '1 s'), ('max_gapp', 1.0),
    ('front', {'max_rate': -1.0}), ('front', {'transport': 'tcp'}), ('front', {'rate': 1.0}),
    ('masks', {'people': 'pedestrian'}), ('masks', {'a mask': ['car']}),
    ('probabilities', ['road', 'road'])])
def test_schema_refuses(name, value):
    tree = {'/**': {'ros__parameters': {**values(), name: value}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, SCHEMA)


@pytest.mark.parametrize('name, value', [
    ('front', {'priority': 2.0, 'max_rate': 10.0, 'transport': 'raw'}),
    ('masks', {'people': ['pedestrian', 'bicyclist']}), ('probabilities', ['road'])])
def test_schema_accepts(name, value):
    jsonschema.validate({'/**': {'ros__parameters': {**values(), name: value}}}, SCHEMA)


@pytest.mark.parametrize('name', ENTRIES)
def test_schema_is_what_the_node_declares(declared, name):
    value, descriptor = declared[name]
    entry = ENTRIES[name]
    default = next(p.default for p in (*parameters.VSEG_NODE, *parameters.CAMERA)
                   if p.name == name.removeprefix('camera.'))
    assert entry['description'] == descriptor.description
    assert entry['type'] == JSON_TYPES[type(default)]
    assert entry['default'] == (list(value) if isinstance(default, tuple) else value)
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    declared_range = [(r.from_value, r.to_value) for r in ranges]
    in_schema = [(entry['minimum'], entry['maximum'])] if 'minimum' in entry else []
    assert in_schema == declared_range
    choices = f'one of {", ".join(entry["enum"])}' if 'enum' in entry else None
    assert choices in (None, descriptor.additional_constraints)


def test_schema_knows_no_other_parameter():
    assert set(PROPERTIES) == {*NAMES, 'masks', 'use_sim_time', 'qos_overrides'}
    assert list(OF_CAMERA) == CAMERA_NAMES


def test_fast_dds_profile_is_named_in_both_dialects():
    text = (CONFIG / 'fastdds.xml').read_text()
    assert int(re.search(r'<segment_size>(\d+)<', text)[1]) == 64 * 2**20
    assert '<useBuiltinTransports>false</useBuiltinTransports>' in text


@pytest.mark.parametrize('name, topics', [
    ('vseg', ['/vseg_node/camera/overlay', '/vseg_node/camera/color', '/camera/image']),
    ('vseg_cameras', [f'/vseg_node/{each}/overlay' for each in ('front', 'rear', 'left', 'right')])
])
def test_rviz_shows_topics_of_the_node(name, topics):
    config = yaml.safe_load((CONFIG / f'{name}.rviz').read_text())
    displays = config['Visualization Manager']['Displays']
    assert [display['Topic']['Value'] for display in displays] == topics
    names = {display['Name'] for display in displays}
    assert len(names) == len(displays) and names <= set(config['Window Geometry'])
    assert config['Panels'][1]['SyncSource'] in names
