# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Auxiliary overparameterisation and deep supervision against plain loops in NumPy."""
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from term_checks import arrays, convolve, maps, softmax
from vseg_training.data import PADDING
from vseg_training.distill import maps_of
from vseg_training.losses import ohem_cross_entropy
from vseg_training.models.auxiliary import AuxiliaryModule, basic_cells, Cell, read_cells
from vseg_training.recipe import load_recipe, to_dict
from vseg_training.task import SegmentationTask
from vseg_training.terms import DeepSupervision, Overparameterised

K, CHANNELS, WIDTHS, GRIDS = 3, 4, (2, 5, 3), ((8, 12), (4, 6), (2, 3))
STAGES = [maps(number, 2, width, *grid) for number, (width, grid) in enumerate(zip(WIDTHS, GRIDS))]
LABELS = torch.tensor([[[0, 1, 2], [2, 255, 0]], [[1, 1, 254], [0, 2, 1]]])
SEARCHED = [[0, 2, 'sep3', 'skip', 'concat'], [2, 2, '1x1', 'skip', 'sum'],
            [3, 1, 'skip', 'sep3-d3', 'sum'], [5, 0, 'skip', 'sep3-d6', 'concat']]


def cross_entropy(scores, labels):
    return F.cross_entropy(scores, labels.where(labels < K, -100))


def lively(term):
    """Term in float64 whose batch norms are not the identity."""
    torch.manual_seed(1)
    for module in term.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return term.double()


def normalise(batch, norm):
    """Batch norm of a list of maps [C, h, w] by their own statistics."""
    weight, bias = arrays(norm.weight.detach(), norm.bias.detach())
    result = [np.empty_like(x) for x in batch]
    for c in range(len(batch[0])):
        values = np.concatenate([x[c].ravel() for x in batch])
        scale = weight[c] / np.sqrt(values.var() + norm.eps)
        for x, y in zip(batch, result):
            y[c] = (x[c] - values.mean()) * scale + bias[c]
    return result


def depthwise(x, weight, rate):
    """3x3 convolution of every channel for itself, whose taps are ``rate`` cells apart."""
    padded = np.pad(x, ((0, 0), (rate, rate), (rate, rate)))
    result = np.zeros_like(x)
    for c, y, column in np.ndindex(x.shape):
        for i in range(3):
            for j in range(3):
                result[c, y, column] += (
                    weight[c, 0, i, j] * padded[c, y + i * rate, column + j * rate])
    return result


def adapt(batch, adapter, rate=None):
    """Adapter of a list of maps: convolution (a separable one at a rate) and batch norm."""
    *separable, pointwise, norm = adapter
    if separable:
        batch = [depthwise(x, separable[0].weight.detach().numpy(), rate) for x in batch]
    weight = pointwise.weight.detach().numpy()
    return normalise([convolve(x, weight, np.zeros(len(weight))) for x in batch], norm)


def pool(x):
    """Means of equal blocks, to the size of the coarsest stage."""
    height, width = GRIDS[-1]
    rows, columns = x.shape[1] // height, x.shape[2] // width
    return np.array([[[x[c, rows * i:rows * (i + 1), columns * j:columns * (j + 1)].mean()
                       for j in range(width)] for i in range(height)] for c in range(len(x))])


def loop_loss(hidden, classify):
    """Mean cross-entropy of a classifier over the labelled cells."""
    weight, bias = arrays(classify.weight.detach(), classify.bias.detach())
    values = []
    for x, labels in zip(hidden, LABELS.numpy()):
        for i, j in np.argwhere(labels < K):
            scores = weight[:, :, 0, 0] @ x[:, i, j] + bias
            values.append(-np.log(softmax(scores)[labels[i, j]]))
    return np.mean(values)


@pytest.mark.parametrize('adapter, rate', [('1x1', 0), ('3x3', 0), ('sep3-d3', 3)])
@pytest.mark.parametrize('aggregate', ['concat', 'sum'])
def test_the_basic_module_is_equation_6_1(adapter, rate, aggregate):
    term = lively(Overparameterised(K, WIDTHS, adapter, aggregate, CHANNELS))
    first, third = term.module.adapters.values()
    adapters, hidden = [*first, third[1]], None
    for stage, layers in zip(STAGES, adapters):
        adapted = [pool(x) for x in adapt(stage.numpy(), layers, rate)]
        if hidden is None:
            hidden = adapted
        elif aggregate == 'sum':
            hidden = [h + x for h, x in zip(hidden, adapted)]
        else:
            hidden = [np.concatenate([h, x]) for h, x in zip(hidden, adapted)]
    expected = loop_loss(hidden, term.classify)
    assert term(STAGES, LABELS, cross_entropy).item() == pytest.approx(expected, rel=1e-12)


