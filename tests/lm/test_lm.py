"""The tools for language models: ids, packing, the delay pattern, and the end of a generation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.lm import (
    Block,
    SilenceStop,
    Vocabulary,
    apply_delay_pattern,
    initial_embedding,
    pack,
    revert_delay_pattern,
)
from tests.helpers import noise
from tests.model.base.published import TINY, codec_of

ROWS = 3
BEHIND = Vocabulary(300, ROWS, offset=1000, bos=1, eos=2, pad=0)
"""Audio ids after a text tokenizer's, and its special ids."""


@st.composite
def documents_of_columns(draw: st.DrawFn) -> list[int]:
    """Draw flat tokens of whole columns, where token modulo `ROWS` is the row."""
    columns = draw(st.integers(1, 12))
    return [ROWS * draw(st.integers(0, 99)) + place % ROWS for place in range(columns * ROWS)]


def rows_of_blocks(blocks: list[Block]) -> tuple[Tensor, Tensor]:
    return torch.stack([b.ids for b in blocks]), torch.stack([b.documents for b in blocks])


@given(
    documents_of_columns() | st.just([]),
    st.sampled_from([list, tuple, np.array, torch.tensor]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_ids_give_their_tokens(
    tokens: list[int], form: Any, bos: bool, eos: bool, aligned: bool
) -> None:
    if not tokens and form in (np.array, torch.tensor):
        form = list  # an empty one holds floats
    ids = BEHIND.encode(form(tokens), bos, eos, aligned)
    assert ids.dtype == torch.int64
    repeats = ROWS if aligned else 1
    expected = [1] * repeats * bos + [token + 1000 for token in tokens] + [2] * repeats * eos
    assert ids.tolist() == expected
    assert BEHIND.decode(form(expected) if expected else expected).tolist() == tokens


@pytest.mark.parametrize(
    ("ids", "tokens"),
    [
        ([0, 0, 1, 1005, 1006, 0, 1007, 2, 1008, 2], [5, 6, 7]),
        ([1005, 17, 999, 1300, 1299], [5, -1, -1, -1, 299]),
        ([1005, 1, 1006, 1007], [5, 6, 7]),
        ([2, 1005], []),
        ([1, 0, 0], []),
        (np.array([2**64 - 1, 1001], dtype=np.uint64), [-1, 1]),
    ],
)
def test_generated_ids(ids: Any, tokens: list[int]) -> None:
    assert BEHIND.decode(ids).tolist() == tokens


def test_one_id_may_begin_and_end() -> None:
    vocabulary = dataclasses.replace(BEHIND, bos=2)
    ids = vocabulary.encode([4, 5, 6], bos=True, eos=True, aligned=True)
    assert vocabulary.decode([0, *ids.tolist(), 1007]).tolist() == [4, 5, 6]


def test_foreign_ids_are_for_decode_tokens_to_deal_with(codec: Codec) -> None:
    vocabulary = Vocabulary.of(codec, offset=1000)
    assert vocabulary.rows == ROWS
    tokens = vocabulary.decode([1005, 17, 1007])
    with pytest.raises(InputError, match="-1 at position 1"):
        codec.decode_tokens(tokens)
    silence = int(codec.silence[1])
    torch.testing.assert_close(
        codec.decode_tokens(tokens, on_invalid="silence"),
        codec.decode_tokens([5, silence, 7]),
    )


def test_layout(codec: Codec) -> None:
    vocabulary = Vocabulary.of(codec)
    assert dataclasses.astuple(vocabulary) == (300, ROWS, 0, 300, 301, 302)
    assert vocabulary.size == 303
    # an id that is given is not given away again
    skipped = Vocabulary.of(codec, offset=50, bos=350)
    assert dataclasses.astuple(skipped) == (300, ROWS, 50, 350, 351, 352)
    seven: Any = np.int64(7)
    following = Vocabulary.of(codec, offset=50, eos=351, pad=seven)
    assert dataclasses.astuple(following) == (300, ROWS, 50, 350, 351, 7)
    assert type(following.pad) is int
    assert following.size == 352
    assert Vocabulary.of(codec, offset=9, bos=1, eos=2, pad=3).size == 309


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bos": 1000}, "bos must not be an audio id"),
        ({"eos": 1299}, "eos must not be an audio id"),
        ({"pad": 1100}, "pad must not be an audio id"),
        ({"pad": 1}, "pad must differ"),
        ({"pad": 2}, "pad must differ"),
        ({"bos": -1}, "bos must be at least 0"),
        ({"offset": -300}, "offset must be at least 0"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"eos": 2.0}, "eos must be a whole number"),
    ],
)
def test_layouts_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(BEHIND, **change)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([0, 1], "whole columns of 3, not 2 tokens"),
        ([0, 300, 1], "not 300 at position 1"),
        ([0, 1, -1], "not -1 at position 2"),
        ([[0, 1, 2]], "one flat sequence"),
        ([0.0, 1.0, 2.0], "must be integers"),
    ],
)
def test_tokens_that_are_refused(tokens: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BEHIND.encode(tokens)


@pytest.mark.slow
@given(
    st.lists(documents_of_columns(), max_size=8), st.integers(1, 7), st.booleans(), st.booleans()
)
def test_blocks_hold_every_document(
    documents: list[list[int]], columns: int, bos: bool, eos: bool
) -> None:
    length = columns * ROWS
    blocks = list(pack(iter(documents), BEHIND, length, bos, eos))
    total = sum(len(document) + ROWS * (bos + eos) for document in documents)
    assert len(blocks) == -(-total // length)  # no gap
    if not blocks:
        return
    ids, numbers = rows_of_blocks(blocks)
    assert ids.shape == numbers.shape == (len(blocks), length)
    assert ids.dtype == numbers.dtype == torch.int64
    for number, document in enumerate(documents):
        begin, end = [1] * ROWS * bos, [2] * ROWS * eos
        own = [*begin, *(token + 1000 for token in document), *end]
        assert ids[numbers == number].tolist() == own
    # PAD stands after all else, and belongs to no document
    assert (numbers == -1).flatten().tolist() == [False] * total + [True] * (ids.numel() - total)
    torch.testing.assert_close(numbers == -1, ids == 0)
    # position modulo rows is the row, which the tokens tell; special ids fill whole columns
    row = torch.arange(length).expand_as(ids) % ROWS
    audio = ids >= 1000
    assert ((ids - 1000) % ROWS == row)[audio].all()
    special = (~audio).view(-1, ROWS)
    torch.testing.assert_close(special.any(dim=1), special.all(dim=1))


def test_packing_reads_no_further_than_the_block_needs() -> None:
    read = 0

    def endless() -> Iterator[list[int]]:
        nonlocal read
        for read in itertools.count(1):  # noqa: B007
            yield [1, 2, 3]

    blocks = pack(endless(), BEHIND, length=12)
    assert [read for _ in itertools.islice(blocks, 3)] == [2, 4, 6]


def test_blocks_make_batches() -> None:
    """`DataLoader` collates blocks, and a yielded block does not change any more."""
    blocks = pack([[1, 2, 3]] * 5, BEHIND, length=6)
    batches = list(torch.utils.data.DataLoader(list(blocks), batch_size=5))
    assert batches[0].ids.tolist() == [[1001, 1002, 1003, 2, 2, 2]] * 5
    assert batches[0].documents.tolist() == [[number] * 6 for number in range(5)]


@pytest.mark.parametrize("length", [0, 2, 10, -3])
def test_block_lengths_that_are_refused(length: int) -> None:
    with pytest.raises(InputError, match="length must be"):
        pack([[1, 2, 3]], BEHIND, length)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "document 1: it is empty"),
        ([1, 2], "document 1: tokens must be whole columns"),
        ([1, 2, 300], "document 1: tokens must be in 0..299, not 300"),
        (7, "document 1: "),
    ],
)
def test_documents_that_are_refused(document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(pack([[1, 2, 3], document], BEHIND, 6))


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 9), st.integers(0, 2**31)
)
def test_delays_have_an_inverse(delays: list[int], columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(100, (2, len(delays), columns), generator=generator)
    steps = apply_delay_pattern(grid, fill=-5, delays=delays)
    assert steps.shape == (2, len(delays), columns + max(delays))
    for row, delay in enumerate(delays):
        assert steps[0, row].tolist() == [
            *[-5] * delay,
            *grid[0, row].tolist(),
            *[-5] * (max(delays) - delay),
        ]
    assert revert_delay_pattern(steps, delays).tolist() == grid.tolist()


def test_the_default_delays_are_those_of_musicgen() -> None:
    grid = np.arange(12).reshape(3, 4)
    steps = apply_delay_pattern(grid, fill=99)
    assert steps.tolist() == [
        [0, 1, 2, 3, 99, 99],
        [99, 4, 5, 6, 7, 99],
        [99, 99, 8, 9, 10, 11],
    ]
    assert revert_delay_pattern(steps[:, :3]).tolist() == [[0], [4], [8]]


@pytest.mark.parametrize(
    ("shape", "delays", "message"),
    [
        ((3, 2), None, "2 steps hold no whole column"),
        ((2, 4), [0, 4], "after 5 steps"),
        ((3,), None, "must be"),
        ((2, 9), [0, 1, 2], "2 numbers"),
        ((2, 9), [1, -1], "from 0 up"),
        ((2, 9), [0.5, 1.0], "integers"),
    ],
)
def test_steps_that_are_refused(shape: tuple[int, ...], delays: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        revert_delay_pattern(torch.zeros(shape, dtype=torch.int64), delays)


@pytest.mark.parametrize("width", [8, 64])
def test_distances_between_tokens_keep_their_ratios(codec: Codec, width: int) -> None:
    vocabulary = Vocabulary.of(codec, offset=5000)
    weight = initial_embedding(codec, vocabulary, width, std=0.05)
    assert weight.shape == (vocabulary.size, width)
    assert weight.dtype == torch.float32
    ratios = torch.pdist(weight[vocabulary.audio]) / torch.pdist(codec.codebook.vectors)
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-3, atol=0)
    audio, text = weight[vocabulary.audio], weight[:5000]
    torch.testing.assert_close(audio.square().mean().sqrt(), torch.tensor(0.05))
    torch.testing.assert_close(audio.mean(dim=0), torch.zeros(width), rtol=0, atol=1e-5)
    assert 0.045 < text.std() < 0.055
    assert (audio.std(dim=0) > 0.005).all()  # spread over the whole width


def test_tokens_of_a_base_codec() -> None:
    base: Any = codec_of(TINY[0])
    codes = base.encode(noise(3, 30_000), 44100)
    flat = codes.flatten()
    vocabulary = Vocabulary.of(base, offset=1000)
    assert dataclasses.astuple(vocabulary) == (512, 12, 1000, 1512, 1513, 1514)
    blocks = list(pack(flat, vocabulary, length=60, bos=True))
    ids, documents = rows_of_blocks(blocks)
    for number, tokens in enumerate(flat):
        own = vocabulary.decode(ids[documents == number])
        assert own.tolist() == tokens.tolist()
        whole = base.decode(base.codes_of(codes.tokens[number]))
        assert torch.equal(base.decode_tokens(own), whole)
    steps = apply_delay_pattern(codes.tokens, fill=512)
    assert steps.shape == (3, 12, 15 + 11)
    assert torch.equal(revert_delay_pattern(steps), codes.tokens)
    weight = initial_embedding(base, vocabulary, 24)
    ratios = torch.pdist(weight[vocabulary.audio]) / torch.pdist(base.codebook.vectors)
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-3, atol=0)
    stop = SilenceStop(base, vocabulary, seconds=0.1, tolerance=0)
    quiet = vocabulary.encode(base.silence.repeat(2))
    assert stop(quiet[None]).item()
    assert not stop(torch.cat((quiet, vocabulary.encode(flat[0][:12])))[None]).item()


