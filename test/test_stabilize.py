# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Labels steadied by those of earlier frames: what is mixed, where it lands, who refuses it."""
from itertools import pairwise
import subprocess
import sys

import cv2
import numpy as np
import pytest
import ros_helpers as ros
from ros_helpers import FRAME, stamps
from streaming import INSTALLED, step

from ros_vseg import backends
from ros_vseg.backends import fallback
from ros_vseg.bundle import Bundle
from ros_vseg.decode import decode
from ros_vseg.errors import BackendError, DeviceError
from ros_vseg.image import to_label_array
from ros_vseg.media.writers import write_png
from ros_vseg.stabilize import half_gray, stabilize, Stabilizer
from ros_vseg.stream import Stream

HEIGHT, WIDTH, STRIDE, CLASSES = 192, 256, 4, 5
SECOND = 10**9


def texture(height, width, seed=0):
    """Return a rich but smooth picture, uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 6, width // 6, 3))
    picture = cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


WORLD = texture(HEIGHT, 2 * WIDTH)


def view(left):
    """Return the frame whose left border is at a column of WORLD: content moves by -left."""
    return np.ascontiguousarray(WORLD[:, left:left + WIDTH])


def scores_of(classes, peak):
    """Return scores float32 [K, h, w] that are ``peak`` at a class map [h, w] and 0 elsewhere."""
    return peak * np.eye(CLASSES, dtype=np.float32)[classes].transpose(2, 0, 1)


def flat():
    return np.zeros((CLASSES, HEIGHT // STRIDE, WIDTH // STRIDE), np.float32)


def stripe(first, last):
    """Return a class map [h, w] of class 0 with class 1 in the columns [first, last)."""
    classes = np.zeros((HEIGHT // STRIDE, WIDTH // STRIDE), int)
    classes[:, first:last] = 1
    return classes


def probabilities(scores):
    exponents = np.exp(np.float64(scores) - scores.max(0))
    return exponents / exponents.sum(0)


def test_the_first_frame_is_as_it_was():
    scores = np.random.default_rng(0).normal(0, 3, flat().shape).astype(np.float32)
    np.testing.assert_array_equal(Stabilizer()(scores, view(0)), scores)


def test_nothing_changes_where_nothing_does():
    scores = np.random.default_rng(0).normal(0, 3, flat().shape).astype(np.float32)
    stabilizer = Stabilizer()
    for _ in range(5):
        out = stabilizer(scores.copy(), view(0))
    np.testing.assert_allclose(probabilities(out), probabilities(scores), atol=1e-3)
    np.testing.assert_array_equal(
        decode(out, (HEIGHT, WIDTH))[0], decode(scores, (HEIGHT, WIDTH))[0])


@pytest.mark.parametrize('pixels', [8, -8, 12])
def test_memory_moves_with_the_picture(pixels):
    """The camera turns: what was in columns 28 to 36 of the grid is 2 or 3 columns beside."""
    stabilizer, middle, columns = Stabilizer(), WIDTH // 2, pixels // STRIDE
    stabilizer(scores_of(stripe(28, 36), 8), view(middle))
    labels = stabilizer(flat(), view(middle + pixels)).argmax(0)
    expected = stripe(28 - columns, 36 - columns)
    assert (labels == expected)[:, 8:-8].mean() > 0.995
    assert (labels == stripe(28, 36))[:, 8:-8].mean() < 0.95    # not as if it had stood still


@pytest.mark.parametrize('pixels, new, old', [(8, np.s_[:, -1], np.s_[:, :32]),
                                              (-8, np.s_[:, 0], np.s_[:, 32:])])
def test_what_comes_into_the_frame_has_no_memory(pixels, new, old):
    stabilizer, middle = Stabilizer(), WIDTH // 2
    stabilizer(scores_of(stripe(0, 64), 8), view(middle))
    mixed = probabilities(stabilizer(flat(), view(middle + pixels)))[1]
    np.testing.assert_allclose(mixed[new], 1 / CLASSES, atol=1e-6)
    assert mixed[old].min() > 0.5


def test_a_confident_frame_wins_against_the_memory():
    stabilizer, classes = Stabilizer(), stripe(20, 40)
    stabilizer(scores_of(classes, 8), view(0))
    new = stabilizer(scores_of(1 - classes, 8), view(0))
    np.testing.assert_array_equal(new.argmax(0), 1 - classes)


def test_memory_wins_where_a_frame_is_less_sure_as_a_whole():
    """It is wrong everywhere, and more confident than the memory in a tenth of its columns."""
    stabilizer, classes = Stabilizer(), stripe(20, 40)
    for _ in range(3):
        stabilizer(scores_of(classes, 8), view(0))
    bad = scores_of(1 - classes, 2)
    bad[:, :, 40:46] *= 5
    assert 0.6 < probabilities(bad).max(0).mean() < 0.7
    np.testing.assert_array_equal(stabilizer(bad, view(0)).argmax(0), classes)


def test_memory_does_not_stay_for_ever():
    """The network is less sure from here on: after a second or two its word counts again."""
    stabilizer, classes = Stabilizer(), stripe(20, 40)
    for _ in range(30):
        stabilizer(scores_of(classes, 8), view(0))
    wins = [(stabilizer(scores_of(1 - classes, 2), view(0)).argmax(0) == 1 - classes).mean()
            for _ in range(40)]
    assert wins[0] == 0 and wins[-1] == 1
    assert all(earlier <= later for earlier, later in pairwise(wins))


def test_memory_counts_less_where_the_picture_is_another():
    """Something appears in columns 20 to 30; the network is a little less sure of it."""
    new = scores_of(stripe(0, 0), 4)
    new[:, :, 20:30] = scores_of(stripe(20, 30), 3)[:, :, 20:30]
    same, other = view(0), view(0)
    other[:, 20 * STRIDE:30 * STRIDE] = texture(HEIGHT, 10 * STRIDE, seed=5)
    shares = []
    for picture in (same, other):
        stabilizer = Stabilizer()
        stabilizer(scores_of(stripe(0, 0), 4), view(0))
        labels = stabilizer(new, picture).argmax(0)
        shares.append((labels == 1)[:, 20:30].mean())
        assert not labels[:, :18].any() and not labels[:, 32:].any()
    assert shares[0] == 0 and shares[1] > 0.6


def test_another_scene_is_labelled_as_it_is():
    """Also where the network is a little less sure of it."""
    stabilizer = Stabilizer()
    stabilizer(scores_of(stripe(0, 40), 4), view(0))
    other = stabilizer(scores_of(stripe(30, 64), 3.5), texture(HEIGHT, WIDTH, seed=5)[::-1])
    np.testing.assert_array_equal(other.argmax(0), stripe(30, 64))


def test_memory_wins_where_the_picture_is_washed_out():
    """Glare or fog, which the network is rather confident about; the frame after it is not."""
    stabilizer, classes = Stabilizer(), stripe(20, 40)
    glare = (225 + 0.1 * view(0)).astype(np.uint8)
    stabilizer(scores_of(classes, 4), view(0))
    np.testing.assert_array_equal(
        stabilizer(scores_of(1 - classes, 3.5), glare).argmax(0), classes)
    np.testing.assert_array_equal(
        stabilizer(scores_of(1 - classes, 3.5), view(0)).argmax(0), 1 - classes)


def test_where_flow_fails_the_last_one_goes_on():
    """A dark or glaring frame in a turn: the memory moves as it did between the frames before."""
    stabilizer, middle = Stabilizer(), WIDTH // 2
    stabilizer(scores_of(stripe(30, 38), 8), view(middle))
    stabilizer(scores_of(stripe(28, 36), 8), view(middle + 8))
    noise = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    labels = stabilizer(flat(), noise).argmax(0)
    assert (labels == stripe(26, 34))[:, 8:-8].mean() > 0.995


def test_two_bad_frames_at_the_start_have_no_flow():
    stabilizer, rng = Stabilizer(), np.random.default_rng(1)
    first, second = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    stabilizer(scores_of(stripe(20, 40), 8), first)
    np.testing.assert_array_equal(stabilizer(flat(), second).argmax(0), stripe(20, 40))


def test_not_a_number_does_not_stay():
    """A score that is NaN counts as lowest, as it does in decode, and leaves nothing behind."""
    stabilizer, classes = Stabilizer(), stripe(20, 40)
    broken = scores_of(classes, 8)
    broken[2, 10:20] = np.nan
    broken[:, 30:33] = np.nan
    broken[0, 0, 0], broken[1, 0, 1] = np.inf, -np.inf
    stabilizer(broken, view(0))
    out = stabilizer(scores_of(classes, 8), view(0))
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out.argmax(0), classes)


def test_reset_forgets():
    used, scores = Stabilizer(), scores_of(stripe(0, 8), 1)
    used(scores_of(stripe(20, 40), 8), view(40))
    used.reset()
    np.testing.assert_array_equal(used(scores, view(0)), scores)


def test_frames_of_any_size():
    """Below some sizes OpenCV's flow is an error, below others the end of the process."""
    for size in ((32, 32), (32, 400), (64, 90), (97, 131), (400, 36)):
        picture = texture(*size)
        assert min(half_gray(picture).shape) >= 48
        scores = np.zeros((3, size[0] // 8, size[1] // 8), np.float32)
        scores[1] = 4
        stabilizer = Stabilizer()
        stabilizer(scores, picture)
        assert (stabilizer(scores * 0, picture).argmax(0) == 1).all()


def test_order_of_colours_does_not_matter():
    picture = view(0)
    np.testing.assert_array_equal(half_gray(picture), half_gray(picture[..., ::-1]))


def test_memory_is_all_there_is():
    """The same memory gives the same, whatever came between."""
    scores = scores_of(stripe(20, 40), 3)
    _, memory = stabilize(scores, half_gray(view(0)), None)
    first, after = stabilize(flat(), half_gray(view(8)), memory)
    stabilize(scores, half_gray(view(90)), after)
    again, _ = stabilize(flat(), half_gray(view(8)), memory)
    np.testing.assert_array_equal(first, again)


def run(number, threads=None):
    rng = np.random.default_rng(2)
    if threads:
        cv2.setNumThreads(threads)
    stabilizer = Stabilizer()
    return [stabilizer(rng.normal(0, 2, flat().shape).astype(np.float32), view(5 * i))
            for i in range(number)]


def test_threads_do_not_matter():
    before = cv2.getNumThreads()
    try:
        runs = [run(6, threads) for threads in (1, 2, 7)]
    finally:
        cv2.setNumThreads(before)
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0], other)