def test_a_searched_module_is_its_cells():
    """Of SEARCHED, written out by hand; the second cell is read by none and is not built."""
    term = lively(Overparameterised(K, WIDTHS, channels=CHANNELS, cells=SEARCHED))
    assert list(term.module.adapters) == ['3', '5', '6']
    fine, middle, coarse = STAGES
    x3 = [np.concatenate([pool(a), pool(b)]) for a, b in zip(
        adapt(fine.numpy(), term.module.adapters['3'][0], 1), coarse.numpy())]
    left, right = term.module.adapters['5']
    # x3 has 7 channels: before a sum a skip maps them to 4
    x5 = [a + pool(b) for a, b in zip(adapt(x3, left), adapt(middle.numpy(), right, 3))]
    x6 = [np.concatenate([a, pool(b)]) for a, b in zip(
        x5, adapt(fine.numpy(), term.module.adapters['6'][1], 6))]
    loss = term(STAGES, LABELS, cross_entropy)
    assert loss.item() == pytest.approx(loop_loss(x6, term.classify), rel=1e-12)
    loss.backward()  # under torchrun, processes wait for the gradient of every parameter
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_deep_supervision_sums_a_loss_of_every_stage():
    torch.manual_seed(0)
    term = DeepSupervision(K, WIDTHS).double()
    stages = [torch.from_numpy(np.stack([pool(x) for x in stage.numpy()])) for stage in STAGES]
    expected = sum(loop_loss(stage.numpy(), classify)
                   for stage, classify in zip(stages, term.classify))
    assert term(stages, LABELS, cross_entropy).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('options', [{}, {'cells': SEARCHED}, {'adapter': '3x3'}])
def test_every_stage_gets_the_gradient_of_finite_differences(options):
    term = lively(Overparameterised(K, WIDTHS, channels=2, **options))
    stages = [stage[:, :, :4, :6].clone().requires_grad_() for stage in STAGES]
    assert torch.autograd.gradcheck(lambda *x: term(x, LABELS, cross_entropy), stages)
    term(stages, LABELS, cross_entropy).backward()
    for stage in stages:  # pooling leaves no cell out, as sampling would
        assert (stage.grad.abs().amax(1) > 0).all()


@pytest.mark.parametrize('term', [
    Overparameterised(K, WIDTHS, '3x3', channels=CHANNELS),
    Overparameterised(K, WIDTHS, channels=CHANNELS, cells=SEARCHED), DeepSupervision(K, WIDTHS)])
def test_what_maps_hold_in_padding_changes_nothing(term):
    """Neither through the batch norms' statistics nor through neighbours."""
    term, counted = lively(term), torch.ones(2, 16, 24, dtype=torch.bool)
    counted[0, :, 14:] = False
    labels = torch.randint(0, K, (2, 16, 24), generator=torch.Generator().manual_seed(0))
    labels[~counted] = PADDING

    def loss(scores, labels):
        return cross_entropy(F.interpolate(scores, labels.shape[1:], mode='bilinear'), labels)

    before = term(STAGES, labels, loss, counted)
    noisy = []
    for stage in STAGES:
        inside = F.interpolate(counted[:, None].double(), stage.shape[2:], mode='nearest-exact')
        noisy.append(torch.where(inside > 0, stage, 100 * torch.randn_like(stage)))
    torch.testing.assert_close(term(noisy, labels, loss, counted), before, rtol=0, atol=0)
    assert term(noisy, labels, loss) != before  # the noise is there


