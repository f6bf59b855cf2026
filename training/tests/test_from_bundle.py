# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that start from a bundle compute what it does, or are refused."""
import pytest
from test_networks import SMALL, small
import torch
from torch import nn

from ros_vseg.bundle import BundleInfo, FORMAT_VERSION, write_bundle
from ros_vseg.labels import LabelSet, load_label_set
from vseg_training.export import to_onnx
from vseg_training.from_bundle import initialise_from_bundle
from vseg_training.models.kinds import PER_FRAME
from vseg_training.models.layers import resize


def write(network, path):
    """Write a bundle of five classes; return their names."""
    known = load_label_set('camvid').to_dict()
    labels = LabelSet.from_dict({**known, 'classes': known['classes'][:5]}, 'five')
    write_bundle(to_onnx(network, (64, 96)), BundleInfo(
        name='x', label_set=labels, height=64, width=96, color_order='rgb',
        output_stride=network.output_stride, num_prototypes=0, channels=0, pool_frames=0,
        prototype_dim=0, trained_on={}, metrics={}, license='', format_version=FORMAT_VERSION),
        path)
    return labels.names


# slopes and transposed convolutions; batch norms of joined maps; those before convolutions
@pytest.mark.parametrize('kind', ['nfs', 'espnet', 'mobilenetv2plus'])
def test_networks_of_other_layers_start_from_their_bundles(tmp_path, kind):
    network = small(kind)
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0, 0.6)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.2, 0.2)
    names = write(network, tmp_path / 'b.onnx')
    torch.manual_seed(5)
    other = PER_FRAME[kind](5, **SMALL[kind])
    images = resize(255 * torch.rand(2, 3, 6, 8), (96, 128)).to(torch.uint8)
    initialise_from_bundle(other, tmp_path / 'b.onnx', names, images)
    with torch.no_grad():
        expected, got = (each.eval()(images[:, None])['scores'] for each in (network, other))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_parts_that_no_bundle_can_start_are_refused(tmp_path):
    network = small('espnet_c')
    names = write(network, tmp_path / 'b.onnx')
    images = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    network.backbone.join_3[0] = nn.BatchNorm2d(8)
    with pytest.raises(ValueError, match='fit backbone.join_3.0, a BatchNorm2d: give a check'):
        initialise_from_bundle(network, tmp_path / 'b.onnx', names, images)
    network.head.dropout = nn.LayerNorm(3)
    with pytest.raises(ValueError, match='fit head.dropout, a LayerNorm: give a checkpoint'):
        initialise_from_bundle(network, tmp_path / 'b.onnx', names, images)
