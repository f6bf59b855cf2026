# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""mIoU of a student on a split, frame by frame as a stream (protocol: one pooled matrix)."""
import time

import cv2
import numpy as np
import torch

from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.stream import Stream

from .metrics import ConfusionMatrix
from .models.layers import resize
from .models.stream import StudentStream


FRAME_NS = 66_666_667  # frames of a drive are fed at 15 Hz


def predict(stream, image, size=None):
    """Label image uint8 [H, W] of the next frame of a stream, at its own or another size."""
    scores = resize(stream.step(image)[None].float(), size or image.shape[:2])
    return scores[0].argmax(0).to(torch.uint8).cpu().numpy()


def evaluate_stream(student, source, size=None):
    """
    Run every drive of a source through the student as a stream.

    size: (height, width) that frames are resized to, None for their own. Labels are compared at
    their own size, void ignored. Returns (ConfusionMatrix, seconds per frame). The student is in
    eval mode meanwhile, and as it was afterwards.
    """
    training = student.training
    student.eval()
    confusion, seconds = ConfusionMatrix(student.num_classes), []
    for drive in source.drives:
        stream = StudentStream(student)
        for key in drive:
            image, labels = source.read(key)
            if size and tuple(size) != image.shape[:2]:
                image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
            start = time.perf_counter()
            predicted = predict(stream, np.ascontiguousarray(image), labels.shape)
            seconds.append(time.perf_counter() - start)
            confusion.update(labels, predicted)
    student.train(training)
    return confusion, float(np.median(seconds))


def evaluate_bundle(path, source, backend='auto'):
    """
    Run every drive of a source through an exported bundle by the runtime itself.

    Returns (ConfusionMatrix, median seconds per frame), comparable with ``evaluate_stream``.
    """
    bundle = Bundle.load(path)
    loaded = backends.load(bundle, backend)
    confusion, seconds = ConfusionMatrix(bundle.num_classes), []
    for drive in source.drives:
        stream = Stream(loaded)
        for number, key in enumerate(drive):
            image, labels = source.read(key)
            start = time.perf_counter()
            result = stream.step(image, number * FRAME_NS)
            seconds.append(time.perf_counter() - start)
            confusion.update(labels, result.labels)
    return confusion, float(np.median(seconds))
