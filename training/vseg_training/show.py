# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What prototypes look at: a picture of the soft projection matrix P (MGCNet, Fig. 6)."""
import cv2
import numpy as np
import torch

from ros_vseg.labels import colorize
from ros_vseg.resize import resize_image

from .evaluate import predict


WIDTH, MARGIN, TITLE = 320, 12, 36  # of a cell, between cells and of a line of titles, in pixels
PAPER, INK = (250, 250, 250), (32, 32, 32)
SEED = 0  # which prototypes are shown: the same of every model with as many


def projection_maps(model, image, chosen):
    """
    Chosen rows of P of one frame, each as an image.

    image uint8 [H, W, 3] RGB at the size of the network, chosen: indices of prototypes -> float32
    [n, h, w] in [0, 1]: the sigmoid of the map less its mean, over its standard deviation.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        frame = torch.as_tensor(image, device=device).permute(2, 0, 1)[None]
        _, features, _, projection = model.encode(frame)
    maps = projection[0, chosen].float()
    maps = (maps - maps.mean(1, True)) / maps.std(1, keepdim=True).clamp_min(1e-12)
    return maps.sigmoid().unflatten(1, features.shape[2:]).cpu().numpy()


def _heat(plane, size):
    """A map in [0, 1] as smooth colours uint8 [H, W, 3] RGB, the lighter the more."""
    plane = cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    heat = cv2.applyColorMap(np.rint(255 * plane).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)


def _row(model, source, drive, position, size, label_set, chosen):
    """Cells of one frame, which the stream sees after the frames that it remembers."""
    stream = model.stream()
    keys = source.drives[drive][max(0, position - model.context_frames):position + 1]
    for key in keys:
        image, truth = source.read(key)
        sized = resize_image(image, size)
        labels = predict(stream, sized, truth.shape)
    cell = WIDTH, round(WIDTH * size[0] / size[1])
    pictures = (image, colorize(truth, label_set), colorize(labels, label_set))
    # colours, not ids, are averaged: smooth edges
    return [*(cv2.resize(one, cell, interpolation=cv2.INTER_AREA) for one in pictures),
            *(_heat(plane, cell) for plane in projection_maps(model, sized, chosen))]


def _title(text):
    """A title, centred, as uint8 [TITLE, WIDTH, 3]."""
    picture = np.full((TITLE, WIDTH, 3), PAPER, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX, 0.65
    (width, height), _ = cv2.getTextSize(text, *font, 1)
    place = (WIDTH - width) // 2, (TITLE + height) // 2
    cv2.putText(picture, text, place, *font, INK, 1, cv2.LINE_AA)
    return picture


def _grid(titles, rows):
    """Cells of equal size with even margins around them, and titles above."""
    height, width = rows[0][0].shape[:2]
    picture = np.full((TITLE + len(rows) * (height + MARGIN),
                       MARGIN + len(titles) * (width + MARGIN), 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        x = MARGIN + column * (width + MARGIN)
        picture[:TITLE, x:x + width] = _title(title)
        for row, cells in enumerate(rows):
            y = TITLE + row * (height + MARGIN)
            picture[y:y + height, x:x + width] = cells[column]
    return picture


def show(model, source, size, label_set, frames, prototypes):
    """
    Draw frames of a source, their truth and prediction, and projection maps of a few prototypes.

    model: Student or Teacher in eval mode; size: (height, width) of its input; frames: rows,
    spread evenly; prototypes: how many, drawn with a fixed seed, the same in all rows. Returns the
    bytes of a PNG. ValueError if there are not that many, or for a model without prototypes.
    """
    places, count = source.frames(), getattr(model.prototypes, 'projection', None)
    if count is None:
        raise ValueError('this model has no prototypes to show: its non_local is not prototype')
    count = count.out_channels
    if not 1 <= frames <= len(places) or not 1 <= prototypes <= count:
        raise ValueError(f'show takes 1 to {len(places)} frames and 1 to {count} prototypes: '
                         f'{frames} and {prototypes} were asked for')
    chosen = sorted(np.random.default_rng(SEED).choice(count, prototypes, replace=False))
    spread = np.linspace(0, len(places) - 1, frames).round().astype(int)
    rows = [_row(model, source, *places[index], size, label_set, chosen) for index in spread]
    titles = ['image', 'ground truth', 'prediction', *(f'prototype {one}' for one in chosen)]
    _, png = cv2.imencode('.png', cv2.cvtColor(_grid(titles, rows), cv2.COLOR_RGB2BGR))
    return png.tobytes()
