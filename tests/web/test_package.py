"""The npm package: its own tests, its types, and the packed tarball in Node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import melcap
from melcap.codec import Codec
from tests.web import fixtures
from tests.web.conftest import WEB
from tests.web.test_audio import CLIPS, assert_near, count_near_ties

pytestmark = pytest.mark.web

PROGRAM = """
import * as ort from "onnxruntime-web";
import { readFile, writeFile } from "node:fs/promises";
import { Codes, load, pack, unpack } from "melcap";

const [models, audio, out] = process.argv.slice(2);
const codec = await load({
  ort,
  threads: 2,
  encoder: await readFile(`${models}/encoder.ort.gz`),
  decoder: await readFile(`${models}/decoder.ort.gz`),
  facts: await readFile(`${models}/facts.json`),
});
const { buffer } = await readFile(audio);
const codes = await codec.encode([new Float32Array(buffer)]);
await writeFile(`${out}/clip.melcap`, pack(codes));
const [wave] = await codec.decode(unpack(pack(codes)));
await writeFile(`${out}/wave.f32`, new Uint8Array(wave.buffer));
await codec.dispose();
"""

TYPED = """
import * as ort from "onnxruntime-web/wasm";
import { Codec, Codes, MelcapError, RowTables, decodeAudio, load, pack, unpack } from "melcap";

const codec: Codec = await load({ ort, decoder: new URL("https://a/b"), facts: "facts.json" });
const progress = (share: number): void => console.log(share);
const codes: Codes = await codec.encode([new Float32Array(3)], { progress });
const [wave]: Float32Array[] = await codec.decode(unpack(pack(codes)));
const rowTables = new RowTables(new Uint16Array(96), 12, codes.tokenizerId);
const waves: Float32Array[] = await decodeAudio(pack(codes, { rowTables }), codec.sampleRate);
const error: Error = new MelcapError(`${wave.length} ${waves.length}`);
// @ts-expect-error: a wave is no array of channels
await codec.encode(new Float32Array(3));
// @ts-expect-error: codes cannot be changed
codes.rows = "twelve";
throw error;
"""


def run(*words: str | Path, folder: Path = WEB) -> str:
    """Run a program and return what it printed, or fail with it."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_in_node() -> None:
    """The tests in web/test/, with what Python makes."""
    fixtures.write()
    printed = run("node", "--test", "--test-reporter=tap", "test/")
    assert "# fail 0" in printed
    assert "# skipped 0" in printed


def test_types() -> None:
    run("npx", "--no-install", "tsc", "-p", "tsconfig.json")


def test_the_version_is_that_of_python() -> None:
    package = json.loads((WEB / "package.json").read_text())
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert package["version"] == lock["version"] == melcap.__version__
    assert (
        package["peerDependencies"]["onnxruntime-web"]
        == (lock["packages"]["node_modules/onnxruntime-web"]["version"])
    )
    assert "resolved" not in (WEB / "package-lock.json").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the packed tarball is installed, beside ONNX Runtime."""
    folder = tmp_path_factory.mktemp("npm")
    run("npm", "pack", "--pack-destination", folder)
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    shutil.copy(WEB / ".npmrc", folder)
    (tarball,) = folder.glob("*.tgz")
    runtime = json.loads((WEB / "package.json").read_text())["peerDependencies"]["onnxruntime-web"]
    run(
        *("npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"),
        *(tarball, f"onnxruntime-web@{runtime}"),
        folder=folder,
    )
    return folder


def test_what_the_tarball_holds(installed: Path) -> None:
    (tarball,) = installed.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    sources = {f"src/{path.name}" for path in (WEB / "src").glob("*.js")}
    types = {name.replace("src/", "types/").replace(".js", ".d.ts") for name in sources}
    assert names == {"package.json", "README.md", "LICENSE", *sources, *types}


def test_the_tarball_codes_audio(lite: Codec, installed: Path) -> None:
    """Installed from its tarball, in Node, with two threads."""
    wave = soundfile.read(CLIPS / "sound.flac", dtype="float32")[0]
    wave.tofile(installed / "wave.f32")
    (installed / "program.js").write_text(PROGRAM)
    dist = WEB / "models"
    out = installed / "out"
    out.mkdir()
    run("node", "program.js", dist, "wave.f32", out, folder=installed)
    codes = melcap.Codes.load(out / "clip.melcap")
    assert codes.model == lite.model
    count_near_ties(lite, torch.from_numpy(wave), codes.tokens[0])
    assert_near(np.fromfile(out / "wave.f32", np.float32)[None], lite.decode(codes))


def test_types_of_the_tarball(installed: Path) -> None:
    """They are checked as a user's strict TypeScript checks them."""
    (example,) = re.findall(r"```js\n(.*?)```", (WEB / "README.md").read_text(), re.DOTALL)
    (installed / "user.ts").write_text(TYPED)
    (installed / "readme.ts").write_text(
        f"declare const bytes: Uint8Array;\ndeclare const ids: number[];\n{example}"
    )
    options = ("--strict", "--noEmit", "--target", "es2022", "--module", "nodenext")
    compiler = WEB / "node_modules" / ".bin" / "tsc"
    run(compiler, *options, "--lib", "es2022,dom", "user.ts", "readme.ts", folder=installed)