# in streams, commands and the node


def frames(number, size=(96, 128)):
    """Return frames uint8 [H, W, 3] of a turning camera."""
    wide = texture(size[0], 2 * size[1], seed=3)
    return [np.ascontiguousarray(wide[:, 4 * i:4 * i + size[1]]) for i in range(number)]


def load(bundle, name='onnxruntime', **options):
    return backends.load(Bundle.load(bundle), name, threads=1, precision='fp32', **options)


@pytest.mark.parametrize('name', INSTALLED)
def test_a_stream_decodes_the_mixed_scores(bundle, name):
    backend = load(bundle, name, stabilize=True)
    stream, alone, stabilizer = Stream(backend), backend.stream(), Stabilizer()
    plain, changed = Stream(load(bundle, name)), 0
    for number, image in enumerate(frames(6)):
        result = stream.step(image, number, confidence=True)
        labels, confidence = decode(
            stabilizer(step(alone, image), image), (96, 128), confidence=True)
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.confidence, confidence)
        assert set(result.times) == {'resize', 'network', 'stabilize', 'decode'}
        assert result.times['stabilize'] > 0
        before = plain.step(image, number)
        assert set(before.times) == {'resize', 'network', 'decode'}
        changed += (before.labels != labels).sum()
    assert changed > 50


