# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Every installed backend gives the numbers of the reference network, streaming or not."""
import cv2
import numpy as np
import onnx
import pytest
from streaming import INSTALLED, needs, step
from tiny_bundle import (
    build_model, info, mean_confidence, NumpyStudent, PLAIN, write_tiny_bundle)

from ros_vseg import backends
from ros_vseg.backends.base import probability, Ring
from ros_vseg.bundle import Bundle, EMPTY_SLOT
from ros_vseg.errors import BackendError


@pytest.fixture(scope='module')
def bundle_of(tmp_path_factory):
    """Return a function that makes a tiny bundle, once per kind."""
    folder, made = tmp_path_factory.mktemp('backends'), {}

    def make(**changes):
        key = repr(sorted(changes.items()))
        if key not in made:
            made[key] = Bundle.load(write_tiny_bundle(folder / f'{len(made)}.onnx', **changes))
        return made[key]
    return make


def frame(number, size=(96, 128)):
    """Return a smooth image uint8 [H, W, 3] that moves with its number."""
    coarse = np.random.default_rng(1).uniform(0, 255, (7, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.roll(image.clip(0, 255).astype(np.uint8), 3 * number, axis=1)


# warm-up, a missing frame (5), a reset before frame 7, and the pool full again
CLIP = [0, 1, 2, 3, 4, 6, 'reset', 7, 8, 9, 10, 11]


def run(stream, clip=CLIP):
    """Scores [frames, K, h, w] of a clip; the numbers of context frames go along if there are."""
    scores, contexts = [], []
    for number in clip:
        if number == 'reset':
            stream.reset()
            continue
        scores.append(step(stream, frame(number)))
        contexts.append(getattr(stream, 'context_frames', None))
    return np.stack(scores), contexts


@pytest.mark.parametrize('name', INSTALLED)
@pytest.mark.parametrize('pool_frames, batch', [(0, 1), (1, 'batch'), (3, 1), (3, 'batch')])
def test_golden_clip(bundle_of, name, pool_frames, batch):
    bundle = bundle_of(context_frames=pool_frames, batch=batch)
    backend = backends.load(bundle, name, threads=1, precision='fp32')
    scores, contexts = run(backend.stream())
    expected, _ = run(NumpyStudent(bundle.info))
    assert np.abs(expected).max() > 5      # 1e-3 of this says something
    assert scores.dtype == np.float32 and scores.shape == (11, 11, 12, 16)
    assert np.abs(scores - expected).max() < 1e-3
    assert contexts == [min(place, pool_frames) for place in [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]]


# 'hold': the next frame is labelled, but not remembered
HELD_BACK = ['hold', 0, 'hold', 1, 2, 3, 'hold', 30, 4, 'forget', 5, 'hold', 31, 'hold', 32, 6,
             'forget', 'forget', 7, 8, 'forget', 'forget', 'forget', 'forget', 9, 10, 11, 12, 13]


@pytest.mark.parametrize('name', INSTALLED)
@pytest.mark.parametrize('pool_frames', [0, 1, 3])
def test_golden_clip_with_frames_held_back_and_forgotten(bundle_of, name, pool_frames):
    bundle = bundle_of(context_frames=pool_frames)
    stream = backends.load(bundle, name, threads=1, precision='fp32').stream()
    student, hold, contexts = NumpyStudent(bundle.info), False, []
    for number in HELD_BACK:
        if number == 'forget':
            stream.forget_oldest(), student.forget_oldest()
        elif number == 'hold':
            hold = True
        else:
            expected = len(student.images)
            scores = [np.array(each.step(frame(number))) for each in (stream, student)]
            assert np.abs(scores[0] - scores[1]).max() < 1e-3
            assert stream.context_frames == expected
            contexts.append(expected)
            if not hold:
                stream.remember(), student.remember()
            hold = False
    assert set(contexts) == set(range(pool_frames + 1))


@pytest.mark.parametrize('name', INSTALLED)
@pytest.mark.parametrize('batch', [1, 'batch'])
@pytest.mark.parametrize('has_confidence', [False, True])
def test_network_without_prototypes(bundle_of, name, batch, has_confidence):
    bundle = bundle_of(batch=batch, has_confidence=has_confidence, **PLAIN)
    backend = backends.load(bundle, name, threads=1, precision='fp32')
    scores, contexts = run(backend.stream())
    expected, _ = run(NumpyStudent(bundle.info))
    assert np.abs(expected).max() > 5 and np.abs(scores - expected).max() < 1e-3
    assert set(contexts) == {0}


@pytest.mark.parametrize('name', INSTALLED)
@pytest.mark.parametrize('changes', [{}, {'context_frames': 0}, PLAIN, {'batch': 'batch'}])
def test_mean_confidence_is_that_of_the_scores(bundle_of, name, changes):
    """Of the frame at work, also where the image has another size, and with a full pool."""
    backend = backends.load(
        bundle_of(has_confidence=True, **changes), name, threads=1, precision='fp32')
    one, other, found = backend.stream(), backend.stream(), []
    for number in range(6):
        image = frame(20 * number) // (number + 1)
        labels = one.label(image, confidence=number % 2 == 0)
        assert labels.mean_confidence == pytest.approx(
            mean_confidence(other.step(image)), abs=1e-5)
        found.append(labels.mean_confidence)
    assert all(type(value) is float and 1 / 11 < value < 1 for value in found)
    assert max(found) - min(found) > 0.01
    assert backends.load(bundle_of(), name, threads=1).stream().label(
        frame(0)).mean_confidence is None


@pytest.mark.parametrize('value, expected', [(1 + 1e-6, 1.0), (-1e-6, 0.0), (0.25, 0.25)])
def test_probability_is_never_left_by_rounding(value, expected):
    assert probability(np.float32([value])) == expected


@pytest.mark.parametrize('name', INSTALLED)
def test_streaming_equals_recomputing(bundle_of, name):
    """The T + 1 newest frames through a fresh stream give what the long stream gives."""
    backend = backends.load(bundle_of(), name, threads=1, precision='fp32')
    streamed, _ = run(backend.stream(), range(8))
    for last in range(8):
        again, _ = run(backend.stream(), range(max(0, last - 3), last + 1))
        np.testing.assert_allclose(streamed[last], again[-1], atol=1e-4)


@pytest.mark.parametrize('name', INSTALLED)
def test_context_counts(bundle_of, name):
    """Without this the golden test could pass with a network that ignores the pool."""
    backend = backends.load(bundle_of(), name, threads=1, precision='fp32')
    alone = run(backend.stream(), [30])[0][-1]
    after = run(backend.stream(), [0, 10, 20, 30])[0][-1]
    assert np.abs(alone - after).max() > 0.1


@pytest.mark.parametrize('name', INSTALLED)
def test_streams_share_nothing_but_the_network(bundle_of, name):
    backend = backends.load(bundle_of(), name, threads=1, precision='fp32')
    expected, _ = run(backend.stream(), range(5))
    one, other = backend.stream(), backend.stream()
    for number in range(5):
        np.testing.assert_array_equal(step(one, frame(number)), expected[number])
        step(other, frame(number + 40))
    assert backend.bundle is bundle_of() and backend.name == name
    assert backend.device.startswith('CPU')


@pytest.mark.parametrize('name', INSTALLED)
def test_image_may_be_reused_after_the_step(bundle_of, name):
    backend = backends.load(bundle_of(), name, threads=1, precision='fp32')
    expected, _ = run(backend.stream(), range(4))
    stream, buffer = backend.stream(), np.empty((96, 128, 3), np.uint8)
    for number in range(4):
        buffer[:] = frame(number)
        np.testing.assert_array_equal(step(stream, buffer), expected[number])


@pytest.mark.parametrize('name', INSTALLED)
def test_read_only_image(bundle_of, name):
    """Messages come as views of data that nobody may write to."""
    backend = backends.load(bundle_of(), name, threads=1, precision='fp32')
    image = np.frombuffer(frame(3).tobytes(), np.uint8).reshape(96, 128, 3)
    np.testing.assert_array_equal(
        np.array(backend.stream().step(image)), np.array(backend.stream().step(frame(3))))


@needs('openvino')
def test_bf16_keeps_the_labels(bundle_of):
    try:
        half = backends.load(bundle_of(), 'openvino', threads=1, precision='bf16')
    except BackendError as error:
        pytest.skip(str(error))
    assert half.device == 'CPU bf16'
    scores, _ = run(half.stream())
    expected, _ = run(NumpyStudent(bundle_of().info))
    assert np.abs(scores - expected).max() > 1e-3       # it really is less precise
    top = np.sort(expected, axis=1)
    close = top[:, -1] - top[:, -2] < 0.05
    agree = scores.argmax(1) == expected.argmax(1)
    assert agree.mean() >= 0.97 and agree[~close].mean() >= 0.995


@needs('openvino')
@pytest.mark.parametrize('capabilities, own', [
    (['FP32', 'INT8'], 'fp32'), (['FP32', 'BF16', 'INT8'], 'bf16')])
def test_auto_precision_is_the_processors_own(bundle_of, monkeypatch, capabilities, own):
    """As OpenVINO tells it: which instructions it may use can be set from outside."""
    import openvino
    monkeypatch.setattr(openvino.Core, 'get_property', lambda *_: capabilities)
    for precision, expected in (('auto', own), ('fp32', 'fp32')):
        backend = backends.load(bundle_of(), 'openvino', threads=1, precision=precision)
        assert backend.device == f'CPU {expected}'


@needs('onnxruntime')
def test_precision_that_a_backend_cannot_give(bundle_of):
    with pytest.raises(BackendError, match='onnxruntime runs in fp32 on a CPU: set precision'):
        backends.load(bundle_of(), 'onnxruntime', precision='bf16')


@needs('openvino')
def test_precision_that_a_processor_cannot_give(bundle_of, monkeypatch):
    import openvino
    monkeypatch.setattr(openvino.Core, 'get_property', lambda *_: ['FP32', 'INT8'])
    with pytest.raises(BackendError, match='no bf16 arithmetic'):
        backends.load(bundle_of(), 'openvino', precision='bf16')
    assert backends.load(bundle_of(), 'openvino', threads=1).device == 'CPU fp32'


@pytest.mark.parametrize('name', INSTALLED)
def test_graph_that_a_backend_refuses(bundle_of, name):
    """The bundle's checks pass, but no backend knows the operator."""
    model = build_model(info())
    [last] = [node for node in model.graph.node if node.op_type == 'Tanh']
    last.op_type, last.domain = 'Riddle', 'nowhere'
    model.opset_import.append(onnx.helper.make_opsetid('nowhere', 1))
    whole = bundle_of()
    bundle = Bundle(whole.path, whole.info, model.SerializeToString(), '')
    with pytest.raises(BackendError, match=f'{name} .* refuses .*{whole.path.name}'):
        backends.load(bundle, name)


def seen(ring):
    """Slots of a ring with four prototypes each that its mask shows, in order."""
    mask = ring.masks[ring.state].reshape(ring.capacity + 1, -1)
    assert (mask == mask[:, :1]).all() and set(mask.flat) <= {0, EMPTY_SLOT}
    return np.flatnonzero(mask[:, 0] == 0).tolist()


def test_ring_shows_all_slots_but_empty_ones_and_the_one_at_work():
    ring, states = Ring(info(context_frames=2)), []
    assert ring.masks.shape == (9, 12) and ring.masks.dtype == np.float32
    for _ in range(7):
        states.append((ring.slot, ring.frames, seen(ring)))
        ring.advance()
    assert states == [(0, 0, []), (1, 1, [0]), (2, 2, [0, 1]), (0, 2, [1, 2]), (1, 2, [0, 2]),
                      (2, 2, [0, 1]), (0, 2, [1, 2])]
    ring.reset()
    assert (ring.slot, ring.frames, ring.state) == (0, 0, 0)


@pytest.mark.parametrize('pool_frames', [1, 2, 3, 5])
def test_ring_forgets_the_oldest_first(pool_frames):
    """Against a plain list of who wrote which slot; every state is reached."""
    ring, rng = Ring(info(context_frames=pool_frames)), np.random.default_rng(0)
    written, states = [], set()     # slots of the remembered frames, oldest first
    for _ in range(2000):
        states.add(ring.state)
        assert seen(ring) == sorted(written) and ring.frames == len(written)
        assert ring.slot not in written and ring.slots[ring.state] == ring.slot
        if rng.random() < 0.6:
            written = [*written, ring.slot][-pool_frames:]
            ring.advance()
        else:
            written = written[1:]
            ring.forget_oldest()
    assert states == set(range((pool_frames + 1) ** 2))


@pytest.mark.parametrize('changes', [{'context_frames': 0}, PLAIN])
def test_ring_of_a_per_frame_network_stays_empty(changes):
    ring = Ring(info(**changes))
    for _ in range(3):
        assert (ring.slot, ring.frames, ring.state) == (0, 0, 0)
        ring.advance()
        ring.forget_oldest()


@needs('onnxruntime')
def test_pool_is_written_in_place(bundle_of):
    """The graph writes the frame's prototypes into the ring: nothing is copied in between."""
    stream = backends.load(bundle_of(), 'onnxruntime', threads=1).stream()
    pools = []
    for number in range(5):
        step(stream, frame(number))
        pools.append(stream.inputs()['pool'].reshape(4, 4, 14).copy())
    for number, slot in enumerate([0, 1, 2, 3, 0]):
        others = [each for each in range(4) if each != slot]
        before = pools[number - 1] if number else np.zeros_like(pools[0])
        np.testing.assert_array_equal(pools[number][others], before[others])
        assert np.abs(pools[number][slot] - before[slot]).max() > 0
