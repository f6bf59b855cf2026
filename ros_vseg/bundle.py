# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The bundle: one ONNX file that cannot be separated from what it means."""
from dataclasses import dataclass, field
import hashlib
import json
from pathlib import Path

import jsonschema
import onnx

from ros_vseg.errors import BundleError, LabelSetError
from ros_vseg.files import write_whole
from ros_vseg.labels import LabelSet

FORMAT_VERSION = 1
KEY = 'vseg'  # name of the ONNX metadata property
EMPTY_SLOT = -1e4  # pool_mask of a slot without prototypes; finite in float16
SCHEMA = json.loads((Path(__file__).parent / 'bundle.schema.json').read_text(encoding='utf-8'))


@dataclass(frozen=True)
class BundleInfo:
    """
    What a bundle says of itself.

    height, width: the network's input in pixels. output_stride: input pixels per score. N
    prototypes per frame of C channels; the pool holds T frames; D floats are stored per
    prototype (its key and value). trained_on, metrics: free-form, shown by ``vseg info``.
    """

    name: str
    label_set: LabelSet
    height: int
    width: int
    color_order: str
    output_stride: int
    num_prototypes: int
    channels: int
    pool_frames: int
    prototype_dim: int
    trained_on: dict
    metrics: dict
    license: str  # noqa: A003
    format_version: int = FORMAT_VERSION

    def to_dict(self):
        """Return the metadata as ``bundle.schema.json`` describes it."""
        return {
            'format_version': self.format_version, 'name': self.name,
            'label_set': self.label_set.to_dict(),
            'input': {'height': self.height, 'width': self.width,
                      'color_order': self.color_order},
            'output_stride': self.output_stride,
            'prototypes': {'N': self.num_prototypes, 'C': self.channels,
                           'T': self.pool_frames, 'D': self.prototype_dim},
            'trained_on': self.trained_on, 'metrics': self.metrics, 'license': self.license}

    @classmethod
    def from_dict(cls, tree, where='bundle'):
        """Read metadata; BundleError names the key that is wrong or a newer format."""
        version = tree.get('format_version') if isinstance(tree, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise BundleError(f'{where} has format {version}, but this ros_vseg reads up to '
                              f'{FORMAT_VERSION}: update ros_vseg')
        try:
            jsonschema.validate(tree, SCHEMA)
            label_set = LabelSet.from_dict(tree['label_set'], 'its label set')
        except LabelSetError as error:
            raise BundleError(f'{where} has a wrong label set: {error}; export it again') from None
        except jsonschema.ValidationError as error:
            key = '.'.join(str(part) for part in error.absolute_path) or 'metadata'
            raise BundleError(f'{where} has wrong metadata at {key}: {error.message}; '
                              'export it again') from None
        size, prototypes = tree['input'], tree['prototypes']
        return cls(
            tree['name'], label_set, size['height'], size['width'], size['color_order'],
            tree['output_stride'], prototypes['N'], prototypes['C'], prototypes['T'],
            prototypes['D'], tree['trained_on'], tree['metrics'], tree['license'], version)

    def shapes(self):
        """Shapes of the graph's inputs and outputs for one image, by name."""
        slots = self.pool_frames * self.num_prototypes
        scores = [1, len(self.label_set.names), -(-self.height // self.output_stride),
                  -(-self.width // self.output_stride)]
        shapes = {'image': [1, self.height, self.width, 3], 'scores': scores,
                  'prototypes': [1, self.num_prototypes, self.prototype_dim]}
        if slots:
            shapes['pool'], shapes['pool_mask'] = [1, slots, self.prototype_dim], [1, slots]
        return shapes


@dataclass(frozen=True)
class Bundle:
    """A bundle that was loaded and found whole: its file, metadata, graph and hash."""

    path: Path
    info: BundleInfo
    model: bytes = field(repr=False)
    sha256: str

    @property
    def num_classes(self):
        """Number of classes K."""
        return len(self.info.label_set.names)

    @classmethod
    def load(cls, path):
        """Read and check a bundle; BundleError names what is wrong with the file."""
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f'bundle {path} cannot be read ({error.strerror}): give the .onnx '
                              'file that vseg-train export wrote') from error
        try:
            model = onnx.load_model_from_string(data)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf and the checker have no common base
            raise BundleError(f'{path} is no ONNX file, or is damaged or truncated '
                              f'({len(data)} bytes): copy or export it again') from error
        properties = {entry.key: entry.value for entry in model.metadata_props}
        if KEY not in properties:
            raise BundleError(f'{path} is an ONNX file, but no bundle: it has no {KEY!r} '
                              'metadata; export it by vseg-train export')
        try:
            tree = json.loads(properties[KEY])
        except json.JSONDecodeError as error:
            raise BundleError(f'{path} has metadata that is not JSON: export it again') from error
        info = BundleInfo.from_dict(tree, str(path))
        _check_graph(model, info, path)
        return cls(path, info, data, hashlib.sha256(data).hexdigest())


def _check_graph(model, info, path):
    """Raise BundleError if inputs or outputs are not what the metadata says."""
    expected = info.shapes()
    found = {value.name: value.type.tensor_type
             for value in [*model.graph.input, *model.graph.output]}
    differing = sorted(set(expected) ^ set(found))
    if differing:
        raise BundleError(f'{path}: graph and metadata differ in {", ".join(differing)}: '
                          'export it again')
    for name, shape in expected.items():
        dims = [dim.dim_value or dim.dim_param for dim in found[name].shape.dim]
        if dims[1:] != shape[1:] or not (dims[0] == 1 or isinstance(dims[0], str)):
            raise BundleError(f'{path}: {name} is {dims} in the graph, but {shape} by the '
                              'metadata: export it again')
        kind = onnx.TensorProto.UINT8 if name == 'image' else onnx.TensorProto.FLOAT
        if found[name].elem_type != kind:
            raise BundleError(f'{path}: {name} is not {onnx.TensorProto.DataType.Name(kind)} in '
                              'the graph: export it again')


def write_bundle(model, info, path):
    """
    Write an onnx.ModelProto with its metadata as a bundle, whole or not at all.

    BundleError if the graph does not fit the metadata, or the file cannot be written.
    """
    tree = info.to_dict()
    BundleInfo.from_dict(tree, 'new bundle')
    _check_graph(model, info, path)
    onnx.helper.set_model_props(model, {KEY: json.dumps(tree)})
    onnx.checker.check_model(model)
    path = Path(path)
    try:
        write_whole(path, model.SerializeToString())
    except OSError as error:
        raise BundleError(f'bundle {path} cannot be written ({error.strerror}): free some space '
                          'or choose another output') from error


def default_bundle_path():
    """Path of the student that comes with the package."""
    return Path(__file__).parent / 'models' / 'default.onnx'