@pytest.mark.parametrize('cause, second', [
    ('time_back', {'stamp': 0}), ('gap', {'stamp': 9 * SECOND}), ('size', {'size': (48, 64)}),
    ('frame_id', {'frame_id': 'rear'}), ('request', {})])
def test_every_reset_forgets(bundle, cause, second):
    stream, new = (Stream(load(bundle, stabilize=True)) for _ in range(2))
    for number, image in enumerate(frames(3)):
        stream.step(image, SECOND + number)
    if cause == 'request':
        stream.reset()
    image = texture(*second.get('size', (96, 128)), seed=9)
    arguments = second.get('stamp', SECOND + 9), second.get('frame_id', '')
    result, expected = (each.step(image, *arguments, confidence=True) for each in (stream, new))
    assert result.reset == cause
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.confidence, expected.confidence)


def test_streams_share_no_memory(bundle):
    backend = load(bundle, stabilize=True)
    one, other, alone = Stream(backend), Stream(backend), Stream(backend)
    for number, image in enumerate(frames(4)):
        other.step(np.ascontiguousarray(image[::-1]), number)
        np.testing.assert_array_equal(
            one.step(image, number).labels, alone.step(image, number).labels)


@pytest.mark.parametrize('name, with_fallback', [
    ('auto', False), ('auto', True), ('tensorrt', False), ('tensorrt', True)])