def test_a_narrow_model_gets_a_projection(codec: Codec) -> None:
    vocabulary = Vocabulary.of(codec)
    audio = initial_embedding(codec, vocabulary, 4)[vocabulary.audio]
    pairs = torch.stack([torch.pdist(audio), torch.pdist(codec.codebook.vectors)])
    assert torch.linalg.matrix_rank(audio) == 4
    assert 0.5 < torch.corrcoef(pairs)[0, 1] < 0.99


def test_an_embedding_follows_its_seed_alone(codec: Codec) -> None:
    vocabulary = Vocabulary.of(codec, offset=10)
    first = initial_embedding(codec, vocabulary, 16, seed=3)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        again = initial_embedding(codec, vocabulary, 16, seed=3)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert torch.get_rng_state().equal(state)
    other = Vocabulary.of(codec, offset=500)
    moved = initial_embedding(codec, other, 16, seed=3)
    torch.testing.assert_close(moved[other.audio], first[vocabulary.audio], rtol=0, atol=0)
    assert not torch.allclose(initial_embedding(codec, vocabulary, 16, seed=4), first, atol=1e-3)


def test_an_embedding_of_another_codebook_is_refused(lite: Codec) -> None:
    with pytest.raises(InputError, match="300 tokens and the codec 8192"):
        initial_embedding(lite, BEHIND, 16)


