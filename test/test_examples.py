# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The examples name topics and classes that there are."""
import json
from pathlib import Path

import yaml

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