def test_refused_where_scores_stay_on_the_gpu(tiny, monkeypatch, name, with_fallback):
    """Also with a fallback: no other backend takes its place without a word."""
    monkeypatch.setattr(backends, 'why_not', lambda name: None)
    with pytest.raises(BackendError, match='stabilize needs scores on the host') as refusal:
        backends.load(tiny, name, fallback=with_fallback, stabilize=True)
    assert 'use backend openvino or onnxruntime, or turn it off' in str(refusal.value)


def test_a_backend_that_takes_over_stabilizes_too(bundle, monkeypatch):
    if not {'openvino', 'onnxruntime'} <= set(INSTALLED):
        pytest.skip('needs two backends')
    backend = backends._load

    def fails(bundle, name, options):
        if name == 'openvino':
            raise DeviceError('no such processor')
        return backend(bundle, name, options)
    monkeypatch.setattr(backends, '_load', fails)
    loaded = load(bundle, 'openvino', fallback=True, stabilize=True)
    assert isinstance(loaded, fallback.FallbackBackend) and loaded.name == 'onnxruntime'
    assert 'stabilize' in Stream(loaded).step(frames(1)[0], 0).times


def vseg(*arguments):
    return subprocess.run([sys.executable, '-m', 'ros_vseg.commands.cli', *map(str, arguments)],
                          capture_output=True, text=True, timeout=100, check=False)


def test_run_stabilizes_when_asked_to(bundle, tmp_path):
    stream, images = Stream(load(bundle, stabilize=True)), frames(5)
    for number, image in enumerate(images):
        write_png(tmp_path / f'in/{number}.png', image)
    arguments = ('run', tmp_path / 'in', '--bundle', bundle, '--backend', 'onnxruntime',
                 '--save', 'labels', '--max-gap', '9', '-o')
    plain = vseg(*arguments, tmp_path / 'plain')
    done = vseg(*arguments, tmp_path / 'out', '--stabilize')
    assert (plain.returncode, done.returncode) == (0, 0), plain.stderr + done.stderr
    assert ', stabilize ' in done.stdout and 'stabilize' not in plain.stdout
    changed = 0
    for number, image in enumerate(images):
        labels, before = (cv2.imread(str(tmp_path / f'{folder}/labels/{number}.png'), -1)
                          for folder in ('out', 'plain'))
        np.testing.assert_array_equal(labels, stream.step(image, number).labels)
        changed += (labels != before).sum()
    assert changed > 50


def test_run_on_a_gpu_refuses_in_one_line(bundle, tmp_path):
    write_png(tmp_path / 'in/0.png', frames(1)[0])
    done = vseg('run', tmp_path / 'in', '-o', tmp_path / 'out', '--bundle', bundle,
                '--backend', 'tensorrt', '--stabilize')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'stabilize needs scores on the host' in done.stderr


def test_node_stabilizes_when_asked_to(probe, bundle, tmp_path):
    stream = Stream(load(bundle, stabilize=True))
    plain, changed = Stream(load(bundle)), 0
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/steady', bundle=bundle, threads=1,
                   backend='onnxruntime', stabilize='true'):
        camera = ros.CameraProbe(probe, 'steady/vseg_node', 'camera', topic='/steady/camera/image')
        begin = next(stamps)
        for number, picture in enumerate(frames(5)):
            stamp = begin + number * FRAME
            labels = to_label_array(camera.label(ros.image(picture, stamp)))
            np.testing.assert_array_equal(labels, stream.step(picture, stamp).labels)
            changed += (labels != plain.step(picture, stamp).labels).sum()
        assert camera.values()['stage_stabilize_ms'] > 0
    assert changed > 50


def test_node_on_a_gpu_says_why_it_cannot(bundle, tmp_path):
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/unsteady', bundle=bundle,
                   backend='tensorrt', stabilize='true') as child:
        child.wait_for_line('cannot configure', 30)
    error, = [line for line in child.log.read_text().splitlines() if 'ERROR' in line]
    assert 'stabilize needs scores on the host' in error