def decibels(level: float) -> float:
    return 10 ** (level / 20)


@pytest.mark.slow
def test_sounds_that_are_silent(lite: Codec) -> None:
    """Repeat the measurement behind `SILENCE_TOLERANCE`, on 2 s of each sound."""
    samples = 2 * 44100
    dither = torch.rand(samples, generator=torch.Generator().manual_seed(0)) - torch.rand(
        samples, generator=torch.Generator().manual_seed(1)
    )
    hum = torch.sin(torch.arange(samples) * (2 * torch.pi * 50 / 44100)) * 2**0.5
    white = noise(samples, amplitude=1.0)
    quiet = [
        torch.zeros(samples),
        dither.round() / 2**15,
        white * decibels(-80),
        hum * decibels(-70),
    ]
    loud = [white * decibels(-70), hum * decibels(-50), noise(samples)]
    silent = SilenceStop(lite).silent_columns(lite.encode(torch.stack(quiet + loud), 44100).tokens)
    # without the columns at the ends, which hold less of the sound
    assert silent[: len(quiet), 2:-2].all()
    assert not silent[len(quiet) :, 2:-2].any()
    dithered = lite.encode(quiet[1], 44100).tokens
    assert not SilenceStop(lite, tolerance=0).silent_columns(dithered).any()


