# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The examples name topics and classes that there are."""
import json
from pathlib import Path

from ros_helpers import start
import yaml

from ros_vseg.labels import load_label_set, remap_table

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = {'label', 'color', 'overlay', 'confidence', 'camera_info'}


def test_nav2_layer_reads_what_the_node_publishes_and_knows_every_class(student):
    parameters = yaml.safe_load((ROOT / 'examples/nav2/semantic_layer.yaml').read_text())
    layer = parameters['local_costmap']['local_costmap']['ros__parameters']['semantic_layer']
    source = layer[layer['observation_sources']]
    for key in ('segmentation_topic', 'confidence_topic'):
        node, camera, output = source[key].strip('/').split('/')
        assert (node, camera) == ('vseg_node', 'camera') and output in OUTPUTS
    assert source['labels_topic'] == '/vseg_node/label_info'
    classes = [name for kind in source['class_types'] for name in source[kind]['classes']]
    assert sorted(classes) == sorted(student.info.label_set.names)


def test_foxglove_layout_shows_the_nodes_topics():
    layout = json.loads((ROOT / 'examples/foxglove/layout.json').read_text())
    panels = layout['configById']
    topics = [panel['imageMode']['imageTopic'] for panel in panels.values()
              if 'imageMode' in panel]
    assert topics and all(topic.rpartition('/')[2] in OUTPUTS for topic in topics)

    def leaves(part):
        return leaves(part['first']) + leaves(part['second']) if isinstance(part, dict) else [part]
    assert sorted(leaves(layout['layout'])) == sorted(panels)


# in the order of segmentation_pointcloud_fusion's list, which gives them their ids
AUTOWARE = ('UNKNOWN', 'BUILDING', 'WALL', 'OBSTACLE', 'TRAFFIC_LIGHT', 'TRAFFIC_SIGN', 'PERSON',
            'VEHICLE', 'BIKE', 'ROAD', 'SIDEWALK', 'ROAD_PAINT', 'CURBSTONE', 'CROSSWALK',
            'VEGETATION', 'SKY')


def test_autowares_ids_are_made_of_the_students_classes(student):
    folder = ROOT / 'examples/autoware'
    label_set, own = load_label_set(folder / 'label_set.yaml'), student.info.label_set
    assert label_set.names == AUTOWARE and label_set.void_id >= len(AUTOWARE)
    table = remap_table(own, label_set)
    made = {name: AUTOWARE[table[index]] for index, name in enumerate(own.names)}
    assert made['pedestrian'] == 'PERSON' and made['tree'] == 'VEGETATION'
    tree = yaml.safe_load((folder / 'segmentation_pointcloud_fusion.param.yaml').read_text())
    targets = tree['/**']['ros__parameters']['filter_semantic_label_target']
    assert tuple(targets) == AUTOWARE and not targets['PERSON']


def test_the_node_takes_the_examples_parameters(bundle, probe, tmp_path):
    """As the READMEs start it, and with the topics that they name."""
    parameters, labels = (ROOT / 'examples' / name for name in (
        'nvblox/vseg.yaml', 'autoware/label_set.yaml'))
    for name, more, topics in (
            ('nvblox', ['--params-file', parameters], ('mask/people', 'camera_info')),
            ('autoware', ['-p', f'label_set:={labels}'], ('label/runs',))):
        arguments = [*map(str, more), '-r', f'__node:={name}']
        with start('vseg_node', tmp_path / name, *arguments, bundle=bundle) as node:
            def offered():
                node.check_alive()
                return all(probe.node.count_publishers(f'/{name}/camera/{topic}')
                           for topic in topics)
            probe.wait(offered, f'topics of {name}')
        readme = (ROOT / f'examples/{name}/README.md').read_text()
        assert all(f'/vseg_node/camera/{topic}' in readme for topic in topics)
