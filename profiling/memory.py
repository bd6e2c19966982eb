"""Peak memory of a process that does one thing, measured from outside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def peak_memory(name: str, seconds: float, batch: int = 1) -> dict[str, float]:
    """Return MB of a fresh process that encodes and decodes a batch, and MB before the batch.

    Before the batch the process has coded a clip of a second. So the second figure is Python,
    torch, the model and what a first call takes, and the difference is what the work costs.
    """
    command = [sys.executable, str(HERE / "memory.py"), name, str(seconds), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_kib() -> int:
    """Return the largest resident set of this process so far, in KiB; Linux only.

    `getrusage` would include what the process that started this one had taken.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main(name: str, seconds: float, batch: int) -> None:
    """Encode and decode a batch in this process, and print its memory as JSON."""
    import torch
    from clips import clip
    from contenders import Skipped, build

    ((_, contender),) = build([name], "cpu")
    if isinstance(contender, Skipped):
        sys.exit(str(contender))
    with torch.no_grad():
        contender.decode(contender.encode(clip(1.0, contender.sample_rate)[None]))
        before = peak_kib() / 1024
        wave = clip(seconds, contender.sample_rate).expand(batch, -1)
        contender.decode(contender.encode(wave))
    print(json.dumps({"peak_mb": peak_kib() / 1024, "before_mb": before}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