@pytest.mark.parametrize("clip", ["speech", "music"])
def test_a_clip_ends_once_it_is_silent_for_long(
    lite: Codec, clip: str, request: pytest.FixtureRequest
) -> None:
    wave = torch.from_numpy(request.getfixturevalue(clip))
    ids = lite.encode(torch.cat((wave, noise(70000, amplitude=1e-5))), 44100).flatten()[0]
    stop = SilenceStop(lite, seconds=1)
    assert stop.columns == 22
    ends = [end for end in range(len(ids) + 1) if stop(ids[None, :end])]
    assert ends
    assert ends[0] % 12 == 0
    assert ends[0] / lite.tokens_per_second > len(wave) / 44100 + 0.8


def test_columns_are_counted_from_the_last_foreign_id(lite: Codec) -> None:
    vocabulary = Vocabulary.of(lite, offset=32000, bos=1, eos=2, pad=0)
    stop = SilenceStop(lite, vocabulary, seconds=0.1)
    assert stop.columns == 2
    sound, quiet = vocabulary.encode(list(range(12))), vocabulary.encode(lite.silence)
    bos, text = torch.tensor([1]), torch.tensor([31999, 40192, 7, 5, 3])

    def stops(*parts: Tensor) -> bool:
        ids = torch.cat(parts)
        padded = torch.cat((torch.zeros(40, dtype=torch.int64), ids))
        result = stop(torch.stack([padded, padded.flip(0)]), None, past_key_values=None)
        assert result.dtype == torch.bool
        assert result.shape == (2,)
        assert not result[1]
        assert stop(ids[None]).item() is result[0].item()
        return bool(result[0])

    assert stops(text, bos, sound, quiet, quiet)
    assert stops(quiet, quiet)
    assert not stops(sound, quiet)
    assert not stops(quiet, sound, quiet)
    assert not stops(sound, quiet, quiet, quiet[:1])
    assert not stops(quiet, bos, quiet)
    assert not stops(text, bos, sound[:6], quiet, quiet)
    # the silence of one row is sound in another
    assert not stops(bos, quiet, quiet.roll(1))
    assert not stops(bos, quiet, quiet - 32000)


