"""The context model returns true probabilities, depends on the past alone, and learns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError, WeightsError
from melcap.lm import ContextModel, ContextModelConfig, context_model
from melcap.lm.two_level_softmax import TwoLevelSoftmax, balanced_classes
from tests.helpers import ID, noise

SIZE, ROWS = 16, 3
CONFIG = ContextModelConfig(
    ROWS, 4, SIZE, 4, history_width=12, width=8, dilations=(1, 2), kernel=2, rank=6
)


def tokens_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(SIZE, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> ContextModel:
    """Return a small model with random weights, none of them zero or one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ContextModel(CONFIG, ID, noise(SIZE, 4))
        with torch.no_grad():
            for weights in made.parameters():
                weights += 0.5 * torch.randn_like(weights)
    return made.eval().requires_grad_(False)


class TestTwoLevelSoftmax:
    @given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 99))
    def test_classes_are_equal_in_size_and_hold_each_entry_once(
        self, levels: int, each: int, seed: int
    ) -> None:
        classes = balanced_classes(noise(each << levels, 3, seed=seed), 1 << levels)
        assert classes.shape == (1 << levels, each)
        assert sorted(classes.flatten().tolist()) == list(range(each << levels))

    def test_entries_of_a_class_are_neighbours(self) -> None:
        vectors = noise(512, 3, amplitude=1)
        spread = vectors[balanced_classes(vectors, 64)].var(dim=1).mean()
        assert spread < 0.15  # 1 for a random choice

    @pytest.mark.parametrize("classes", [0, 3, 32, -2])
    def test_classes_that_do_not_fit_are_refused(self, classes: int) -> None:
        with pytest.raises(InputError, match=r"power of two that divides the 48 entries"):
            TwoLevelSoftmax(noise(48, 3), 8, classes, 4)

    def test_similar_tokens_start_with_similar_weights(self) -> None:
        """Distances between weights are proportional to those between codebook entries."""
        vectors = noise(48, 3)
        softmax = TwoLevelSoftmax(vectors, 8, 4, 5)
        groups = vectors[softmax.members]
        centres = groups.mean(1)
        for weights, source in (
            (softmax.member_vectors[2], groups[2]),
            (softmax.class_vectors, centres),
            (softmax.class_logits.weight, centres),
        ):
            ratios = torch.pdist(weights.detach()) / torch.pdist(source)
            torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios))

    def test_nats_are_those_of_both_levels(self) -> None:
        """Compare with a loop over the tokens in float64, for tokens in random order."""
        softmax, hidden = TwoLevelSoftmax(noise(48, 3), 8, 4, 5), noise(101, 8, amplitude=2)
        tokens = torch.randint(48, (101,), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            softmax.member_biases += noise(4, 12, amplitude=1)
            nats = softmax(hidden, tokens)
            exact = softmax.double()
            for at, token in enumerate(tokens.tolist()):
                kind, place = (softmax.members == token).nonzero()[0].tolist()
                state = hidden[at].double()
                of_class = exact.class_logits(state).log_softmax(0)[kind]
                query = torch.nn.functional.gelu(exact.reduce(state) + exact.class_vectors[kind])
                logits = exact.member_vectors[kind] @ query + exact.member_biases[kind]
                expected = -of_class - logits.log_softmax(0)[place]
                assert float(nats[at]) == pytest.approx(float(expected), abs=1e-5)

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_samples_have_the_probabilities(self, temperature: float) -> None:
        softmax, draws = TwoLevelSoftmax(noise(16, 3), 8, 4, 5), 20_000
        hidden = noise(1, 8, amplitude=2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            softmax.member_biases += noise(4, 4, amplitude=1)
            softmax.class_logits.weight *= 20
            drawn = softmax.sample(hidden.expand(draws, -1), temperature, generator)
            counts = torch.bincount(drawn, minlength=16) / draws
            if temperature == 1:
                expected = (-softmax(hidden.expand(16, -1), torch.arange(16))).exp()
            else:
                classes = (softmax.class_logits(hidden)[0] / temperature).softmax(0)
                every = torch.arange(4)
                query = softmax._queries(hidden.expand(4, -1), every)[:, :, None]
                logits = (softmax.member_vectors @ query)[:, :, 0] + softmax.member_biases
                within = (logits / temperature).softmax(1)
                expected = torch.empty(16)
                expected[softmax.members] = classes[:, None] * within
        assert expected.max() / expected.min() > 3  # far from uniform
        # Five standard deviations of a share of so many draws.
        assert ((counts - expected).abs() < 5 * (expected / draws).sqrt() + 1e-4).all()

    def test_temperature_0_takes_the_most_probable(self) -> None:
        softmax, hidden = TwoLevelSoftmax(noise(16, 3), 8, 4, 5), noise(9, 8)
        drawn = softmax.sample(hidden, 0)
        with torch.no_grad():
            classes = softmax.class_logits(hidden).argmax(1)
            assert (softmax.members[classes] == drawn[:, None]).any(1).all()
            for at in range(9):
                own = softmax.members[classes[at]]
                nats = softmax(hidden[at].expand(4, -1), own)
                assert own[nats.argmin()] == drawn[at]


class TestBits:
    def test_probabilities_add_up_to_one(self, model: ContextModel) -> None:
        grid = tokens_of(1, ROWS, 7)
        for row, column in ((0, 0), (2, 0), (1, 3), (2, 6)):
            every = grid.repeat(SIZE, 1, 1)
            every[:, row, column] = torch.arange(SIZE)
            total = (-model.bits(every)[:, row, column]).double().exp2().sum()
            assert float(total) == pytest.approx(1, abs=1e-5)

    def test_a_token_changes_what_comes_after_it_alone(self, model: ContextModel) -> None:
        """The order is by column, then row, and a token affects `context` columns after it."""
        columns, reach = 12, CONFIG.context
        grid = tokens_of(1, ROWS, columns)
        before = model.bits(grid)[0].mT.flatten()
        for row, column in ((0, 0), (1, 2), (2, 4)):
            other = grid.clone()
            other[0, row, column] = (grid[0, row, column] + 5) % SIZE
            changed = (model.bits(other)[0].mT.flatten() - before).abs() > 1e-6
            at = column * ROWS + row
            assert not changed[:at].any()
            assert changed[at : (column + 1 + reach) * ROWS].all()
            assert not changed[(column + 1 + reach) * ROWS :].any()

    def test_a_batch_gives_what_its_sequences_give(self, model: ContextModel) -> None:
        grid = tokens_of(5, ROWS, 9)
        alone = torch.cat([model.bits(each[None]) for each in grid])
        torch.testing.assert_close(model.bits(grid), alone, atol=1e-5, rtol=0)

    def test_no_columns_have_no_bits(self, model: ContextModel) -> None:
        assert model.bits(tokens_of(2, ROWS, 0)).shape == (2, ROWS, 0)

    def test_a_clip_is_computed_in_pieces(
        self, model: ContextModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = tokens_of(ROWS, 50)
        for piece in (1, 3, 7, 50, 51):
            monkeypatch.setattr(context_model, "PIECE_COLUMNS", piece)
            whole = model.bits(grid[None])[0]
            torch.testing.assert_close(model.bits_of_clip(grid), whole, atol=1e-5, rtol=0)
        assert model.bits_of_clip(grid[:, :0]).shape == (ROWS, 0)
        with pytest.raises(InputError, match="3 rows"):
            model.bits_of_clip(grid[:2])

    def test_wrong_grids_are_refused(self, model: ContextModel) -> None:
        with pytest.raises(InputError, match=r"tokens must be \[batch, 3 rows, columns\], not"):
            model.bits(tokens_of(ROWS, 9))
        with pytest.raises(InputError, match=r"\[batch, 3 rows, columns\]"):
            model.generate(tokens_of(1, 4, 9), 2)
        for wrong in (-1, SIZE):
            with pytest.raises(InputError, match=r"tokens must be in 0\.\.15, not"):
                model.bits(torch.full((1, ROWS, 2), wrong))

    @pytest.mark.slow
    def test_it_learns_a_rule_that_a_unigram_cannot(self) -> None:
        """Each token is the sum of its lower neighbour and the token before it."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ContextModel(CONFIG, ID, torch.eye(SIZE)[:, :4] + noise(SIZE, 4, amplitude=1))
        grid = tokens_of(64, ROWS, 10)
        for column in range(1, 10):
            for row in range(1, ROWS):
                grid[:, row, column] = (grid[:, row - 1, column] + grid[:, row, column - 1]) % 4
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(150):
            model.zero_grad()
            model.bits(grid).mean().backward()
            optimiser.step()
        with torch.no_grad():
            bits = model.bits(grid)[:, 1:, 1:].mean()
        assert bits < 1  # 2 for whoever knows how often each token occurs


class TestGenerate:
    @pytest.mark.parametrize("start", [0, 1, 4, 9])
    def test_every_token_comes_from_its_own_distribution(
        self, model: ContextModel, start: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Generation, row by row, uses the same distributions as `bits` for all rows."""
        softmax, hidden, draw = model.softmax, [], model.softmax.sample
        monkeypatch.setattr(
            softmax, "sample", lambda state, *rest: (hidden.append(state), draw(state, *rest))[1]
        )
        begun = tokens_of(2, ROWS, start)
        grid = model.generate(begun, 8, generator=torch.Generator().manual_seed(0))
        assert grid.shape == (2, ROWS, start + 8)
        assert torch.equal(grid[:, :, :start], begun)
        made = grid[:, :, start:].mT.flatten(1).T  # [columns * rows, batch]
        bits = torch.stack(
            [softmax(state, at) for state, at in zip(hidden, made, strict=True)]
        ) / np.log(2)
        expected = model.bits(grid)[:, :, start:].mT.flatten(1).T
        torch.testing.assert_close(bits, expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("temperature", [-1.0, float("nan")])
    def test_a_wrong_temperature_is_refused(self, model: ContextModel, temperature: float) -> None:
        with pytest.raises(InputError, match="temperature must be 0 or more"):
            model.generate(tokens_of(1, ROWS, 2), 1, temperature)

    def test_the_same_seed_gives_the_same_tokens(self, model: ContextModel) -> None:
        def made(seed: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return model.generate(tokens_of(1, ROWS, 2), 20, generator=generator)

        assert torch.equal(made(1), made(1))
        assert not torch.equal(made(1), made(2))


class TestFile:
    def test_there_and_back(self, model: ContextModel, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        model.training_settings = {"steps": 7}
        model.save(path)
        state = torch.get_rng_state()
        loaded = ContextModel.load(path)
        assert torch.equal(torch.get_rng_state(), state)
        assert (loaded.config, loaded.tokenizer_id) == (CONFIG, ID)
        assert loaded.training_settings == {"steps": 7}
        assert not loaded.training
        grid = tokens_of(2, ROWS, 9)
        difference = (loaded.bits(grid) - model.bits(grid)).abs().max()
        assert 0 < difference < 0.05  # weights are kept in float16
        assert torch.equal(loaded.softmax.members, model.softmax.members)

    def test_another_file_is_refused(
        self, model: ContextModel, tmp_path: Path, small_weights: Path
    ) -> None:
        path = tmp_path / "model.safetensors"
        with pytest.raises(WeightsError, match=r"model\.safetensors: cannot read the model"):
            ContextModel.load(path)
        with pytest.raises(WeightsError, match=r"small\.safetensors: this is not a context model"):
            ContextModel.load(small_weights)
        path.write_bytes(b"no tensors")
        with pytest.raises(WeightsError, match="this is not a context model"):
            ContextModel.load(path)

        model.save(path)
        state = load_file(path)
        right = json.dumps(dataclasses.asdict(CONFIG))
        metadata = {"context_model": right, "tokenizer_id": ID, "training": "{}"}
        for config in (
            right.replace('"width": 8', '"width": 9'),
            right.replace('"rank": 6', '"rank": 0'),
            right.replace("width", "w"),
            "[]",
        ):
            save_file(state, path, metadata | {"context_model": config})
            with pytest.raises(WeightsError, match="this is not a context model"):
                ContextModel.load(path)
        for wrong, said in (
            ({"norm.weight": torch.full_like(state["norm.weight"], torch.nan)}, "NaN"),
            ({"softmax.members": torch.zeros_like(state["softmax.members"])}, "each entry once"),
            ({"softmax.place": state["softmax.place"].flip(0)}, "each entry once"),
        ):
            save_file(state | wrong, path, metadata)
            with pytest.raises(WeightsError, match=said):
                ContextModel.load(path)
        save_file(state, path, metadata)
        ContextModel.load(path)

    def test_weights_that_float16_cannot_hold_are_not_saved(
        self, model: ContextModel, tmp_path: Path
    ) -> None:
        model.norm.weight[3] = 1e6
        with pytest.raises(WeightsError, match=r"norm\.weight has NaN or infinite"):
            model.save(tmp_path / "model.safetensors")
        assert not list(tmp_path.iterdir())


def test_a_codec_gives_the_sizes(codec: Codec) -> None:
    for wrong in ({"width": 0}, {"rank": 1.5}, {"dilations": (1, 0)}, {"classes": 8}):
        with pytest.raises(InputError, match="must be a"):
            ContextModel.of(codec, **wrong)
    model = ContextModel.of(codec, width=10)
    assert model.tokenizer_id == codec.tokenizer_id
    assert dataclasses.astuple(model.config)[:4] == (3, 8, 300, 4)
    assert model.config.width == 10
    assert model.vectors.mean(0).abs().max() < 1e-5
    assert float(model.vectors.std()) == pytest.approx(1, abs=1e-4)
    grid = codec.encode(noise(1, 9000), 44100).tokens
    assert model.bits(grid).isfinite().all()
