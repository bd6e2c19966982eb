"""Transcribe decoded speech with PocketSphinx and its own English models.

PocketSphinx is an old recogniser and much worse than people, so its errors on the original audio
are reported beside those on decoded audio. It has three searches:

- sentences: 126 000 words and a language model of English, compared with the text of the clip;
- list: the words of the lists, each as likely as any other, compared with the words that are said;
- phones: the 39 phones of English, on speech of any language.

In all three, the transcript of decoded audio is also compared with that of the original.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from melcap.errors import InputError
from melcap.evaluation.clips import RATE, Clip
from melcap.evaluation.measures.signals import Wave, resample
from melcap.evaluation.peers.registry import FindPeer, peer
from melcap.evaluation.probes.jobs import name_of
from melcap.extras import import_extra

DEFINITIONS = 2
"""Raise it when settings or results change, so that old and new results never mix."""
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True)
class WordJob:
    """A whole clip to transcribe after a codec has encoded and decoded it.

    Attributes:
        codec: the codec's name.
        clip: the clip.
        search: "sentences", "list" or "phones".
        vocabulary: the words of the search for a list.
        folder: where the result is kept.
        find_peer: finds the codec by its name.
    """

    codec: str
    clip: Clip
    search: str
    vocabulary: tuple[str, ...]
    folder: Path
    find_peer: FindPeer = peer

    @property
    def path(self) -> Path:
        """Return the path of the transcript."""
        codec = (self.codec, self.find_peer(self.codec).identity)
        search = (self.search, self.vocabulary, version("pocketsphinx"))
        clip = (self.clip.source.name, self.clip.name)
        return self.folder / f"{name_of(DEFINITIONS, *codec, *search, *clip)}.json"

    def write(self, path: Path) -> None:
        """Transcribe the clip and write the result to a file."""
        wave = self.clip.read(None)
        decoded, size = self.find_peer(self.codec).round_trip(wave, RATE)
        transcript = recognise(decoded, RATE, self.search, self.vocabulary)
        found = {"transcript": transcript, "bytes": size, "seconds": len(wave) / RATE}
        path.write_text(json.dumps(found), encoding="utf-8")

    def load(self) -> dict[str, Any]:
        """Read the result: "transcript", "bytes" and "seconds".

        Raises:
            InputError: for a damaged file.
        """
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is damaged ({error}): delete it") from error


def recognise(wave: Wave, sample_rate: int, search: str, vocabulary: tuple[str, ...] = ()) -> str:
    """Transcribe audio. The result does not depend on what was transcribed before.

    Args:
        wave: the audio, [samples].
        sample_rate: its rate in Hz.
        search: "sentences", "list" or "phones".
        vocabulary: the words of the search for a list.

    Returns:
        Words or phones, separated by spaces; "" for none.

    Raises:
        InputError: for a list without a word that the recogniser's dictionary has.
        MelcapError: where PocketSphinx is not installed.
    """
    decoder = _decoder(search, vocabulary)
    samples = (resample(wave, sample_rate, 16000).clip(-1, 1) * 32767).astype(np.int16)
    decoder.start_utt()
    # A full utterance is normalised by the mean of its own cepstrum, not of earlier ones.
    decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return normalise(found.hypstr, phones=search == "phones") if found else ""


def normalise(text: str, phones: bool = False) -> str:
    """Normalise text: lower case, digits as words, no punctuation, no text in [brackets].

    Of phones, remove those that stand for silence and noise.
    """
    jiwer = import_extra("jiwer")
    if phones:  # SIL is silence, +NSN+ noise
        return " ".join(p for p in text.split() if p != "SIL" and not p.startswith("+"))
    patterns = {r"\[[^\]]*\]": " ", "#": " pound "}
    patterns |= {str(digit): f" {word} " for digit, word in enumerate(DIGITS)}
    change = jiwer.Compose(
        [
            jiwer.ToLowerCase(),
            jiwer.SubstituteRegexes(patterns),
            jiwer.SubstituteRegexes({r"[^\w' ]|_": " ", r"(?<!\w)'|'(?!\w)": " "}),
            jiwer.RemoveMultipleSpaces(),
            jiwer.Strip(),
        ]
    )
    changed: str = change(text)
    return changed


def errors(reference: str, transcript: str) -> tuple[int, int]:
    """Count the words inserted, deleted and substituted, and the words of the reference.

    The alignment is jiwer's.
    """
    found = import_extra("jiwer").process_words(reference, transcript)
    wrong = found.substitutions + found.deletions + found.insertions
    return wrong, found.hits + found.substitutions + found.deletions


def unknown(vocabulary: Sequence[str]) -> list[str]:
    """Return the words that the recogniser's dictionary lacks, and that it can never recognise."""
    return [word for word in vocabulary if _decoder("sentences", ()).lookup_word(word) is None]


@cache
def _decoder(search: str, vocabulary: tuple[str, ...]) -> Any:
    pocketsphinx = import_extra("pocketsphinx")
    common = {"samprate": 16000, "loglevel": "FATAL"}
    if search == "phones":
        phones = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
        # Weight and beams are those of PocketSphinx's documentation on phones.
        beams = {"lw": 2.0, "beam": 1e-20, "pbeam": 1e-20}
        return pocketsphinx.Decoder(allphone=phones, **beams, **common)
    if search == "sentences":
        return pocketsphinx.Decoder(**common)
    known = sorted(set(vocabulary) - set(unknown(vocabulary)))
    if not known:
        raise InputError("the recogniser's dictionary has none of the words of the list")
    with tempfile.NamedTemporaryFile("w", suffix=".lm") as file:
        file.write(flat_model(known))
        file.flush()
        return pocketsphinx.Decoder(lm=file.name, **common)


def flat_model(words: Sequence[str]) -> str:
    """Return an ARPA language model in which each word, and the end, is as likely as any other."""
    share = -math.log10(len(words) + 1)
    lines = ["\\data\\", f"ngram 1={len(words) + 2}", "", "\\1-grams:", "-99 <s>"]
    lines += [f"{share:.4f} {word}" for word in (*words, "</s>")]
    return "\n".join([*lines, "", "\\end\\", ""])
