"""Receptive fields computed from layers are right and tight, and a stream equals a whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.config.named import named
from melcap.model.griffin_lim import FirstGuess, GriffinLim, Unfold
from melcap.model.layers import (
    Conv1d,
    Conv2d,
    ConvNeXt1d,
    Down2d,
    HaarSplit,
    Output2d,
    ResBlock2d,
    Up2d,
    Upsample1d,
)
from melcap.model.mel import LogMel
from melcap.model.stages import Chain, Stage, StageStream, inputs_for, outputs_of, rate, run
from melcap.model.vocoder import ISTFTHead
from tests.helpers import SMALL, cut, draw_weights, examples, noise, piece_sizes

IN_TIME = (1, 2)
"""The stride of a level that halves time alone."""


class Windowed(Stage):
    """A stage of any arithmetic: `up` weighted sums of each window, without a zero weight."""

    def __init__(self, left: int, right: int, down: int, up: int) -> None:
        super().__init__()
        self.left, self.right, self.down, self.up = left, right, down, up
        width = left + down + right
        steps, sums = torch.arange(width), torch.arange(up)
        self.weight = (1 + torch.cos(steps[:, None] + 5.0 * sums).double() / 2) / width

    def forward(self, x: Tensor) -> Tensor:
        return (x.unfold(-1, len(self.weight), self.down) @ self.weight).flatten(-2)


@st.composite
def windowed(draw: st.DrawFn) -> list[Stage]:
    """Draw stages that stride, then perhaps one that also upsamples, then stages that upsample."""
    context, factor = st.integers(0, 4), st.integers(1, 4)
    stages: list[Stage] = []
    for _ in range(draw(st.integers(1, 4))):
        upsampled = any(stage.up > 1 for stage in stages)
        down = 1 if upsampled else draw(factor)
        up = draw(factor) if draw(st.booleans()) else 1
        stages.append(Windowed(draw(context), draw(context), down, up))
    return stages


@st.composite
def layers(draw: st.DrawFn) -> list[Stage]:
    """Draw a chain of a codec's layers, in float64, for [1, 3, steps] or [1, 3, 8, steps]."""
    seed = draw(st.integers(0, 2**32))
    made: list[Stage] = []
    if draw(st.booleans()):
        for kind in draw(st.lists(st.sampled_from("cnu"), min_size=1, max_size=4)):
            if kind == "c":
                made.append(Conv1d(3, 3, draw(st.sampled_from([1, 3, 5, 7]))))
            elif kind == "n":
                made.append(ConvNeXt1d(3, 5, 1.0))
            else:
                made.append(Upsample1d(3, 3, draw(st.integers(2, 5))))
        if draw(st.booleans()):
            overlap = draw(st.integers(3, 6))
            head = ISTFTHead(3, 2 * draw(st.integers(1, 4)), overlap)
            steps = draw(st.integers(0, 2))
            made = griffin_lim(made, head, steps) if steps else [*made, head]
    else:
        rows = 8
        strides = draw(st.integers(0, 2))
        for _ in range(strides):
            stage = draw(st.sampled_from([Down2d(3, 3), Down2d(3, 3, IN_TIME), MixedHaar()]))
            made.append(stage)
            rows //= stage.conv.stride[0] if isinstance(stage, Down2d) else 2
            if draw(st.booleans()):
                made.append(ResBlock2d(3))
        for kind in draw(st.lists(st.sampled_from("corut"), min_size=not strides, max_size=3)):
            made.append(
                {"c": Conv2d(3, 3, rows), "o": Output2d(3, 3), "r": ResBlock2d(3)}.get(kind)
                or Up2d(3, 3, (2, 2) if kind == "u" else IN_TIME)
            )
            rows *= 2 if kind == "u" else 1
    return [randomised(stage, seed) for stage in made]


def griffin_lim(before: list[Stage], head: ISTFTHead, steps: int) -> list[Stage]:
    """Return the stages and the head as a first guess of 3 channels, and `steps` steps after it."""
    hop = head.up
    for stage in before:
        hop *= stage.up
    guess = FirstGuess(Chain(*before, head), 3, 4 * hop, hop)
    return [guess, GriffinLim(4 * hop, hop, 0.5, steps), Unfold(hop)]


