# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The kernels compile for every GPU, and give on the processor what decode.py and OpenCV give."""
import re
import shutil
import subprocess

import cv2
from fake_cuda import host_kernels, KERNELS, launch
from hypothesis import example, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from raw_images import raw_image

from ros_vseg.decode import _candidates, _cells, decode
from ros_vseg.errors import DeviceError
from ros_vseg.gpu import kernels
from ros_vseg.gpu.formats import RAW
from ros_vseg.resize import resize_image

GUARD, EDGE = 0xA5, 64
SPECIAL = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e38, -1e38, 0, -0.0])


@pytest.mark.parametrize('capability', [75, 80, 86, 87, 89, 90, 100, 120])
def test_kernels_compile_without_a_warning(tmp_path, capability):
    if shutil.which('nvcc') is None:
        pytest.skip('no nvcc here')
    known = subprocess.run(['nvcc', '--list-gpu-code'], check=True, capture_output=True, text=True)
    if f'sm_{capability}' not in known.stdout.split():
        pytest.skip(f'this nvcc does not know sm_{capability}')
    target = tmp_path / 'kernels.cubin'
    done = subprocess.run(
        ['nvcc', '-cubin', *kernels.OPTIONS, '-Werror', 'all-warnings', f'-arch=sm_{capability}',
         '-o', target, KERNELS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, done.stdout) == (0, '')
    assert target.read_bytes()[:4] == b'\x7fELF'


@pytest.mark.parametrize('capability', ['sm75', 'sm87', 'sm120'])
def test_nvrtc_compiles_the_kernels(capability):
    pytest.importorskip('cuda.bindings')
    pytest.importorskip('nvidia', reason='no NVRTC here')
    binary = kernels.compile_kernels(capability)
    assert binary[:4] == b'\x7fELF'
    found = set(re.findall(rb'\.text\.(\w+)', binary))
    assert found == {name.encode() for name in kernels.NAMES}


def test_nvrtc_refuses_an_unknown_gpu():
    pytest.importorskip('cuda.bindings')
    pytest.importorskip('nvidia', reason='no NVRTC here')
    with pytest.raises(DeviceError, match='cannot compile for sm33: .*arch.*; update') as error:
        kernels.compile_kernels('sm33')
    assert str(error.value).isprintable()


def test_missing_nvrtc_says_how_to_fix_it(monkeypatch):
    nvrtc = pytest.importorskip('cuda.bindings.nvrtc')

    def fail(*_):
        raise RuntimeError('Failure finding "libnvrtc.so"\nsearched here and there')
    monkeypatch.setattr(nvrtc, 'nvrtcCreateProgram', fail)
    with pytest.raises(DeviceError) as error:
        kernels.compile_kernels('sm86')
    assert str(error.value).startswith(
        'NVRTC is missing (Failure finding "libnvrtc.so"): pip install nvidia-cuda-nvrtc')


class Memory:
    """A Buffer on the host, with guard bytes before and after it."""

    def __init__(self, array):
        array = np.ascontiguousarray(array)
        self._bytes = np.full(array.nbytes + 2 * EDGE, GUARD, np.uint8)
        self.array = self._bytes[EDGE:EDGE + array.nbytes].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.address = self.array.ctypes.data

    def guarded(self):
        """Return the array after a check that nothing was written beside it."""
        assert (self._bytes[:EDGE] == GUARD).all() and (self._bytes[-EDGE:] == GUARD).all()
        return self.array


class HostGpu:
    """Stands for Gpu and its queue: what is launched runs at once, on the processor."""

    def __init__(self, library):
        self._library = library
        self.kernels = kernels.Kernels.__new__(kernels.Kernels)
        self.kernels._functions = {name: name for name in kernels.NAMES}

    def upload(self, array):
        return Memory(array)

    def launch(self, function, grid, block, values, types):
        launch(self._library, function, grid, block, values, types)

    def decode(self, scores, size, table):
        """Labels and confidence, as the TensorRT backend has them made."""
        shape, memory = scores.shape, Memory(scores)
        axes = kernels.Axes(self, shape[1:], size)
        masks = Memory(np.full((-(-shape[0] // 32), *shape[1:]), 200, np.uint32))
        assert masks.array.nbytes == kernels.mask_bytes(shape)
        labels, confidence = (Memory(np.full(size, fill, np.uint8)) for fill in (201, 202))
        self.kernels.candidates(self, memory, shape, masks)
        self.kernels.labels(self, memory, shape, masks, axes, Memory(table), labels)
        self.kernels.confidence(self, memory, shape, masks, axes, confidence)
        np.testing.assert_array_equal(masks.guarded(), can_win(scores))
        return labels.guarded(), confidence.guarded()

    def resize(self, image, size, swap=False):
        return self.convert('rgb8', image, image.shape[:2], size, swap)

    def convert(self, encoding, pixels, shape, size, swap=False):
        """RGB of a picture of ``shape`` whose pixels are encoded."""
        out = Memory(np.full((*size, 3), GUARD, np.uint8))
        self.kernels.resize(self, Memory(pixels), encoding, shape, out, size,
                            kernels.Taps(self, shape, size), swap)
        return out.guarded()


def can_win(scores):
    """Return the classes that decode.py computes in each cell, as bits uint32 [words, h, w]."""
    cells = _cells(scores)
    height, width = scores.shape[1:]
    masks = np.zeros((-(-len(scores) // 32), height, width), np.uint32)
    keep = np.empty(len(scores), np.int64)
    best = cells.argmax(2)
    for y, x in np.ndindex(height, width):
        corners = best[y:y + 2, x:x + 2]
        classes = corners.flat[:1]
        if (corners != classes).any():
            classes = keep[:_candidates(cells, y, x, keep)]
        for c in classes:
            masks[c // 32, y, x] |= np.uint32(1 << c % 32)
    return masks


@pytest.fixture(scope='module')
def gpu(tmp_path_factory):
    return HostGpu(host_kernels(tmp_path_factory.mktemp('kernels')))


@st.composite
def coarse_scores(draw):
    """Scores float32 [K, h, w]: regions of one class, ties, and what no network should give."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        scores = rng.integers(-2, 3, shape).astype(np.float32)      # ties
    else:
        scores = (rng.standard_normal(shape) * draw(st.sampled_from([1e-3, 1, 30]))).astype('f4')
    region = rng.integers(0, shape[0], (2, 2)).repeat(5, 0).repeat(5, 1)[:shape[1], :shape[2]]
    scores += draw(st.sampled_from([0, 3, 50])) * np.float32(
        region == np.arange(shape[0])[:, None, None])
    odd = rng.random(shape) < draw(st.sampled_from([0, 0, 0.1, 0.9]))
    scores[odd] = rng.choice(SPECIAL, odd.sum())
    return scores


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=1000)
@given(coarse_scores(), sizes)
@example(np.zeros((8, 1, 1), np.float32), (1, 1))
@example(np.full((3, 9, 9), np.nan, np.float32), (40, 39))
@example(np.float32([[[np.inf, 1]], [[1, np.inf]]]), (2, 5))
def test_kernels_decode_to_the_bit_as_the_processor_does(gpu, scores, size):
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    labels, confidence = gpu.decode(scores, size, table)
    expected, expected_confidence = decode(scores, size, confidence=True, table=table)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(confidence, expected_confidence)


def test_kernels_decode_an_image_of_many_blocks(gpu):
    """As many classes as labels can have; neither side a multiple of a block's."""
    scores = np.random.default_rng(2).standard_normal((255, 6, 10)).astype(np.float32)
    scores[[0, 254]] += [[[9]], [[8.5]]]
    labels, confidence = gpu.decode(scores, (203, 333), np.arange(256, dtype=np.uint8))
    expected, expected_confidence = decode(scores, (203, 333), confidence=True)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(confidence, expected_confidence)
    assert {0, 254} <= set(labels.flat) and confidence.min() < 200 < confidence.max()


def picture(size):
    """Return an image with gradients and single bright and dark pixels."""
    rng = np.random.default_rng(3)
    smooth = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), size[::-1])
    odd = rng.random(size) < 0.1
    smooth[odd] = rng.choice(np.uint8([0, 255]), (odd.sum(), 3))
    return smooth


@pytest.mark.parametrize('swap', [False, True])
@pytest.mark.parametrize('before, after', [
    ((90, 120), (45, 60)), ((90, 120), (37, 53)), ((91, 121), (90, 120)), ((90, 120), (1, 1)),
    ((48, 64), (96, 128)), ((45, 61), (97, 129)), ((7, 3), (50, 41)), ((1, 1), (5, 6)),
    ((90, 60), (45, 100)), ((45, 120), (96, 64)), ((90, 60), (90, 100)), ((90, 100), (90, 60)),
    ((90, 60), (70, 60)), ((60, 80), (61, 79)), ((39, 13), (15, 37)), ((375, 1242), (400, 528))])
def test_resize_kernel_is_opencvs_within_one(gpu, before, after, swap):
    image = picture(before)
    found = gpu.resize(image, after, swap)
    expected = resize_image(image, after)[:, :, ::-1 if swap else 1]
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize('swap', [False, True])
def test_resize_kernel_copies_an_image_of_the_right_size(gpu, swap):
    image = picture((45, 67))
    np.testing.assert_array_equal(
        gpu.resize(image, (45, 67), swap), image[:, :, ::-1 if swap else 1])


@settings(max_examples=500)
@given(sizes, sizes)
def test_resize_kernel_at_any_size_is_opencvs_within_one(gpu, before, after):
    image = picture(before)
    found = gpu.resize(image, after)
    assert np.abs(found.astype(int) - resize_image(image, after)).max() <= 1


@pytest.mark.parametrize('shape', [(48, 64), (4, 4), (6, 10), (34, 38)])
@pytest.mark.parametrize('encoding', sorted(RAW))
def test_kernels_convert_each_encoding_to_the_bit_as_opencv_does(gpu, encoding, shape):
    image = raw_image(encoding, shape)
    assert image.encoding == encoding and len(np.unique(image.pixels)) > 10
    found = gpu.convert(encoding, image.pixels, shape, shape)
    np.testing.assert_array_equal(found, image.rgb())
    swapped = gpu.convert(encoding, image.pixels, shape, shape, swap=True)
    np.testing.assert_array_equal(swapped, image.rgb()[..., ::-1])


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'mono8', 'yuv422', 'yuyv', 'bayer_gbrg8'])
def test_kernels_convert_images_of_odd_sides(gpu, encoding):
    image = raw_image(encoding, (33, 45))
    np.testing.assert_array_equal(
        gpu.convert(encoding, image.pixels, (33, 45), (33, 45)), image.rgb())


@pytest.mark.parametrize('encoding', sorted(RAW))
def test_kernels_convert_and_resize_at_once_within_one(gpu, encoding):
    """As an image that is converted first; the rounding of OpenCV's resizing is what differs."""
    image = raw_image(encoding, (90, 120))
    for size in [(45, 60), (37, 53), (96, 128)]:
        found = gpu.convert(encoding, image.pixels, (90, 120), size)
        assert np.abs(found.astype(int) - resize_image(image.rgb(), size)).max() <= 1
