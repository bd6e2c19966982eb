"""The process of a phase of `gpu_budget.py`: its log, its time limit and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from paths import ROOT
from phases import REHEARSAL_SECONDS, Phase, Place

from melcap.io.files import replacing
from melcap.ops.registry import SWITCH

GRACE_SECONDS = 6.0
"""Seconds between asking a phase to end and killing it. Training saves in that time."""


@dataclass
class Outcome:
    """The end of a phase: passed, failed, stopped at its limit, kept from before, or skipped."""

    phase: str
    status: str
    seconds: float = 0.0
    limit: float = 0.0
    returncode: int | None = None
    reason: str = ""
    command: list[str] = field(default_factory=list)
    kernels_off: list[str] = field(default_factory=list)


class Running:
    """A phase that runs: its process, its log, and when it must end.

    Args:
        name: the name of the phase.
        phase: the phase.
        place: the folders and the device.
        deadline: when it must have ended, in seconds since 1970.
        environment: environment variables for its process.
        off: operations whose kernels are switched off.
    """

    def __init__(
        self,
        name: str,
        phase: Phase,
        place: Place,
        deadline: float,
        environment: dict[str, str],
        off: list[str],
    ) -> None:
        self._began = time.time()
        limit = REHEARSAL_SECONDS if place.rehearsal else phase.limit
        self._deadline = min(deadline, self._began + limit)
        self._place = place
        self._asked = 0.0
        # The phase should end by itself before it is asked to.
        command = phase.command(place, self._deadline - 1.0)
        self.outcome = Outcome(
            name, "running", limit=self._deadline - self._began, command=command, kernels_off=off
        )
        self._log = (place.out / f"{name}.log").open("w")
        variables = environment | phase.environment(place) | {SWITCH: ",".join(off)}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._write()

    def ended(self) -> bool:
        """Return whether the phase has ended, and stop it where its time is up."""
        now = time.time()
        status = self._process.poll()
        if status is None:
            if not self._asked and now >= self._deadline:
                self._asked = now
                self._signal(signal.SIGTERM)
            elif self._asked and now >= self._asked + GRACE_SECONDS:
                self._signal(signal.SIGKILL)
            return False
        self._signal(signal.SIGKILL)  # whatever processes it has left behind
        self._log.close()
        self.outcome.seconds = round(now - self._began, 1)
        self.outcome.returncode = status
        self.outcome.status = "passed" if not status else "stopped" if self._asked else "failed"
        if self._asked:
            self.outcome.reason = f"its {self.outcome.limit:.0f} s were over"
        elif status:
            lines = (self._place.out / f"{self.outcome.phase}.log").read_text(errors="replace")
            self.outcome.reason = "".join(lines.strip().splitlines()[-1:])[:300]
        self._write()
        return True

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _write(self) -> None:
        write(self._place, self.outcome)


def write(place: Place, outcome: Outcome) -> None:
    """Write OUT/<phase>.json."""
    with replacing(place.out / f"{outcome.phase}.json") as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