def randomised(stage: Stage, seed: int) -> Stage:
    """Return the stage in float64 with new random weights, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    stage.double()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return stage


class MixedHaar(HaarSplit):
    """Haar patches with the channels mixed, so that it fits any chain."""

    def forward(self, x: Tensor) -> Tensor:
        share = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=x.dtype)
        return torch.einsum("bkcft,k->bcft", super().forward(x).unflatten(1, (4, -1)), share)


def arithmetic(stage: Stage) -> tuple[object, ...]:
    return type(stage), stage.left, stage.right, stage.down, stage.up


def signal(stages: list[Stage], steps: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape: tuple[int, ...] = (1, steps)
    if not isinstance(stages[0], Windowed):
        flat = isinstance(stages[0], (Conv1d, ConvNeXt1d, Upsample1d, ISTFTHead, FirstGuess))
        shape = (1, 3, steps) if flat else (1, 3, 8, steps)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


chains = st.one_of(windowed(), layers())


@settings(max_examples=examples(50))
@given(chains, st.integers(-30, 30), st.integers(1, 40), st.integers(0, 2**32))
def test_a_run_over_the_receptive_field_returns_the_requested_steps(
    stages: list[Stage], first: int, count: int, seed: int
) -> None:
    begin, end = inputs_for(stages, first, first + count)
    given_first, given_last = outputs_of(stages, begin, end)
    assert given_first <= first
    assert given_last >= first + count
    x = signal(stages, end - begin, seed)
    assert run(stages, x).shape[-1] == given_last - given_first
    # The field is no larger than needed: with one input less on either side, steps are missing.
    assert outputs_of(stages, begin + 1, end)[0] > first
    assert outputs_of(stages, begin, end - 1)[1] < first + count


@settings(max_examples=examples(50))
@given(chains, st.integers(-30, 30), st.integers(1, 200), st.integers(0, 2**32))
def test_outputs_of_any_number_of_inputs(
    stages: list[Stage], first: int, steps: int, seed: int
) -> None:
    """A run from the beginning of a field returns exactly the outputs of `outputs_of`."""
    begin, enough = inputs_for(stages, first, first + 1)
    given_first, given_last = outputs_of(stages, begin, begin + steps)
    assert given_first <= first
    _, needed = inputs_for(stages, given_last, given_last + 1)
    assert needed > begin + steps
    if begin + steps < enough:
        assert given_last <= first
        return
    x = signal(stages, steps, seed)
    assert run(stages, x).shape[-1] == given_last - given_first


@settings(max_examples=examples(40))
@given(chains, st.integers(1, 12), st.integers(0, 2**32))
def test_rate_is_output_steps_per_input_steps(stages: list[Stage], times: int, seed: int) -> None:
    up, down = rate(stages)
    _, enough = inputs_for(stages, 0, up)
    before = -inputs_for(stages, 0, up)[0]
    assume(before + enough + times * down < 20_000)
    x = signal(stages, before + enough + times * down, seed)
    longer, shorter = run(stages, x), run(stages, x[..., : before + enough])
    assert longer.shape[-1] - shorter.shape[-1] == times * up


@settings(max_examples=examples(50))
@given(chains, st.integers(0, 30), st.integers(1, 12), st.integers(0, 2**32))
def test_inputs_outside_the_receptive_field_have_no_effect(
    stages: list[Stage], first: int, count: int, seed: int
) -> None:
    begin, end = inputs_for(stages, first, first + count)
    # as many steps again on both sides, rounded to whole strides
    _, stride = rate(stages)
    before = -(-(end - begin) // stride) * stride
    around = begin - before
    x = signal(stages, end - around + before, seed)
    other = signal(stages, end - around + before, seed + 1)
    other[..., before : end - around] = x[..., before : end - around]
    given_first, given_last = outputs_of(stages, around, end + before)
    assert given_first <= first
    assert given_last >= first + count
    asked = slice(first - given_first, first - given_first + count)
    torch.testing.assert_close(
        run(stages, x)[..., asked], run(stages, other)[..., asked], rtol=1e-12, atol=1e-12
    )


def sensitivity(stages: list[Stage], x: Tensor, asked: slice) -> Tensor:
    """Return how much each input step changes the outputs `asked`."""
    x = x.requires_grad_()
    output = run(stages, x)[..., asked]
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((output * direction.to(output)).sum(), x)
    return gradient.abs().flatten(0, -2).amax(0)


ONE_LAYER = [
    *(Conv1d(3, 3, kernel) for kernel in (1, 3, 7)),
    ConvNeXt1d(3, 5, 1.0),
    *(Upsample1d(3, 3, stride) for stride in (2, 3, 5)),
    *(ISTFTHead(3, 4, overlap) for overlap in (3, 4, 5)),
    Conv2d(3, 3, 8),
    Output2d(3, 3),
    ResBlock2d(3),
    Down2d(3, 3),
    Down2d(3, 3, IN_TIME),
    Up2d(3, 3),
    Up2d(3, 3, IN_TIME),
]


@settings(max_examples=examples(60))
@given(
    # Single layers only: a chain may depend on less than its receptive field, because not every
    # sample of an upsampled step depends on both neighbours of the step.
    st.one_of(windowed(), st.sampled_from(ONE_LAYER).map(lambda layer: [randomised(layer, 0)])),
    st.integers(0, 30),
    st.integers(1, 8),
    st.integers(0, 2**32),
)
def test_both_ends_of_the_receptive_field_have_an_effect(
    stages: list[Stage], block: int, blocks: int, seed: int
) -> None:
    up, _ = rate(stages)
    first, last = block * up, (block + blocks) * up
    begin, end = inputs_for(stages, first, last)
    given_first, _ = outputs_of(stages, begin, end)
    x = signal(stages, end - begin, seed)
    moved = sensitivity(stages, x, slice(first - given_first, last - given_first))
    assert moved[0] > 0
    assert moved[-1] > 0


@pytest.fixture(scope="module", params=["lite", "half-rate"])
def full(request: pytest.FixtureRequest) -> CodecConfig:
    return CodecConfig() if request.param == "lite" else named("half-rate")


@pytest.fixture(scope="module")
def thin(full: CodecConfig) -> Codec:
    """Return the layers of a full codec with few channels and random weights, in float64."""
    channels = (6,) * len(full.tokenizer.channels)
    tokenizer = replace(full.tokenizer, channels=channels, codebook_size=50, codebook_dim=4)
    vocoder = replace(
        full.vocoder, dim=8, hidden=8, stage_channels=(6,) * len(full.vocoder.strides)
    )
    return draw_weights(Codec(replace(full, tokenizer=tokenizer, vocoder=vocoder))).double()


def test_receptive_field_of_a_column_of_tokens(thin: Codec, full: CodecConfig) -> None:
    """One column depends on exactly the samples of `inputs_for`, except the first of them.

    A periodic Hann window begins with a zero.
    """
    stages = thin.encode_stages
    assert (*map(arithmetic, stages),) == (*map(arithmetic, Codec(full).encode_stages),)
    begin, end = inputs_for(stages, 0, 1)
    wide_begin, wide_end = inputs_for(stages, -2, 3)
    x = noise(1, wide_end - wide_begin, seed=2).double()
    moved = sensitivity(stages, x, slice(2, 3))
    before, after = begin - wide_begin, wide_end - end
    assert not moved[: before + 1].any()
    assert moved[before + 1] > 0
    assert moved[-after - 1] > 0
    assert not moved[-after:].any()


def test_receptive_field_of_a_column_of_samples(thin: Codec, full: CodecConfig) -> None:
    """One column of samples depends on exactly the columns of latents of `inputs_for`."""
    stages, unit = thin.decode_stages, thin.config.column_samples
    assert (*map(arithmetic, stages),) == (*map(arithmetic, Codec(full).decode_stages),)
    begin, end = inputs_for(stages, 0, unit)
    wide_begin, wide_end = inputs_for(stages, -2 * unit, 3 * unit)
    given, _ = outputs_of(stages, wide_begin, wide_end)
    config = thin.config
    x = noise(1, config.tokenizer.codebook_dim, config.rows, wide_end - wide_begin).double()
    moved = sensitivity(stages, x, slice(-given, unit - given))
    before, after = begin - wide_begin, wide_end - end
    assert not moved[:before].any()
    assert moved[before] > 0
    assert moved[-after - 1] > 0
    assert not moved[-after:].any()


@settings(max_examples=examples(50))
@given(chains, st.integers(1, 200), piece_sizes(40), st.integers(0, 2**32))
def test_a_stream_returns_what_one_run_returns(
    stages: list[Stage], steps: int, sizes: list[int], seed: int
) -> None:
    x = signal(stages, steps, seed)
    stream = StageStream(stages)
    parts = [part for piece in cut(x, sizes) if (part := stream.push(piece)) is not None]
    begin, _ = inputs_for(stages, 0, 1)
    first, last = outputs_of(stages, begin, begin + steps)
    if last == first:
        assert not parts
        return
    whole = run(stages, x)
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, rtol=1e-10, atol=1e-10)


@settings(max_examples=examples(25))
@given(chains, piece_sizes(60), st.integers(0, 2**32))
def test_a_stream_holds_what_its_next_outputs_need_and_no_more(
    stages: list[Stage], sizes: list[int], seed: int
) -> None:
    stream = StageStream(stages)
    for piece in cut(signal(stages, 300, seed), sizes):
        stream.push(piece)
        for stage, held in zip(stages, stream._pending, strict=True):
            if held is not None:
                assert held.shape[-1] < stage.left + stage.down + stage.right
                storage = held.untyped_storage().nbytes()
                assert storage <= 2 * held.numel() * held.element_size()


@settings(max_examples=examples(25))
@given(chains, piece_sizes(60), st.integers(0, 2**32))
def test_no_stage_of_a_stream_returns_a_step_twice(
    stages: list[Stage], sizes: list[int], seed: int
) -> None:
    """Each stage returns as many steps as in one run over all of its input."""
    made = [0] * len(stages)

    def count(index: int) -> Callable[..., None]:
        def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            made[index] += output.shape[-1]

        return note

    hooks = [stage.register_forward_hook(count(index)) for index, stage in enumerate(stages)]
    stream = StageStream(stages)
    for piece in cut(signal(stages, 300, seed), sizes):
        stream.push(piece)
    for hook in hooks:
        hook.remove()
    given = 300
    for stage, found in zip(stages, made, strict=True):
        given = max(0, (given - stage.left - stage.right) // stage.down) * stage.up
        assert found == given


def test_a_stream_copies_the_buffer_of_its_caller() -> None:
    stages = [Windowed(2, 2, 1, 1)]
    x = signal(stages, 8, seed=0)
    stream, buffer = StageStream(stages), x[..., :3].clone()
    assert stream.push(buffer) is None
    buffer.zero_()
    torch.testing.assert_close(stream.push(x[..., 3:]), run(stages, x))


def test_streams_do_not_share_state(codec: Codec) -> None:
    x = noise(2, 60_000)
    streams = [StageStream(codec.encode_stages) for _ in x]
    found: list[list[Tensor]] = [[], []]
    for begin in range(0, 60_000, 3000):
        for stream, row, parts in zip(streams, x, found, strict=True):
            part = stream.push(row[None, begin : begin + 3000])
            if part is not None:
                parts.append(part)
    whole = run(codec.encode_stages, x)
    for parts, expected in zip(found, whole, strict=True):
        joined = torch.cat(parts, dim=-1)[0]
        torch.testing.assert_close(joined, expected[..., : joined.shape[-1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "stage",
    [Conv1d(3, 3, 1), Conv1d(3, 3, 7), ConvNeXt1d(3, 5, 1.0), Conv2d(3, 3, 8), ResBlock2d(3)],
    ids=lambda stage: type(stage).__name__,
)
def test_identity_kernels_do_not_shift_the_signal(stage: Stage) -> None:
    """Output step i is input step i if the middle of the kernel is one and the rest zero."""
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.zero_()
        if isinstance(stage, (Conv1d, Conv2d)):
            middle = tuple(size // 2 for size in stage.conv.kernel_size)
            for channel in range(3):
                stage.conv.weight[(channel, channel, *middle)] = 1
            stage.norm = torch.nn.Identity()
    flat = isinstance(stage, (Conv1d, ConvNeXt1d))
    signal = noise(*((1, 3, 50) if flat else (1, 3, 8, 50)))
    first, last = inputs_for([stage], 20, 30)
    torch.testing.assert_close(run([stage], signal[..., first:last]), signal[..., 20:30])


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_upsampling_does_not_shift_the_signal(stride: int) -> None:
    """Linear interpolation leaves a straight line where it is."""
    stage = Upsample1d(1, 1, stride)
    stage.norm = torch.nn.Identity()  # type: ignore[assignment]
    place = (torch.arange(2 * stride) + 0.5) / stride
    with torch.no_grad():
        stage.alpha.fill_(1e-6)  # next to no activation
        stage.weight.copy_(1 - (place - 1).abs())
    first, last = inputs_for([stage], 10 * stride, 20 * stride)
    middles = torch.arange(first, last) + 0.5
    found = run([stage], middles[None, None])
    expected = (torch.arange(10 * stride, 20 * stride) + 0.5) / stride
    given_first, given_last = outputs_of([stage], first, last)
    assert (given_first, given_last) == (10 * stride, 20 * stride)
    torch.testing.assert_close(found[0, 0], expected, atol=1e-3, rtol=0)


def test_a_frame_is_centred_on_its_hop() -> None:
    """A click in the middle of a hop is as loud in the frame before as in the frame after."""
    spec = replace(SMALL.mel, floor=1e-12)
    front = LogMel(spec)
    first, last = inputs_for([front], 9, 12)
    wave = torch.zeros(1, last - first, dtype=torch.float64)
    wave[0, 10 * spec.hop + spec.hop // 2 - first] = 1
    before, at, after = front(wave)[0].t()
    torch.testing.assert_close(before, after)
    assert (at > before).all()
