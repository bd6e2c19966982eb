"""What a speech recogniser makes of decoded speech: PocketSphinx with its own English models.

It is an old recogniser, much worse than people, so its errors on the original audio stand beside
those on decoded audio. Three searches:

- sentences: 126 000 words and a language model of English; compared with the text of the clip;
- list: the words that the lists hold, each as likely as any other; compared with those said;
- phones: the 39 phones of English, on speech of any language.

In all three, what is heard in decoded audio is compared with what is heard in the original, too.
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
from melcap.evaluation import peers
from melcap.evaluation.clips import RATE, Clip
from melcap.evaluation.measures.signals import Wave, resample
from melcap.evaluation.probes.jobs import name_of
from melcap.extras import import_extra

DEFINITIONS = 1
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True)
class WordJob:
    """What the recogniser hears in a whole clip that a codec has encoded and decoded."""

    codec: str
    clip: Clip
    search: str
    vocabulary: tuple[str, ...]
    folder: Path

    @property
    def path(self) -> Path:
        codec = (self.codec, peers.codec(self.codec).identity)
        search = (self.search, self.vocabulary, version("pocketsphinx"))
        clip = (self.clip.source.name, self.clip.name)
        return self.folder / f"{name_of(DEFINITIONS, *codec, *search, *clip)}.json"

    def write(self, path: Path) -> None:
        wave = self.clip.read(None)
        decoded, size = peers.codec(self.codec).round_trip(wave, RATE)
        heard = recognise(decoded, RATE, self.search, self.vocabulary)
        found = {"heard": heard, "bytes": size, "seconds": len(wave) / RATE}
        path.write_text(json.dumps(found), encoding="utf-8")

    def load(self) -> dict[str, Any]:
        """heard, bytes and seconds; raises `InputError` for a damaged file."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is damaged ({error}): delete it") from error


def recognise(wave: Wave, sample_rate: int, search: str, vocabulary: tuple[str, ...] = ()) -> str:
    """The words, or phones, heard in [samples], separated by spaces; "" for none.

    The same whatever was heard before. Raises `MelcapError` where PocketSphinx is not installed.
    """
    decoder = _decoder(search, vocabulary)
    samples = (resample(wave, sample_rate, 16000).clip(-1, 1) * 32767).astype(np.int16)
    decoder.start_utt()
    # As one utterance: the mean of its cepstrum is then its own, and not that of those before it.
    decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return normalise(found.hypstr, phones=search == "phones") if found else ""


def normalise(text: str, phones: bool = False) -> str:
    """Lower case, digits as words, no punctuation, and nothing of what stands in [brackets]."""
    jiwer = import_extra("jiwer")
    if phones:  # SIL and +NSN+ stand for what is no speech
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


def errors(reference: str, heard: str) -> tuple[int, int]:
    """Words inserted, deleted and substituted (jiwer's alignment), and words of the reference."""
    found = import_extra("jiwer").process_words(reference, heard)
    wrong = found.substitutions + found.deletions + found.insertions
    return wrong, found.hits + found.substitutions + found.deletions


def unknown(vocabulary: Sequence[str]) -> list[str]:
    """The words that the recogniser's dictionary lacks: it can hear none of them."""
    return [word for word in vocabulary if _decoder("sentences", ()).lookup_word(word) is None]


@cache
def _decoder(search: str, vocabulary: tuple[str, ...]) -> Any:
    pocketsphinx = import_extra("pocketsphinx")
    common = {"samprate": 16000, "loglevel": "FATAL"}
    if search == "phones":
        phones = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
        # The weights and beams that its documentation gives for phones.
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
    """An ARPA language model in which each word, and the end, is as likely as any other."""
    share = -math.log10(len(words) + 1)
    lines = ["\\data\\", f"ngram 1={len(words) + 2}", "", "\\1-grams:", "-99 <s>"]
    lines += [f"{share:.4f} {word}" for word in (*words, "</s>")]
    return "\n".join([*lines, "", "\\end\\", ""])
