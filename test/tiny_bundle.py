# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny but whole student, built by hand: tests need no trained weights and no torch."""
import numpy as np
from onnx import helper, numpy_helper, TensorProto

from ros_vseg.bundle import BundleInfo, write_bundle
from ros_vseg.labels import load_label_set

PROTOTYPES, KEYS, CHANNELS, STRIDE = 4, 6, 8, 8
# changes that make a network without prototypes of it
PLAIN = {'context_frames': 0, 'num_prototypes': 0, 'channels': 0, 'prototype_dim': 0}


def weights(num_classes, seed=0, prototypes=PROTOTYPES):
    """Arrays of the network: one strided convolution, prototypes, attention, a classifier."""
    rng = np.random.default_rng(seed)

    def array(*shape, gain=1.0):
        fan_in = int(np.prod(shape[1:])) or 1
        return (gain * rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)

    return {'stem': array(CHANNELS, 3, STRIDE, STRIDE, gain=6),
            'projection': array(prototypes, CHANNELS, 1, 1, gain=3),
            'theta': array(KEYS, CHANNELS, 1, 1, gain=3), 'phi': array(CHANNELS, KEYS, gain=3),
            'g': array(CHANNELS, CHANNELS, gain=3),
            'classify': array(num_classes, 2 * CHANNELS, 1, 1, gain=3)}


def info(size=(96, 128), context_frames=3, label_set='camvid', **changes):
    """Return the BundleInfo of the tiny student."""
    values = {'name': 'tiny', 'label_set': load_label_set(label_set), 'height': size[0],
              'width': size[1], 'color_order': 'rgb', 'output_stride': STRIDE,
              'num_prototypes': PROTOTYPES, 'channels': CHANNELS, 'pool_frames': context_frames,
              'prototype_dim': KEYS + CHANNELS, 'trained_on': {'data': 'nothing'},
              'metrics': {}, 'license': 'Apache-2.0'}
    return BundleInfo(**{**values, **changes})


def build_model(bundle_info, seed=0, batch=1):
    """onnx.ModelProto with the bundle's inputs and outputs; sizes are multiples of the stride."""
    prototypes = bundle_info.num_prototypes or PROTOTYPES
    arrays = weights(len(bundle_info.label_set.names), seed, prototypes)
    height, width = bundle_info.height // STRIDE, bundle_info.width // STRIDE
    pixels, slots = height * width, bundle_info.pool_frames * prototypes
    arrays.update(
        middle=np.float32(127.5), spread=np.float32(64), flat=np.int64([-1, CHANNELS, pixels]),
        flat_n=np.int64([-1, prototypes, pixels]), flat_k=np.int64([-1, KEYS, pixels]),
        grid=np.int64([-1, CHANNELS, height, width]), parts=np.int64([KEYS, CHANNELS]),
        own=np.zeros((1, prototypes), np.float32), axis=np.int64([1]))
    node = helper.make_node
    if not bundle_info.num_prototypes:
        arrays['classify'] = arrays['classify'][:, :CHANNELS]
    nodes = [
        node('Cast', ['image'], ['float'], to=TensorProto.FLOAT),
        node('Transpose', ['float'], ['planes'], perm=[0, 3, 1, 2]),
        node('Sub', ['planes', 'middle'], ['centred']),
        node('Div', ['centred', 'spread'], ['normal']),
        node('Conv', ['normal', 'stem'], ['linear'], strides=[STRIDE, STRIDE]),
        node('Tanh', ['linear'], ['features']),
        *(_attention(node, slots) if bundle_info.num_prototypes else
          [node('Identity', ['features'], ['augmented'])]),
        node('Conv', ['augmented', 'classify'], ['scores']),
    ]
    if bundle_info.has_confidence:
        arrays['grid_axes'] = np.int64([1, 2])
        nodes += [node('Softmax', ['scores'], ['probabilities'], axis=1),
                  node('ReduceMax', ['probabilities', 'axis'], ['largest'], keepdims=0),
                  node('ReduceMean', ['largest', 'grid_axes'], ['confidence'], keepdims=0)]
    if bundle_info.depth:
        arrays.update(first=np.int64(0), half=np.float32(bundle_info.depth.farthest / 2))
        nodes += [node('Gather', ['features', 'first'], ['shade'], axis=1),
                  node('Mul', ['shade', 'half'], ['swing']),
                  node('Add', ['swing', 'half'], ['depth'])]
    shapes = bundle_info.shapes()

    def value(name, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, [batch, *shapes[name][1:]])

    used = {name for node in nodes for name in node.input}
    inputs = [value('image', TensorProto.UINT8)]
    if slots:
        inputs += [value('pool'), value('pool_mask')]
    outputs = [value(name) for name in ('scores', 'prototypes', 'confidence', 'depth')
               if name in shapes]
    graph = helper.make_graph(nodes, 'tiny', inputs, outputs,
                              [numpy_helper.from_array(np.asarray(array), name)
                               for name, array in arrays.items() if name in used])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)


