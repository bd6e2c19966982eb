"""A softmax in two levels, over classes of tokens and over the tokens of a class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from melcap.errors import InputError


class TwoLevelSoftmax(nn.Module):
    """A distribution over codebook entries that costs far less than a full softmax.

    Entries that are near each other form a class, and all classes have the same size. The
    probability of a token is that of its class times that of the token within the class (Goodman,
    "Classes for fast maximum entropy training", 2001). For 8192 entries in 128 classes of 64, a
    token takes 192 logits instead of 8192.

    Args:
        vectors: float [codebook size, dim], the codebook.
        width: size of a hidden state.
        classes: number of classes, a power of two that divides the codebook's size.
        rank: length of the vectors from which the logits within a class are computed.

    Raises:
        InputError: for a number of classes that does not fit.
    """

    members: Tensor
    place: Tensor

    def __init__(self, vectors: Tensor, width: int, classes: int, rank: int) -> None:
        super().__init__()
        size = len(vectors)
        if classes < 1 or classes & (classes - 1) or size % classes:
            raise InputError(
                f"classes must be a power of two that divides the {size} entries of the codebook, "
                f"not {classes}"
            )
        members = balanced_classes(vectors, classes)
        place = torch.empty(size, dtype=torch.int64)
        place[members.flatten()] = torch.arange(size)
        self.register_buffer("members", members)  # int64 [classes, class size]
        self.register_buffer("place", place)  # int64 [codebook size]: of each entry in members
        self.class_logits = nn.Linear(width, classes)
        self.reduce = nn.Linear(width, rank)
        self.class_vectors = nn.Parameter(torch.empty(classes, rank))
        self.member_vectors = nn.Parameter(torch.empty(*members.shape, rank))
        self.member_biases = nn.Parameter(torch.zeros(members.shape))
        self._start_from(vectors)

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the negative logarithms of the probabilities of tokens.

        Args:
            hidden: float [n, width].
            tokens: int64 [n].

        Returns:
            float32 [n], natural logarithms.
        """
        places = self.place[tokens]
        classes = places // self.members.shape[1]
        of_class = cross_entropy(self.class_logits(hidden).float(), classes, reduction="none")
        # Tokens are sorted by class, so that each class takes one matrix product.
        order = classes.argsort(stable=True)
        counts = torch.bincount(classes, minlength=len(self.members)).tolist()
        queries = self._queries(hidden, classes)[order].split(counts)
        weights = zip(queries, self.member_vectors, self.member_biases, strict=True)
        logits = torch.cat([query @ vectors.mT + biases for query, vectors, biases in weights])
        within = places[order] % self.members.shape[1]
        of_member = cross_entropy(logits.float(), within, reduction="none")
        return of_class + torch.empty_like(of_member).index_copy(0, order, of_member)

    @torch.no_grad()
    def sample(
        self, hidden: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return one token for each hidden state, sampled from its distribution.

        Args:
            hidden: float [n, width].
            temperature: divides the logits of both levels. 0 takes the most probable class, and the
                most probable token within it.
            generator: the source of random numbers.

        Returns:
            int64 [n].
        """
        classes = _draw(self.class_logits(hidden), temperature, generator)
        query = self._queries(hidden, classes)[:, :, None]
        logits = (self.member_vectors[classes] @ query)[:, :, 0] + self.member_biases[classes]
        return self.members[classes, _draw(logits, temperature, generator)]

    @torch.no_grad()
    def _start_from(self, vectors: Tensor) -> None:
        """Set the weights to random maps of the codebook, so that similar tokens start similar."""
        members = vectors.detach().float()[self.members]
        centres = members.mean(dim=1)
        for weights, source, std in (
            (self.class_logits.weight, centres, 0.05),
            (self.class_vectors, centres, 0.3),
            (
                self.member_vectors,
                members - centres[:, None],
                2 / math.sqrt(self.member_vectors.shape[-1]),
            ),
        ):
            random_map = nn.init.orthogonal_(torch.empty(source.shape[-1], weights.shape[-1]))
            mapped = source @ random_map
            weights.copy_(mapped * (std / mapped.std().clamp(min=1e-9)))

    def check_classes(self) -> None:
        """Check the classes of a file, in which every entry must have one place.

        Raises:
            InputError: for other classes.
        """
        members = self.members.flatten()
        entries = torch.arange(len(self.place), device=members.device)
        if not (
            torch.equal(members.sort().values, entries)
            and torch.equal(self.place[members], entries)
        ):
            raise InputError("the classes do not hold each entry once")

    def _queries(self, hidden: Tensor, classes: Tensor) -> Tensor:
        return gelu(self.reduce(hidden) + self.class_vectors[classes])


def balanced_classes(vectors: Tensor, classes: int) -> Tensor:
    """Return classes of equal size that keep neighbouring codebook entries together.

    Groups are halved at the median of their first principal component until there are enough.

    Args:
        vectors: float [codebook size, dim].
        classes: number of classes, a power of two that divides the codebook's size.

    Returns:
        int64 [classes, codebook size / classes], the entries of each class.

    Example:
        >>> import torch
        >>> from melcap.lm.two_level_softmax import balanced_classes
        >>> classes = balanced_classes(torch.tensor([[0.0], [9.0], [1.0], [8.0]]), 2)
        >>> sorted(sorted(entries) for entries in classes.tolist())
        [[0, 2], [1, 3]]
    """
    groups = torch.arange(len(vectors))[None]
    while len(groups) < classes:
        members = vectors.double()[groups]
        centred = members - members.mean(dim=1, keepdim=True)
        axes = torch.linalg.svd(centred, full_matrices=False)[2][:, 0, :, None]
        order = (centred @ axes)[:, :, 0].argsort(dim=1, stable=True)
        groups = groups.gather(1, order).view(2 * len(groups), -1)
    return groups


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=1)
    probabilities = (logits.float() / temperature).softmax(dim=1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
