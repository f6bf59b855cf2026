# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Mean class accuracy, Cityscapes' category IoU and iIoU against plain loops over the pixels."""
import numpy as np
import pytest

from ros_vseg.labels import load_label_set
from vseg_training.data import VOID
from vseg_training.evaluate import tables
from vseg_training.metrics import by_category, ConfusionMatrix, InstanceIoU
from vseg_training.metrics.instances import MEAN_SIZES


def random_pair(rng, classes, shape=(24, 31)):
    """Truth with void and without the last class, and a prediction of every class and of none."""
    truth = rng.integers(0, classes - 1, shape, np.uint8)
    labels = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape, np.uint8))
    truth[rng.random(shape) < 0.1] = VOID
    labels[rng.random(shape) < 0.1] = VOID
    return truth, labels.astype(np.uint8)


def test_mean_accuracy_equals_a_loop():
    """Pixel by pixel; the class that is only predicted does not count."""
    rng = np.random.default_rng(5)
    confusion, right, total = ConfusionMatrix(6), [0.0] * 6, [0.0] * 6
    for _ in range(3):
        truth, labels = random_pair(rng, 6)
        confusion.update(truth, labels)
        for true, label in zip(truth.ravel().tolist(), labels.ravel().tolist()):
            if true < 6:
                total[true] += 1
                right[true] += true == label
    assert not total[5] and (confusion.counts[:, 5] > 0).any()
    expected = sum(right[number] / total[number] for number in range(5)) / 5
    assert confusion.mean_accuracy() == pytest.approx(expected, abs=1e-12)
    assert np.isnan(ConfusionMatrix(3).mean_accuracy())


# Cityscapes' paper, Table 1: the categories of the 19 classes that are evaluated
GROUPS = [('flat', 'road sidewalk'), ('construction', 'building wall fence'),
          ('object', 'pole traffic_sign traffic_light'), ('nature', 'vegetation terrain'),
          ('sky', 'sky'), ('human', 'person rider'),
          ('vehicle', 'car truck bus train motorcycle bicycle')]


def test_category_iou_equals_a_loop():
    """Pixel by pixel: hits inside the category, misses, and what others are taken for it."""
    names, rng = load_label_set('cityscapes').names, np.random.default_rng(6)
    confusion = ConfusionMatrix(19)
    truth, labels = random_pair(rng, 19, (60, 70))
    confusion.update(truth, labels)
    categories, ious = by_category(confusion, names), []
    for _, members in GROUPS:
        ids = [names.index(name) for name in members.split()]
        hits = misses = false = 0
        for true, label in zip(truth.ravel().tolist(), labels.ravel().tolist()):
            if true != VOID:
                hits += true in ids and label in ids
                misses += true in ids and label not in ids
                false += true not in ids and label in ids
        ious.append(hits / (hits + misses + false))
    np.testing.assert_allclose(categories.iou(), ious, rtol=0, atol=1e-12)
    assert categories.mean_iou() > confusion.mean_iou()


def test_categories_are_of_cityscapes_in_any_order_and_of_nothing_else():
    names, confusion = list(load_label_set('cityscapes').names), ConfusionMatrix(19)
    confusion.counts[:, :19] = np.random.default_rng(7).integers(0, 9, (19, 19))
    other = ConfusionMatrix(19)
    other.counts[:, :19] = confusion.counts[::-1, 18::-1]
    np.testing.assert_array_equal(
        by_category(confusion, names).iou(), by_category(other, names[::-1]).iou())
    assert by_category(confusion, [*names[:18], 'tram']) is None
    assert by_category(ConfusionMatrix(11), load_label_set('camvid').names) is None


def test_tables_have_categories_only_where_there_are_some():
    values = dict.fromkeys(('mIoU', 'accuracy', 'mAcc', 'TC', 'VC8', 'VC16', 'parameters_M',
                            'GFLOPs', 'ms_per_frame', 'max_latency_ms'), 1.0)
    plain = {**values, 'TC_name': 'TC (DIS)', 'IoU': {'sky': 2.0}}
    both = {**plain, 'category_mIoU': 3.0, 'category_IoU': {'human': 4.0}}
    assert 'category' not in tables({'a': plain})
    text = tables({'a': plain, 'b': both})
    assert '| mIoU | category mIoU | mAcc |' in text
    assert '| a | 1.00 | - | 1.00 |' in text and '| b | 1.00 | 3.00 | 1.00 |' in text
    assert text.endswith('| category IoU | a | b |\n| --- | ---: | ---: |\n| human | - | 4.00 |')


def test_instance_iou_equals_a_loop():
    """As Cityscapes' own evaluation counts: every instance by its size, false hits by pixels."""
    rng, names = np.random.default_rng(8), ['road', 'person', 'car']
    confusion, instances = ConfusionMatrix(3), InstanceIoU(names)
    weighed, false = {1: [0.0, 0.0], 2: [0.0, 0.0]}, {1: 0, 2: 0}
    for _ in range(2):
        classes = rng.integers(0, 3, (20, 30))
        ids = np.where(classes > 0, 1000 * classes + rng.integers(0, 4, classes.shape) ** 2, -1)
        crowd = rng.random(classes.shape) < 0.1
        labels = np.where(rng.random(classes.shape) < 0.7, classes, rng.integers(0, 3, (20, 30)))
        ids, labels = np.where(crowd, -1, ids).astype(np.int32), labels.astype(np.uint8)
        confusion.update(classes.astype(np.uint8), labels)
        instances.update(ids, labels)
        for instance in set(ids[ids >= 0].tolist()):
            number, own = instance // 1000, labels[ids == instance]
            weight = MEAN_SIZES[names[number]] / len(own)
            for hit in (own == number).tolist():
                weighed[number][0 if hit else 1] += weight
        for number in false:
            false[number] += int(((labels == number) & (classes != number)).sum())
    expected = {names[number]: hits / (hits + misses + false[number])
                for number, (hits, misses) in weighed.items()}
    assert instances.iou(confusion) == pytest.approx(expected, abs=1e-12)
    instances.update(None, labels)  # a frame whose instances are not known
    assert instances.iou(confusion) == {}