def _attention(node, slots):
    """Nodes from ``features`` to ``augmented``, with the prototypes on the way."""
    return [
        node('Reshape', ['features', 'flat'], ['x']),
        node('Transpose', ['x'], ['x_t'], perm=[0, 2, 1]),
        node('Conv', ['features', 'projection'], ['p']),
        node('Reshape', ['p', 'flat_n'], ['p_flat']),
        node('Softmax', ['p_flat'], ['projected'], axis=-1),
        node('MatMul', ['projected', 'x_t'], ['n']),
        node('MatMul', ['n', 'phi'], ['keys']),
        node('MatMul', ['n', 'g'], ['values']),
        node('Concat', ['keys', 'values'], ['prototypes'], axis=-1),
        node('Conv', ['features', 'theta'], ['q']),
        node('Reshape', ['q', 'flat_k'], ['q_flat']),
        node('Transpose', ['q_flat'], ['queries'], perm=[0, 2, 1]),
        *([node('Concat', ['pool', 'prototypes'], ['memory'], axis=1),
           node('Concat', ['pool_mask', 'own'], ['mask'], axis=1)] if slots else
          [node('Identity', ['prototypes'], ['memory']), node('Identity', ['own'], ['mask'])]),
        node('Split', ['memory', 'parts'], ['k', 'v'], axis=-1),
        node('Transpose', ['k'], ['k_t'], perm=[0, 2, 1]),
        node('MatMul', ['queries', 'k_t'], ['attention']),
        node('Unsqueeze', ['mask', 'axis'], ['mask_row']),
        node('Add', ['attention', 'mask_row'], ['masked']),
        node('Softmax', ['masked'], ['weights'], axis=-1),
        node('MatMul', ['weights', 'v'], ['context']),
        node('Transpose', ['context'], ['context_t'], perm=[0, 2, 1]),
        node('Reshape', ['context_t', 'grid'], ['context_map']),
        node('Concat', ['features', 'context_map'], ['augmented'], axis=1),
    ]


def write_tiny_bundle(path, size=(96, 128), context_frames=3, seed=0, batch=1, **changes):
    """Write a tiny bundle and return its path; ``changes`` are fields of BundleInfo."""
    bundle_info = info(size, context_frames, **changes)
    write_bundle(build_model(bundle_info, seed, batch), bundle_info, path)
    return path


class NumpyStudent:
    """The same network in plain NumPy, with a list of frames: recomputes the whole context."""

    def __init__(self, bundle_info, seed=0):
        self.info = bundle_info
        self.weights = weights(len(bundle_info.label_set.names), seed)
        self.reset()

    def reset(self):
        """Forget all earlier frames."""
        self.images, self.newest = [], None

    def remember(self) -> None:
        """See BackendStream."""
        self.images.append(self.newest)
        del self.images[:-self.info.pool_frames or None]

    def forget_oldest(self) -> None:
        """See BackendStream."""
        del self.images[:1]

    def _features(self, image):
        height, width = self.info.height // STRIDE, self.info.width // STRIDE
        patches = ((image.astype(np.float64) - 127.5) / 64).reshape(
            height, STRIDE, width, STRIDE, 3)
        return np.tanh(np.einsum('hiwjc,kcij->khw', patches, self.weights['stem']))

    def _prototypes(self, features):
        flat = features.reshape(CHANNELS, -1)
        projection = _softmax(self.weights['projection'][:, :, 0, 0] @ flat)
        prototypes = projection @ flat.T
        return prototypes @ self.weights['phi'], prototypes @ self.weights['g']

    def step(self, image):
        """Scores float64 [K, h, w] of the next frame."""
        self.newest = image
        if not self.info.num_prototypes:
            return np.einsum('kc,chw->khw', self.weights['classify'][:, :CHANNELS, 0, 0],
                             self._features(image))
        memory = [self._prototypes(self._features(each)) for each in [*self.images, image]]
        keys, values = (np.concatenate(part) for part in zip(*memory))
        features = self._features(image)
        queries = (self.weights['theta'][:, :, 0, 0] @ features.reshape(CHANNELS, -1)).T
        context = (_softmax(queries @ keys.T) @ values).T.reshape(features.shape)
        return np.einsum('kc,chw->khw', self.weights['classify'][:, :, 0, 0],
                         np.concatenate([features, context]))


def mean_confidence(scores):
    """Return the mean of the largest class probability of scores [K, h, w]."""
    return float(_softmax(np.moveaxis(scores, 0, -1).astype(np.float64)).max(-1).mean())


def _softmax(x):
    exponents = np.exp(x - x.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)
