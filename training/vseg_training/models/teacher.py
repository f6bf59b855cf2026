# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's teacher: multi-stream short-term context (MSC) with one head per frame of context."""
import torch
from torch import nn

from .network import MGCNet
from .stream import TeacherStream


def mean_prediction(streams):
    """
    Mean of the streams' probabilities (MGCNet Eq. 9), over the streams that a frame has.

    streams: stream tau as float [B, L - tau, ...], for the frames tau..L-1 of a clip, as
    ``Teacher.forward`` gives them -> [B, L, ...] in float32.
    """
    total = torch.zeros_like(streams[0], dtype=torch.float32)
    for tau, stream in enumerate(streams):
        total[:, tau:] += stream
    return total / _stream_count(streams)


def _stream_count(streams):
    """Streams per frame of a clip, shaped to divide [B, L, ...]."""
    like = streams[0]
    count = torch.arange(1, like.shape[1] + 1, device=like.device).clamp(max=len(streams))
    return count.view(1, -1, *[1] * (like.dim() - 2))


class Teacher(MGCNet):
    """
    MGCNet with the multi-stream short-term context (MSC, Eq. 7 to 9).

    Stream tau attends to the prototypes of frame t - tau and has a head of its own. ``dropout``
    acts in these heads, and stays active after ``monte_carlo``.
    """

    def __init__(self, num_classes, head_widths=(96, 64), dropout=0.1, **options):
        super().__init__(num_classes, head_widths=head_widths, **options)
        self.heads = nn.ModuleList(
            self.build_head(head_widths, dropout) for _ in range(self.context_frames + 1))

    def monte_carlo(self):
        """Eval mode, but with the dropout of the stream heads active (MC dropout, Sec. III-D)."""
        self.eval()
        for head in self.heads:
            head.dropout.train()
        return self

    def forward(self, clip, places=None):
        """
        Segment every frame of a clip by as many streams as it has earlier frames, plus one.

        places [B, 4]: where in the camera image the clips lie (``position_codes``); None: they are
        whole images. Returns a dict: streams, a list of scores [B, L - tau, K, h', w'] for
        tau = 0..min(T, L-1), auxiliary [B, L, K, h16, w16], features [B, L, C, h, w], projection
        [B, L, N, h*w].
        """
        batch, length = clip.shape[:2]
        codes = self.codes(clip, places)
        if codes is not None:
            codes = codes.expand(batch, -1, -1, -1).repeat_interleave(length, 0)
        stages, features, memory, projection = self.encode(clip.flatten(0, 1), codes)
        memory = memory.unflatten(0, (batch, length))

        def frames_from(x, tau):
            return x.unflatten(0, (batch, length))[:, tau:].flatten(0, 1)

        streams = []
        for tau, head in enumerate(self.heads[:length]):
            scores = self.segment(
                head, [frames_from(stage, tau) for stage in stages], frames_from(features, tau),
                memory[:, :length - tau].flatten(0, 1),
                codes=None if codes is None else frames_from(codes, tau))
            streams.append(scores.unflatten(0, (batch, length - tau)))
        output = {'auxiliary': self.auxiliary(stages[2]), 'features': features,
                  'projection': projection}
        output = {name: value if value is None else value.unflatten(0, (batch, length))
                  for name, value in output.items()}
        return {'streams': streams, **output}

    def step(self, image, memories):
        """
        One frame of a stream.

        image uint8 [B, H, W, 3], memories: those of the last T frames, newest first, each
        [B, N, D] -> (streams' scores [S, B, K, h', w'], memory [B, N, D], projection [B, N, h*w]).
        """
        stages, features, memory, projection = self.encode(
            image.to(self.mean.dtype).permute(0, 3, 1, 2))
        context = [memory, *memories][:len(self.heads)]
        scores = [self.segment(head, stages, features, old)
                  for head, old in zip(self.heads, context)]
        return torch.stack(scores), memory, projection

    def stream(self):
        """Return a stream that starts without earlier frames."""
        return TeacherStream(self)
