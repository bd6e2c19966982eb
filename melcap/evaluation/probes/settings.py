"""The settings of a run of probes."""

from __future__ import annotations

from dataclasses import dataclass

from melcap.evaluation.peers.registry import FindPeer, peer


@dataclass(frozen=True)
class Settings:
    """The settings of a run of probes.

    Attributes:
        features: what the classifiers get; see `features`.
        codecs: codecs whose decoded speech is recognised, besides the original.
        clips_per_class: the most clips of each class on each side.
        clips_per_package: the most clips of each package that are recognised, in full.
        seconds: the most that the classifiers get of a clip.
        seeds: how often each classifier is trained.
        processes: the number of worker processes; 1 computes everything in this process.
        find_peer: finds a codec by its name.
    """

    features: tuple[str, ...] = ("tokens", "mel")
    codecs: tuple[str, ...] = ("melcap",)
    clips_per_class: int = 80
    clips_per_package: int = 6
    seconds: float = 10.0
    seeds: int = 5
    processes: int = 2
    find_peer: FindPeer = peer
