"""The figures of the pages are those of the committed results."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from melcap.codec import Codec
from tests.docs.pages import ROOT

Rows = list[dict[str, str]]

SCORECARD = ROOT / "docs" / "scorecard" / "scorecard.json"
WHOLE = ROOT / "docs" / "scorecard" / "melcap-all.json"
PEERS = ROOT / "docs" / "scorecard" / "peers.json"
TOKENS = ROOT / "docs" / "scorecard" / "tokens.json"
RESULTS = ROOT / "profiling" / "results"
RTF = {device: RESULTS / f"rtf-{device}.json" for device in ("cpu", "cuda")}

CODECS = {
    "Opus 6 kbps": "opus-6",
    "Opus 12 kbps": "opus-12",
    "Opus 16 kbps": "opus-16",
    "Opus 24 kbps": "opus-24",
    "Codec 2": "codec2-3200",
    "Speex": "speex",
    "true mel + Griffin-Lim (oracle)": "griffin-lim",
}
MEASURES = {
    "ViSQOL": "visqol",
    "STOI": "stoi",
    "PESQ-WB": "pesq",
    "DNSMOS": "dnsmos",
    "LSD": "lsd",
    "over-smoothing": "over_smoothing",
}


@pytest.mark.parametrize("page", ["README.md", "melcap/weights/README.md"])
def test_scores_are_those_of_the_scorecard(page: str) -> None:
    scores = {(row["codec"], row["class"]): row for row in read(SCORECARD)["table"]}
    rows = table(page, "ViSQOL")
    assert len(rows) >= 8
    for row in rows:
        codec = CODECS.get(row["codec"], row["codec"])
        found = scores[codec, "mean" if row.get("class") in (None, "mean") else row["class"]]
        if "clips" in row:
            assert bool(found["speech_only"]) == (row["clips"] == "speech")
        if row["kbps"]:
            assert row["kbps"] == f"{found['kbps']:.2f}"
        for column, key in MEASURES.items():
            if column in row:
                value = found[key]
                assert row[column] == ("" if value is None else f"{value['mean']:.2f}"), row


@pytest.mark.parametrize("page", ["melcap/weights/README.md", "docs/sound.md"])
def test_scores_of_the_whole_split(page: str) -> None:
    (mean,) = (row for row in read(WHOLE)["table"] if row["class"] == "mean")
    said = (
        f"ViSQOL {mean['visqol']['mean']:.2f}, STOI {mean['stoi']['mean']:.2f}, "
        f"PESQ {mean['pesq']['mean']:.2f}, over-smoothing {mean['over_smoothing']['mean']:.2f}"
    )
    assert said in (ROOT / page).read_text(encoding="utf-8")
    assert f"all {mean['n']} clips" in text_of(page) or f"on {mean['n']} clips" in text_of(page)


@pytest.mark.usefixtures("profiling_scripts")
def test_scores_of_other_codecs() -> None:
    """The page has the scorecard's table, the command that makes it, its date and versions."""
    from peers_table import peers_table

    found, page = read(PEERS), text_of("docs/peers.md")
    assert peers_table(found) in page
    assert not found["failures"]
    rate, clips = found["sample_rate"], found["clips_per_class"]
    assert f"--sample-rate {rate} --clips-per-class {clips}" in page
    for name, codec in found["decoded"].items():
        folder, kbps = codec["folder"], f"{codec['stated_kbps']:g}"
        assert f"--decoded {name}=SemantiCodec/audio/{folder} --decoded-kbps {name}={kbps}" in page
    assert found["date"] in page
    assert f"torch {found['torch'].partition('+')[0]}" in page


def test_scores_of_other_codecs_in_the_readme() -> None:
    means = [row for row in read(PEERS)["table"] if row["class"] == "mean"]
    rows = table("README.md", "ViSQOL, speech mode")
    assert len(rows) == 4
    for row in rows:
        name = row["codec"].strip("*").lower()
        (found,) = (
            mean
            for mean in means
            if mean["codec"].startswith(name) and f"{mean['kbps']:.2f}" == row["kbps"]
        )
        assert row["ViSQOL, speech mode"] == f"{found['visqol_speech']['mean']:.2f}"
        assert row["PESQ-WB"] == f"{found['pesq']['mean']:.2f}"
        assert row["over-smoothing"] == f"{found['over_smoothing']['mean']:.2f}"


