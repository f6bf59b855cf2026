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

from ros_vseg.depth import DepthRange
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

    Attributes:
        name: of the network, for people.
        label_set: its K classes.
        height: of the network's input in pixels.
        width: of the network's input in pixels.
        color_order: of the network's input, 'rgb' or 'bgr'.
        output_stride: input pixels per score along an axis.
        num_prototypes: N, prototypes per frame; this and the next three are 0 for a network
            without prototypes.
        channels: C of a prototype.
        pool_frames: T, frames that the pool holds.
        prototype_dim: D, floats stored per prototype: its key and value.
        trained_on: free-form, shown by ``vseg info``.
        metrics: free-form, shown by ``vseg info``.
        license: of the weights.
        format_version: of the file, 1 or 2.
        rates: lowest and highest camera rate in Hz that the network was trained for.
        temperature: by which its scores were divided in calibration; it is in the weights of its
            last convolution already.
        depth: what the graph's output ``depth`` means, None without one.
        has_confidence: whether the graph has the output ``confidence``; known from the graph, not
            from the metadata.
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
    trained_on: dict[str, Any]
    metrics: dict[str, Any]
    license: str  # noqa: A003
    format_version: int = FORMAT_VERSION
    rates: Optional[tuple[float, float]] = None
    temperature: Optional[float] = None
    depth: Optional[DepthRange] = None
    has_confidence: bool = False

    def to_dict(self) -> dict[str, Any]:
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
            'depth': self.depth and self.depth._asdict(),
            'trained_on': self.trained_on, 'metrics': self.metrics, 'license': self.license}
        optional = ('prototypes', 'rates', 'temperature', 'depth')
        return {key: value for key, value in tree.items()
                if value is not None or key not in optional}

    @classmethod
    def from_dict(cls, tree: Any, where: str = 'bundle') -> 'BundleInfo':
        """Read metadata; BundleError names the key that is wrong, or a format too new."""
        label_set = _check_metadata(tree, where)
        size, rates, temperature = tree['input'], tree.get('rates'), tree.get('temperature')
        depth = tree.get('depth')
        counts = tree.get('prototypes', dict.fromkeys('NCTD', 0))
        return cls(
            name=tree['name'], label_set=label_set, height=int(size['height']),
            width=int(size['width']), color_order=size['color_order'],
            output_stride=int(tree['output_stride']), num_prototypes=int(counts['N']),
            channels=int(counts['C']), pool_frames=int(counts['T']),
            prototype_dim=int(counts['D']), trained_on=tree['trained_on'],
            metrics=tree['metrics'], license=tree['license'],
            format_version=int(tree['format_version']),
            rates=(float(rates['min']), float(rates['max'])) if rates else None,
            temperature=None if temperature is None else float(temperature),
            depth=DepthRange(**{key: float(depth[key]) for key in DepthRange._fields})
            if depth else None)

    def shapes(self) -> dict[str, list[int]]:
        """Return the shapes of the graph's inputs and outputs for one image, by name."""
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
        if self.depth:
            shapes['depth'] = [1, *scores[2:]]
        return shapes


@dataclass(frozen=True)
class Bundle:
    """
    A bundle that was loaded and found whole.

    >>> from ros_vseg.bundle import Bundle, default_bundle_path
    >>> bundle = Bundle.load(default_bundle_path())
    >>> bundle.num_classes, bundle.info.label_set.names[3]
    (11, 'road')

    Attributes:
        path: its file.
        info: its metadata.
        model: its graph, a serialised onnx.ModelProto.
        sha256: of ``model``, in hex.
    """

    path: Path
    info: BundleInfo
    model: bytes = field(repr=False)
    sha256: str

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.info.label_set.names)

    @property
    def has_confidence(self) -> bool:
        """Whether the graph gives the frame's mean confidence."""
        return self.info.has_confidence

    @classmethod
    def load(cls, path: str | Path) -> 'Bundle':
        """Read and check a bundle; BundleError names what is wrong with the file."""
        path = Path(path)
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:      # ValueError: a NUL in its name
            raise BundleError(f'bundle {path} cannot be read ({_reason(error)}): give the '
                              '.onnx file that vseg-train export or vseg wrap wrote') from error
        try:
            model = onnx.load_model_from_string(data)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf and the checker have no common base
            raise BundleError(f'{path} is not an ONNX file, or is damaged or truncated '
                              f'({len(data)} bytes): copy or export it again') from error
        info = _read_info(model, str(path))
        _check_graph(model, info, path)
        return cls(path, info, data, hashlib.sha256(data).hexdigest())


def _read_info(model: onnx.ModelProto, where: str) -> BundleInfo:
    """Read the metadata of a graph; BundleError if it is not there, not whole or wrong."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in properties:
        raise BundleError(f'{where} is an ONNX file, but not a bundle: it has no {KEY!r} '
                          'metadata; make it one by vseg-train export or vseg wrap')
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


def _check_metadata(tree: Any, where: str) -> LabelSet:
    """Return the label set of metadata; BundleError if these are not as the schema says."""
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
    rates = tree.get('rates')
    if rates and rates['min'] > rates['max']:
        raise BundleError(f'{where} has wrong metadata at rates: min {rates["min"]} is above '
                          f'max {rates["max"]}; export it again')
    depth = tree.get('depth')
    if depth and depth['nearest'] >= depth['farthest']:
        raise BundleError(f'{where} has wrong metadata at depth: nearest {depth["nearest"]} is '
                          f'not below farthest {depth["farthest"]}; export it again')
    return label_set


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


def _check_graph(model: onnx.ModelProto, info: BundleInfo, path: str | Path) -> None:
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


def write_bundle(model: onnx.ModelProto, info: BundleInfo, path: str | Path) -> None:
    """
    Write a graph with its metadata as a bundle, whole or not at all.

    Args:
        model: the graph; its metadata is set, in place. From format 2 on the SHA-256 of the
            whole is a property of its own.
        info: the metadata.
        path: file to write.

    Raises:
        BundleError: The graph does not fit the metadata, or the file cannot be written.
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
    except (OSError, ValueError) as error:
        raise BundleError(f'bundle {path} cannot be written ({_reason(error)}): free some space '
                          'or choose another output') from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, 'strerror', None) or str(error)


def default_bundle_path() -> Path:
    """Return the path of the student that comes with the package."""
    return Path(__file__).parent / 'models' / 'default.onnx'