def test_both_are_finite_in_bfloat16_and_where_all_is_padding():
    for term in (Overparameterised(K, WIDTHS), DeepSupervision(K, WIDTHS)):
        stages = [(50 * stage).bfloat16().requires_grad_() for stage in STAGES]
        for labels in (LABELS, torch.full_like(LABELS, PADDING)):
            with torch.autocast('cpu', torch.bfloat16):
                loss = term(stages, labels, lambda x, y: ohem_cross_entropy(
                    F.interpolate(x.float(), y.shape[1:]), y), labels != PADDING)
            loss.backward()
            assert torch.isfinite(loss)
            assert all(torch.isfinite(stage.grad).all() for stage in stages)


def test_cells_of_another_form_are_named():
    assert read_cells([[0, 1, '1x1', 'skip', 'sum']], 2) == [Cell(0, 1, '1x1', 'skip', 'sum')]
    assert basic_cells(4)[2] == Cell(5, 3, 'skip', '1x1', 'concat')
    for cell in ([0, 3, '1x1', '1x1', 'sum'], [0, True, '1x1', '1x1', 'sum'], [0, 1], 'skip',
                 [-1, 1, '1x1', '1x1', 'sum'], [0, 1, '1x1', '5x5', 'sum'],
                 [0, 1, '1x1', '1x1', 'max'], [0, 1, ['1x1'], 0, []]):
        with pytest.raises(ValueError, match='cells has .* at place 1: give .input'):
            read_cells([[0, 1, '1x1', '1x1', 'sum'], cell], 2)
    with pytest.raises(ValueError, match='cells name their own adapters'):
        Overparameterised(K, WIDTHS, '3x3', cells=SEARCHED)
    with pytest.raises(ValueError, match="aggregate is 'mean': use concat, sum"):
        Overparameterised(K, WIDTHS, aggregate='mean')


@pytest.mark.parametrize('model', [
    '{weights: null, channels: 16, key_channels: 8, num_prototypes: 4, head_widths: [16, 8]}',
    '{weights: null, channels: 16, key_channels: 8, num_prototypes: 4, head_widths: [],'
    ' short_term: msc}', '{kind: pspnet, width: 0.25, channels: 8}', '{kind: hrnet, width: 0.5}',
    '{kind: espnet_c}', '{kind: mobilenetv2plus, channels: 16}'])
def test_the_backbone_of_every_kind_learns_from_it_and_the_head_does_not(tmp_path, model):
    path = tmp_path / 'recipe.yaml'
    path.write_text(f'model: {model}\nloss: {{long_term: 0, ohem_min_kept: 0.3}}\n'
                    'terms: {overparameterised: {weight: 1, channels: 8}}\n')
    recipe = load_recipe(path)
    torch.manual_seed(0)
    task = SegmentationTask(to_dict(recipe))
    task.class_weights.copy_(torch.linspace(0.5, 1.5, len(task.class_weights)))
    clip, labels = 255 * torch.rand(2, 1, 3, 64, 96), torch.randint(0, 11, (2, 1, 64, 96))
    output = task.network(clip)
    terms = task._context_terms({'images': clip, 'labels': labels}, output)
    # the task's own loss: class weights and hard pixels, at the size of the network's scores
    term = task.terms.modules_by_name['overparameterised']
    scores = maps_of(output).scores
    scores = F.interpolate(term.classify(term.module([x[:, 0] for x in output['stages']])),
                           scores.shape[-2:], mode='bilinear')
    small = F.interpolate(labels.float()[:, 0][:, None], scores.shape[-2:], mode='nearest-exact')
    expected = ohem_cross_entropy(
        scores, small[:, 0].long(), task.class_weights, recipe.loss.ohem_threshold, 0.3)
    torch.testing.assert_close(terms['overparameterised'], expected)
    terms['overparameterised'].backward()
    grads = {name: parameter.grad for name, parameter in task.network.named_parameters()}
    assert all(grad is None for name, grad in grads.items() if not name.startswith('backbone.'))
    learning = [name for name, grad in grads.items() if grad is not None and grad.abs().sum() > 0]
    assert len(learning) > 0.9 * sum(name.startswith('backbone.') for name in grads)


def test_a_module_may_end_in_a_skip_of_a_stage():
    """A search can find that too."""
    module = AuxiliaryModule(WIDTHS, read_cells([[2, 2, 'skip', 'skip', 'concat']], 3), 4)
    assert module.width == 6 and not list(module.parameters())
    torch.testing.assert_close(module(STAGES), torch.cat([STAGES[2]] * 2, 1))