def test_speeds_in_a_browser() -> None:
    """The page has the table that the script wrote, and its rounds, browser and date."""
    found = read(RESULTS / "browser" / "browser-cpu.json")
    written = (RESULTS / "browser" / "browser-cpu.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    assert written[written.index("| where") :].strip() in page
    assert f"medians of {found['rounds']} rounds" in page
    assert found["browser"].partition(".")[0] in page
    assert found["origin"]["date"] in page


def test_speeds_of_the_readme() -> None:
    rows = table("README.md", "encode, CPU")
    assert len(rows) == 5
    for row in rows:
        for column, shown in list(row.items())[1:]:
            way, device, *batch = column.split(", ")
            size = int(batch[0].split()[0]) if batch else 1
            kind = {"CPU": "cpu", "GPU": "cuda"}[device]
            threads = 2 if kind == "cpu" else None
            found = speed(kind, row["codec"], way, 10, size, threads)
            assert shown == in_words(found["x_real_time"]), (row, column)


def test_speeds_of_the_page() -> None:
    cpu, gpu = table("docs/speed.md", "encode, 2 threads"), table("docs/speed.md", "encode, 10 s")
    assert cpu
    assert gpu
    for row in cpu:
        for column, shown in list(row.items())[1:]:
            way, threads = column.split(", ")
            found = speed("cpu", row["codec"], way, 10, 1, int(threads[0]))
            assert shown == with_quartiles(found), (row, column)
    for row in gpu:
        for column, shown in list(row.items())[1:]:
            way, length = column.split(", ")
            batch, seconds = re.fullmatch(r"(?:(\d+) x )?(\d+) s", length).groups()  # type: ignore[union-attr]
            found = speed("cuda", row["codec"], way, int(seconds), int(batch or 1), None)
            assert shown == with_quartiles(found), (row, column)


def test_speeds_of_decoding() -> None:
    """The page has the table of the latest run, and the ratios to EnCodec that it says."""
    results = read(RESULTS / "decode" / "rtf-cpu.json")
    found = {
        (row["codec"], row["threads"]): row for row in results["rows"] if row["way"] == "decode"
    }
    names = {"melcap": "melcap, torch", "melcap, quality `fast`": "melcap fast, torch"}
    for row in table("docs/speed.md", "decode, 2 threads, now"):
        codec = names.get(row["codec"], row["codec"])
        for column, shown in list(row.items())[1:]:
            threads = int(column.split(", ")[1].split()[0])
            assert shown == with_quartiles(found[codec, threads]), (row, column)
    peer = found["EnCodec 24 kHz", 2]["x_real_time"]
    ratios = [found[codec, 2]["x_real_time"] / peer for codec in names.values()]
    assert [round(ratio) for ratio in ratios] == [4, 6]


def test_costs_of_the_published_size() -> None:
    results = read(RESULTS / "base" / "rtf-cpu.json")
    work = {row["codec"]: row for row in results["gflop"]}
    rows = table("docs/published.md", "encode, 2 threads")
    assert {row["codec"] for row in rows} == work.keys()
    for row in rows:
        for way in ("encode", "decode"):
            assert row[f"{way}, GFLOP"] == f"{work[row['codec']][way]:.3g}", row
            for threads in (2, 1):
                (found,) = (
                    each
                    for each in results["rows"]
                    if (each["codec"], each["way"]) == (f"{row['codec']}, torch", way)
                    and (each["seconds"], each["batch"], each["threads"]) == (10, 1, threads)
                )
                cell = row[f"{way}, {threads} thread{'s' if threads > 1 else ''}"]
                assert cell == with_quartiles(found), (row, way, threads)


def test_levels_of_quality() -> None:
    result = text_of("profiling/results/quality.md")
    rows = table("docs/tokens.md", "ln-mel L1")
    assert rows
    for row in rows:
        assert "| " + " | ".join(row.values()) + " |" in result


def test_stability_of_tokens() -> None:
    """The page has the figures of the committed run, by class and by row."""
    found = {line["class"]: line for line in read(TOKENS)["tokens"]}
    mean = found["mean"]
    by_class = table("docs/language-models.md", "change")
    assert [row["change"] for row in by_class] == [*mean["changes"]]
    for row in by_class:
        for kind, shown in [*row.items()][1:]:
            figures = found[kind]["changes"][row["change"]]
            moved = "" if figures["distance"] is None else f" ({figures['distance']:.2f})"
            assert shown == f"{figures['same']:.1%}{moved}", row
    by_row = table("docs/language-models.md", "bits/token")
    assert len(by_row) == len(mean["bits_by_row"])
    for at, row in enumerate(by_row):
        assert row["row"] == str(at)
        assert row["bits/token"] == f"{mean['bits_by_row'][at]:.2f}"
        for change, shown in [*row.items()][2:-1]:
            assert shown == f"{mean['changes'][change]['same_by_row'][at]:.1%}", row


def test_rows_are_named_by_the_centres_of_their_bins(lite: Codec) -> None:
    mel, rows = lite.config.mel, table("docs/language-models.md", "centres")
    top = 2595 * math.log10(1 + mel.sample_rate / 2 / 700)
    bins = [700 * (10 ** (top * at / (mel.n_mels + 1) / 2595) - 1) for at in range(mel.n_mels + 1)]
    each = mel.n_mels // lite.rows
    for at, row in enumerate(rows):
        low, high = bins[each * at + 1], bins[each * at + each]
        in_hertz, in_kilohertz = (
            f"{low:.0f} to {high:.0f} Hz",
            f"{low / 1e3:.1f} to {high / 1e3:.1f} kHz",
        )
        assert row["centres"] == (in_hertz if high < 1000 else in_kilohertz)


def read(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def text_of(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def table(page: str, column: str) -> Rows:
    """Return the rows of the first table of a page that has a column of this name."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text_of(page), re.M):
        head, _, *lines = [cells(line) for line in block.splitlines()]
        if column in head:
            return [dict(zip(head, line, strict=True)) for line in lines]
    raise AssertionError(f"{page} has no table with a column {column}")


def cells(line: str) -> list[str]:
    """Return the cells of a row, without the marks of bold text."""
    return [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]


def speed(
    device: str, codec: str, way: str, seconds: float, batch: int, threads: int | None
) -> dict[str, Any]:
    """Return the result of one case of the benchmark; melcap is the faster backend there."""
    own = {"cpu": "melcap, torch", "cuda": "melcap, triton"}
    wanted = own[device] if codec == "melcap" else codec
    (found,) = (
        row
        for row in read(RTF[device])["rows"]
        if (row["codec"], row["way"], row["seconds"], row["batch"]) == (wanted, way, seconds, batch)
        and (threads is None or row["threads"] == threads)
    )
    return dict(found)


def in_words(value: float) -> str:
    """Return a speed as the reports show it: three digits, none after the point from 100 on."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def with_quartiles(row: dict[str, Any]) -> str:
    """Return a speed with its quartiles."""
    low, high = in_words(row["p25"]), in_words(row["p75"])
    return f"{in_words(row['x_real_time'])} ({low} to {high})"
