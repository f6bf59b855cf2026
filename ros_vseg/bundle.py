# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The bundle: one ONNX file that cannot be separated from what it means."""
from dataclasses import dataclass, field, replace
import hashlib
import json
import math
from pathlib import Path
from typing import Any, Optional

import jsonschema
import onnx

from ros_vseg.errors import BundleError, LabelSetError
from ros_vseg.files import write_whole
from ros_vseg.labels import LabelSet

FORMAT_VERSION = 2
KEY, HASH_KEY = 'vseg', 'vseg_sha256'  # names of ONNX metadata properties
DEEPEST = 50    # levels of lists and objects in the metadata
EMPTY_SLOT = -1e4  # pool_mask of a slot without prototypes; finite in float16
SCHEMA = json.loads((Path(__file__).parent / 'bundle.schema.json').read_text(encoding='utf-8'))


@dataclass(frozen=True)
class BundleInfo:
    """
    What a bundle says of itself.

    height, width: the network's input in pixels. output_stride: input pixels per score. N
    prototypes per frame of C channels; the pool holds T frames; D floats are stored per
    prototype (its key and value); all four are 0 for a network without prototypes. trained_on,
    metrics: free-form, shown by ``vseg info``. rates: lowest and highest camera rate in Hz that
    the network was trained for. temperature: by which its scores were divided in calibration,
    which its last convolution has in it already. has_confidence: whether the graph has the output
    ``confidence``; known from the graph, not from the metadata.
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
    rates: Optional[tuple[float, float]] = None
    temperature: Optional[float] = None
    has_confidence: bool = False

    def to_dict(self):
        """Return the metadata as ``bundle.schema.json`` describes it."""
        prototypes = {'N': self.num_prototypes, 'C': self.channels, 'T': self.pool_frames,
                      'D': self.prototype_dim}
        tree = {
            'format_version': self.format_version, 'name': self.name,
            'label_set': self.label_set.to_dict(),
            'input': {'height': self.height, 'width': self.width,
                      'color_order': self.color_order},
            'output_stride': self.output_stride,
            'prototypes': prototypes if any(prototypes.values()) else None,
            'rates': self.rates and {'min': self.rates[0], 'max': self.rates[1]},
            'temperature': self.temperature,
            'trained_on': self.trained_on, 'metrics': self.metrics, 'license': self.license}
        optional = ('prototypes', 'rates', 'temperature')
        return {key: value for key, value in tree.items()
                if value is not None or key not in optional}

    @classmethod
    def from_dict(cls, tree, where='bundle'):
        """Read metadata; BundleError names the key that is wrong or a newer format."""
        version = tree.get('format_version') if isinstance(tree, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise BundleError(f'{where} has format {version}, but this ros_vseg reads up to '
                              f'{FORMAT_VERSION}: update ros_vseg')
        try:
            _check_values(tree)
            jsonschema.validate(tree, SCHEMA)
            label_set = LabelSet.from_dict(tree['label_set'], 'its label set')
        except LabelSetError as error:
            raise BundleError(f'{where} has a wrong label set: {error}; export it again') from None
        except jsonschema.ValidationError as error:
            key = '.'.join(str(part) for part in error.absolute_path) or 'metadata'
            raise BundleError(f'{where} has wrong metadata at {key}: {error.message}; '
                              'export it again') from None
        except ValueError as error:
            raise BundleError(f'{where} has wrong metadata: {error}; export it again') from None
        size, counts, rates = tree['input'], tree.get('prototypes', {}), tree.get('rates')
        if rates and rates['min'] > rates['max']:
            raise BundleError(f'{where} has wrong metadata at rates: min {rates["min"]} is above '
                              f'max {rates["max"]}; export it again')
        temperature = tree.get('temperature')
        return cls(
            tree['name'], label_set, int(size['height']), int(size['width']),
            size['color_order'], int(tree['output_stride']),
            *(int(counts.get(key, 0)) for key in 'NCTD'), tree['trained_on'], tree['metrics'],
            tree['license'], int(version),
            rates and (float(rates['min']), float(rates['max'])),
            None if temperature is None else float(temperature))

    def shapes(self):
        """Shapes of the graph's inputs and outputs for one image, by name."""
        slots = self.pool_frames * self.num_prototypes
        scores = [1, len(self.label_set.names), -(-self.height // self.output_stride),
                  -(-self.width // self.output_stride)]
        shapes = {'image': [1, self.height, self.width, 3], 'scores': scores}
        if self.num_prototypes:
            shapes['prototypes'] = [1, self.num_prototypes, self.prototype_dim]
        if slots:
            shapes['pool'], shapes['pool_mask'] = [1, slots, self.prototype_dim], [1, slots]
        if self.has_confidence:
            shapes['confidence'] = [1]
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

    @property
    def has_confidence(self) -> bool:
        """Whether the graph gives the frame's mean confidence."""
        return self.info.has_confidence

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
        info = _read_info(model, str(path))
        _check_graph(model, info, path)
        return cls(path, info, data, hashlib.sha256(data).hexdigest())


def _read_info(model: onnx.ModelProto, where: str) -> BundleInfo:
    """Read the metadata of a graph; BundleError if it is not there, not whole or wrong."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in properties:
        raise BundleError(f'{where} is an ONNX file, but no bundle: it has no {KEY!r} '
                          'metadata; export it by vseg-train export')
    stated = properties.get(HASH_KEY)
    if stated and stated != _digest(model):
        raise BundleError(f'{where} is damaged: its content is not what was written; copy or '
                          'export it again')
    try:
        tree = json.loads(properties[KEY])
    except RecursionError:
        raise BundleError(f'{where} has metadata that is nested too deeply: export it '
                          'again') from None
    except ValueError as error:     # also a number of thousands of digits
        raise BundleError(f'{where} has metadata that is not JSON: export it again') from error
    info = BundleInfo.from_dict(tree, where)
    if info.format_version > 1 and not stated:
        raise BundleError(f'{where} has no {HASH_KEY!r} metadata, which format '
                          f'{info.format_version} needs: export it again')
    return _with_outputs(info, model)


def _with_outputs(info: BundleInfo, model: onnx.ModelProto) -> BundleInfo:
    """Return the metadata with what the graph decides: its optional outputs (from format 2 on)."""
    found = any(entry.name == 'confidence' for entry in model.graph.output)
    return replace(info, has_confidence=found and info.format_version > 1)


def _digest(model: onnx.ModelProto) -> str:
    """SHA-256 in hex of the serialised graph without the property that states it."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    forget_hash(bare)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def forget_hash(model: onnx.ModelProto) -> None:
    """Take the SHA-256 out of a graph, in place: for a graph that is edited."""
    kept = [entry for entry in model.metadata_props if entry.key != HASH_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def _check_values(value: Any, levels: int = DEEPEST) -> None:
    """Raise ValueError for numbers that are not finite or too large, and for deep nesting."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{value} is not a finite number')
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError('a whole number has more than 64 bits')
    if isinstance(value, (dict, list, tuple)):
        if not levels:
            raise ValueError(f'it is nested more than {DEEPEST} levels deep')
        for part in value.values() if isinstance(value, dict) else value:
            _check_values(part, levels - 1)


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
        if len(dims) != len(shape) or dims[1:] != shape[1:] or not (
                dims[0] == 1 or isinstance(dims[0], str)):
            raise BundleError(f'{path}: {name} is {dims} in the graph, but {shape} by the '
                              'metadata: export it again')
        kind = onnx.TensorProto.UINT8 if name == 'image' else onnx.TensorProto.FLOAT
        if found[name].elem_type != kind:
            raise BundleError(f'{path}: {name} is not {onnx.TensorProto.DataType.Name(kind)} in '
                              'the graph: export it again')


def write_bundle(model, info, path):
    """
    Write an onnx.ModelProto with its metadata as a bundle, whole or not at all.

    From format 2 on its SHA-256 is a property of its own. BundleError if the graph does not fit
    the metadata, or the file cannot be written.
    """
    tree = info.to_dict()
    BundleInfo.from_dict(tree, 'new bundle')
    _check_graph(model, _with_outputs(info, model), path)
    properties = {KEY: json.dumps(tree)}
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    if info.format_version > 1:
        onnx.helper.set_model_props(model, {**properties, HASH_KEY: _digest(model)})
    path = Path(path)
    try:
        write_whole(path, model.SerializeToString())
    except OSError as error:
        raise BundleError(f'bundle {path} cannot be written ({error.strerror}): free some space '
                          'or choose another output') from error


def default_bundle_path():
    """Path of the student that comes with the package."""
    return Path(__file__).parent / 'models' / 'default.onnx'
