"""The codec in a browser: how soon the first sound is there, and how fast it codes.

    make web
    python profiling/browser.py

Each round starts Chromium anew, so that nothing is cached, and clicks on the clip of speech. It
does so on a page that is isolated from other origins, which has as many threads as cores, and on
one that is not, which has one. ONNX Runtime without a browser codes the same clip in each round.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer
from machine import provenance
from paths import AUDIO, RESULTS
from torch import Tensor

import melcap
from melcap.audio import read
from melcap.errors import MelcapError
from melcap.markdown import table

WEB = Path(__file__).resolve().parents[1] / "web"
sys.path.insert(0, str(WEB))

from chromium import chromium  # noqa: E402
from serve import DIST, served  # noqa: E402

SOURCE = AUDIO / "speech.flac"
REPEATS = 5
"""The number of times that a loaded codec codes the clip in a round."""

PLAYS = "async () => (await import('./demo/result.js')).player.position > 0"
WARM = """async ([repeats, tokens, weigh]) => {
  const { Client } = await import("./demo/client.js");
  const { clip } = await import("./demo/sources.js");
  const client = new Client();
  const threads = crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  await client.call("prepare", { threads });
  const { waves } = await clip("speech", 44100, new AbortController().signal);
  const taken = { encode: [], decode: [] };
  let coded, made;
  for (let round = 0; round <= repeats; round++) {
    coded = await client.call("encode", { waves });
    const codes = { ...coded.codes, tokens: Int32Array.from(tokens) };
    made = await client.call("decode", { codes });
    if (round) {
      taken.encode.push(coded.milliseconds / 1000);
      taken.decode.push(made.milliseconds / 1000);
    }
  }
  const memory = weigh && (await performance.measureUserAgentSpecificMemory());
  return { taken, tokens: [...coded.codes.tokens], wave: [...made.waves[0]], memory, threads };
}"""


def in_browser(
    isolated: bool, codes: melcap.Codes, wave: Tensor, weigh: bool = False
) -> dict[str, Any]:
    """Return what one round in a new browser took, after checking what it computed.

    Args:
        isolated: isolate the page from other origins, so that it has threads.
        codes: the tokens that the codec makes of the clip.
        wave: what the codec decodes them to.
        weigh: measure the memory of the page, for which Chromium takes a minute.

    Raises:
        MelcapError: where tokens or samples are not those of the codec.
    """
    with served(isolated=isolated) as site, chromium() as browser:
        page = browser.new_page()
        sizes: list[int] = []
        page.on("response", lambda answer: sizes.append(len(answer.body())))
        page.goto(site)
        began = perf_counter()
        page.click("[data-clip=speech]")
        page.locator("#status", has_text="Done.").wait_for(timeout=120_000)
        page.click("#play")
        while not page.evaluate(PLAYS):
            pass
        first = perf_counter() - began
        downloaded = sum(sizes)
        found = page.evaluate(WARM, [REPEATS, codes.tokens.flatten().tolist(), weigh])
    tokens = torch.tensor(found["tokens"]).view(codes.tokens.shape)
    if (tokens != codes.tokens).double().mean() > 0.002:
        raise MelcapError("the browser's tokens are not the codec's")
    if ((torch.tensor(found["wave"]) - wave).abs() > 1e-3).double().mean() > 0.01:
        raise MelcapError("the browser's samples are not the codec's")
    return {
        "threads": found["threads"],
        "first sound": first,
        "downloaded": downloaded,
        "memory": found["memory"]["bytes"] if weigh else None,
        **{way: statistics.median(found["taken"][way]) for way in ("encode", "decode")},
    }


def native(threads: int, codes: melcap.Codes, wave: Tensor) -> dict[str, Any]:
    """Return what the graphs take in ONNX Runtime without a browser."""
    import onnxruntime

    row: dict[str, Any] = {"threads": threads}
    for way, given in (("encode", wave.numpy()[None]), ("decode", codes.tokens.numpy()[None])):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = gzip.decompress((DIST / "models" / f"{way}r.ort.gz").read_bytes())
        session = onnxruntime.InferenceSession(graph, options)
        taken = []
        for _ in range(REPEATS + 1):
            began = perf_counter()
            session.run(None, {session.get_inputs()[0].name: given})
            taken.append(perf_counter() - began)
        row[way] = statistics.median(taken[1:])
    return row


def measure(rounds: int) -> dict[str, Any]:
    """Return the medians of all rounds, in which the contenders take turns."""
    codec = melcap.load()
    channels, rate = read(SOURCE)
    wave = torch.from_numpy(channels[0])
    codes = codec.encode(wave, rate)
    decoded = codec.decode(codes)
    taken: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for isolated, name in ((True, "browser, isolated page"), (False, "browser")):
            weigh = isolated and not number
            row = in_browser(isolated, codes, decoded, weigh)
            taken.setdefault((name, row["threads"]), []).append(row)
        for threads in (torch.get_num_threads(), 1):
            row = native(threads, codes, wave)
            taken.setdefault(("ONNX Runtime", threads), []).append(row)
    rows = [
        {"contender": name} | {key: _median([run[key] for run in runs]) for key in runs[0]}
        for (name, _), runs in taken.items()
    ]
    seconds = len(wave) / rate
    return {"origin": provenance("cpu"), "rounds": rounds, "seconds": seconds, "rows": rows}


def _median(values: list[Any]) -> Any:
    measured = [value for value in values if value is not None]
    return statistics.median(measured) if measured else None


def text(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    origin = ", ".join(f"{name} {value}" for name, value in found["origin"].items())
    rows = []
    for row in found["rows"]:
        speeds = [f"{found['seconds'] / row[way]:.1f}" for way in ("encode", "decode")]
        first = f"{row['first sound']:.1f} s" if "first sound" in row else ""
        sizes = [
            f"{row[key] / 1e6:.1f}" if row.get(key) else "" for key in ("downloaded", "memory")
        ]
        rows.append([row["contender"], row["threads"], *speeds, first, *sizes])
    heads = ["where", "threads", "encode", "decode", "first sound", "download, MB", "memory, MB"]
    return (
        f"# In a browser\n\nBy `python profiling/browser.py`: {origin}.\n\n"
        f"Times real time on a clip of {found['seconds']:.1f} s with the codec loaded, and the "
        f"time from the click on it to its first decoded sound with nothing cached: the median of "
        f"{found['rounds']} rounds, each in a new {found['browser']}. ONNX Runtime runs the same "
        f"graphs without a browser.\n\n{table(heads, rows)}"
    )


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 7,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = RESULTS / "browser",
) -> None:
    """Check and time the codec in a browser."""
    with chromium() as browser:
        version = browser.version
    found = measure(rounds) | {"browser": f"Chromium {version}"}
    out.mkdir(parents=True, exist_ok=True)
    (out / "browser-cpu.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "browser-cpu.md").write_text(text(found))
    typer.echo(text(found))


if __name__ == "__main__":
    typer.run(main)
