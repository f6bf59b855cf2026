# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Both formats of a bundle are read, and the newer one tells by its hash when it is damaged."""
import hashlib
import json

import numpy as np
import onnx
import pytest
from tiny_bundle import info, PLAIN, write_tiny_bundle

from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.errors import BundleError


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny.onnx')


def refusal(path):
    """Return the message with which a file is refused; it must name the file."""
    with pytest.raises(BundleError) as error:
        Bundle.load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def format_1(path, **changes):
    return write_tiny_bundle(path, format_version=1, **changes)


def test_format_1_is_read_as_ever(tmp_path):
    path = format_1(tmp_path / 'b.onnx')
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert set(properties) == {'vseg'} and json.loads(properties['vseg'])['format_version'] == 1
    bundle = Bundle.load(path)
    assert bundle.info == info(format_version=1) and not bundle.has_confidence


def test_what_format_1_does_not_have(tmp_path):
    with pytest.raises(BundleError, match="'prototypes' is a required property"):
        format_1(tmp_path / 'b.onnx', **PLAIN)
    with pytest.raises(BundleError, match='graph and metadata differ in confidence'):
        format_1(tmp_path / 'b.onnx', has_confidence=True)


def test_shipped_student_says_all_that_format_2_knows():
    bundle = Bundle.load(default_bundle_path())
    assert bundle.info.format_version == 2 and bundle.info.num_prototypes == 32
    assert bundle.has_confidence and bundle.info.rates == (5, 60) and bundle.info.temperature > 0


def test_format_2_states_its_hash(tmp_path, path):
    model = onnx.load(path)
    stated, = [p.value for p in model.metadata_props if p.key == 'vseg_sha256']
    onnx.helper.set_model_props(
        model, {p.key: p.value for p in model.metadata_props if p.key == 'vseg'})
    data = model.SerializeToString(deterministic=True)
    assert stated == hashlib.sha256(data).hexdigest()
    bare = tmp_path / 'bare.onnx'
    bare.write_bytes(data)
    assert "has no 'vseg_sha256' metadata, which format 2 needs" in refusal(bare)


def test_any_flipped_bit_of_the_weights_is_found(tmp_path, path):
    data, model = path.read_bytes(), onnx.load(path)
    places = []
    for tensor in model.graph.initializer:
        assert data.count(tensor.raw_data) == 1 or len(tensor.raw_data) < 64
        if len(tensor.raw_data) >= 64:
            start = data.index(tensor.raw_data)
            places += range(start, start + len(tensor.raw_data))
    assert len(places) > 6000
    rng, damaged = np.random.default_rng(0), tmp_path / 'damaged.onnx'
    for place in rng.choice(places, 60, replace=False):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.write_bytes(flipped)
        assert 'is damaged: its content is not what was written' in refusal(damaged)
    damaged.write_bytes(data)
    assert Bundle.load(damaged).info == info()


def test_any_flipped_bit_of_the_file_is_found_or_harmless(tmp_path, path):
    """Protobuf knows several ways to write some things: those load as what was written."""
    data, damaged = path.read_bytes(), tmp_path / 'damaged.onnx'
    rng, found = np.random.default_rng(1), 0
    for place in rng.choice(len(data), 100, replace=False):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.write_bytes(flipped)
        try:
            assert Bundle.load(damaged).info == info()
        except BundleError as error:
            assert str(damaged) in str(error)
            found += 1
    assert found >= 98