def test_numbers_outside_the_codebook_are_not_silent(lite: Codec) -> None:
    stop = SilenceStop(lite, tolerance=1e6)
    grid = lite.silence[:, None].repeat(1, 3)
    grid[3, 1], grid[0, 2] = -1, 8192
    assert stop.silent_columns(grid).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "arguments",
    [{"vocabulary": BEHIND}, {"seconds": 0}, {"seconds": float("nan")}, {"tolerance": -0.1}],
)
def test_rules_that_are_refused(lite: Codec, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"make it with|must be"):
        SilenceStop(lite, **arguments)


def test_a_rule_refuses_wrong_ids(lite: Codec) -> None:
    stop = SilenceStop(lite)
    with pytest.raises(InputError, match=r"\[batch, n\]"):
        stop(torch.zeros(24, dtype=torch.int64))
    with pytest.raises(InputError, match="must be integers"):
        stop(torch.zeros(1, 24))
    with pytest.raises(InputError, match="12 rows"):
        stop.silent_columns(torch.zeros(24, 12, dtype=torch.int64))


def test_clips_go_through_a_model_and_back(lite: Codec, speech: Any, music: Any) -> None:
    """Encoding, packing, unpacking and decoding gives the audio of the codec alone."""
    vocabulary = Vocabulary.of(lite, offset=32000, eos=2)
    clips = [lite.encode(wave[:30000], 44100).flatten()[0] for wave in (speech, music)]
    ids, numbers = rows_of_blocks(list(pack(clips, vocabulary, length=120)))
    for number, clip in enumerate(clips):
        tokens = vocabulary.decode(ids[numbers == number])
        torch.testing.assert_close(tokens, clip.long())
        torch.testing.assert_close(lite.decode_tokens(tokens), lite.decode_tokens(clip))


@pytest.mark.slow
def test_generation_ends_each_sequence_in_its_own_column(lite: Codec) -> None:
    """Use transformers' `generate` with a batch of prompts that are padded on the left."""
    transformers = pytest.importorskip("transformers")
    vocabulary = Vocabulary.of(lite)
    stop = SilenceStop(lite, vocabulary, seconds=2 / lite.frame_rate)
    loud = (lite.silence.long() + 4000) % lite.vocab_size
    texts = [[vocabulary.pad] * 3 + [vocabulary.bos], [vocabulary.bos] * 4]
    prompts = torch.tensor(texts)
    silent_from = (1, 3)

    class Forced(transformers.LogitsProcessor):  # type: ignore[misc]
        """A model that writes loud columns, and silence from a given column of each sequence on."""

        def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
            column, row = divmod(ids.shape[1] - prompts.shape[1], lite.rows)
            forced = torch.full_like(scores, -torch.inf)
            for each, begin in enumerate(silent_from):
                forced[each, (lite.silence if column >= begin else loud)[row].long()] = 0
            return forced

    config = transformers.LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    made = model.generate(
        prompts,
        attention_mask=(prompts != vocabulary.pad).long(),
        max_new_tokens=10 * lite.rows,
        do_sample=False,
        logits_processor=transformers.LogitsProcessorList([Forced()]),
        stopping_criteria=transformers.StoppingCriteriaList([stop]),
    )
    written = [vocabulary.decode(ids[prompts.shape[1] :]) for ids in made]
    assert [len(tokens) // lite.rows for tokens in written] == [3, 5]
