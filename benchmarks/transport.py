"""Measure the clients against the official SDK, over loopback, on a stub that does no model work.

    make bench-transport BENCH_ARGS="--only sample,step_zero --rounds 3"
    python benchmarks/transport.py --official PYTHON             # PYTHON has the official SDK
    python benchmarks/transport.py --official PYTHON --quick     # few calls: to see that it runs, not to read numbers

The stub keeps to one CPU and the measured process to another. Every run is a process of its own; in each round every
client does every scenario once, in an order drawn anew. A ratio is ours / the SDK's in the same round, and what is
printed is the median over the rounds. The SDK runs in its default configuration, ours too.

    sample     400 samples in flight, prompts of 128 tokens, answers of 64 with log probabilities, 20 ms of service
    tls        the same over TLS
    sft, rl    forward_backward of 128 sequences of 2,048 tokens, one after the other
    step       forward_backward of 8 x 512 tokens and optim_step, pipelined; the service needs 20 + 5 ms
    step_zero  the same of 1 x 128 tokens; the service needs no time
    growth     `sample` with 2,000 and with 20,000 samples, ours against ours
    client     `sample`, ours with every call through `httpx.AsyncClient`; it stands beside, and has no bar

The last line is JSON; null is what was not asked for. Bars say what the package promises; missing one changes
nothing but the last column.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from stub_process import stub
from transport_work import control

HERE = Path(__file__).parent
Numbers: TypeAlias = dict[str, float]


@attrs.frozen
class Scenario:
    """One thing to do.

    Attributes:
        arguments: what the drivers are told.
        count: how often it is done in one run.
        settings: how long the service seems to need.
        clients: who does it: `official`, or the way of ours.
        tls: over TLS.
    """

    arguments: tuple[str, ...]
    count: int
    settings: Numbers = attrs.field(factory=dict)
    clients: tuple[str, ...] = ("official", "direct")
    tls: bool = False


_STEP = ("step", "--datums", "8", "--length", "512")
_NO_TIME = {"batch_ms": 0.0, "optim_ms": 0.0}
SCENARIOS: dict[str, Scenario] = {
    "sample": Scenario(("sample",), 2000, {"sample_ms": 20}),
    "tls": Scenario(("sample",), 2000, {"sample_ms": 20}, tls=True),
    "sft": Scenario(("batch", "--kind", "sft"), 12, _NO_TIME),
    "rl": Scenario(("batch", "--kind", "rl"), 12, _NO_TIME),
    "step": Scenario(_STEP, 200, {"batch_ms": 20, "optim_ms": 5}),
    "step_zero": Scenario(("step", "--datums", "1", "--length", "128"), 200, _NO_TIME),
    "growth": Scenario(("sample",), 20_000, {"sample_ms": 20}, clients=("direct",)),
    "client": Scenario(("sample",), 2000, {"sample_ms": 20}, clients=("official", "client")),
}


@attrs.frozen
class Ratio:
    """One number of the result.

    Attributes:
        scenario: where it comes from.
        field: what is compared, of what a driver reports.
        bar: what it must be.
        at_least: the bar is a least, not a most.
        against: the scenario and client it is compared with; the SDK's run of the same scenario if none is given.
        client: whose run it is.
    """

    scenario: str
    field: str
    bar: float | None
    at_least: bool = False
    against: tuple[str, str] | None = None
    client: str = "direct"

    def of(self, rounds: Sequence[dict[tuple[str, str], Numbers]]) -> float | None:
        """Return the median over the rounds; None if it was not measured."""
        theirs = self.against or (self.scenario, "official")
        ours = (self.scenario, self.client)
        found = [
            one[ours][self.field] / one[theirs][self.field] for one in rounds if {ours, theirs} <= set(one)
        ]
        return statistics.median(found) if found else None


RATIOS: dict[str, Ratio] = {
    "sample_cpu_ratio": Ratio("sample", "cpu_ms", 0.18),
    "sample_rate_ratio": Ratio("sample", "per_second", 5.5, at_least=True),
    "burst_ratio": Ratio("sample", "burst_s", 0.5),
    "tls_cpu_ratio": Ratio("tls", "cpu_ms", 0.25),
    "fb_cpu_ratio": Ratio("sft", "cpu_ms", 0.35),
    "fb_rl_cpu_ratio": Ratio("rl", "cpu_ms", 0.35),
    "fb_rate_ratio": Ratio("sft", "mb_per_second", 2.5, at_least=True),
    "step_cpu_ratio": Ratio("step", "cpu_ms", 0.35),
    "step_zero_ratio": Ratio("step_zero", "step_ms", 0.35),
    "growth": Ratio("growth", "cpu_ms", 1.1, against=("sample", "direct")),
    "rss_ratio": Ratio("sample", "peak_mb", 0.7),
    "client_cpu_ratio": Ratio("client", "cpu_ms", None, client="client"),
}
NEEDED = {"growth": ("sample", "growth")}


# --- processes -------------------------------------------------------------------------------------------


def _on(cpu: int | None) -> tuple[str, ...]:
    return () if cpu is None else ("--cpu", str(cpu))


@contextlib.contextmanager
def certificates() -> Iterator[tuple[str, str, str]]:
    """Yield the files of an authority, a certificate for loopback and its key."""
    trustme: Any = importlib.import_module("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / name) for name in ("ca.pem", "cert.pem", "key.pem")]
        authority.cert_pem.write_to_path(names[0])
        for part in certificate.cert_chain_pems:
            part.write_to_path(names[1], append=True)
        certificate.private_key_pem.write_to_path(names[2])
        yield names[0], names[1], names[2]


@attrs.frozen
class Bench:
    """What the runs need.

    Attributes:
        official: the interpreter that has the SDK.
        urls: the stubs' addresses, without and with TLS.
        authority: the file of the authority of the second.
        cpu: where the measured process runs.
        quick: do little.
    """

    official: str
    urls: tuple[str, str]
    authority: str
    cpu: int | None
    quick: bool

    def run(self, scenario: Scenario, client: str) -> Numbers:
        """Let a client do a scenario, and return what it reports."""
        url = self.urls[scenario.tls]
        # The settings are the stub's, and both stubs listen to them alike.
        control(url, "settings", scenario.settings)
        official = client == "official"
        count = max(4, scenario.count // 50) if self.quick else scenario.count
        command = [
            self.official if official else sys.executable,
            str(HERE / f"transport_{'official' if official else 'ours'}.py"),
            *scenario.arguments,
            *("--url", url, "--count", str(count)),
            *(() if official else ("--way", client)),
            *_on(self.cpu),
        ]
        environment = {**os.environ, "SSL_CERT_FILE": self.authority}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{client} failed in {scenario.arguments}:\n{done.stdout}{done.stderr}")
        numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
        return numbers


def measure(bench: Bench, names: Sequence[str], rounds: int) -> list[dict[tuple[str, str], Numbers]]:
    """Run everything once in each round, in an order drawn anew."""
    rng = random.Random(0)
    found: list[dict[tuple[str, str], Numbers]] = []
    for at in range(rounds):
        runs = [(name, client) for name in names for client in SCENARIOS[name].clients]
        rng.shuffle(runs)
        results = {}
        for name, client in runs:
            if sys.stderr.isatty():
                print(
                    f"\r\033[Kround {at + 1} of {rounds}: {name}, {client}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
            results[name, client] = bench.run(SCENARIOS[name], client)
        found.append(results)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found


# --- the report ------------------------------------------------------------------------------------------


def medians(rounds: Sequence[dict[tuple[str, str], Numbers]]) -> Iterator[str]:
    """Lay out what each client reported, as medians."""
    for name, client in sorted({key for one in rounds for key in one}):
        fields = rounds[0][name, client]
        shown = {field: statistics.median(one[name, client][field] for one in rounds) for field in fields}
        yield f"{name:<10}{client:<10}" + "  ".join(f"{field} {value:,.3f}" for field, value in shown.items())


def verdict(ratio: Ratio, value: float | None) -> str:
    """Say whether a bar is met."""
    if value is None or ratio.bar is None:
        return "-"
    met = value >= ratio.bar if ratio.at_least else value <= ratio.bar
    return "yes" if met else "no"


def scenario_names(text: str) -> list[str]:
    """Read a list of scenarios; what one of them is compared with comes along."""
    wanted = text.split(",")
    if unknown := set(wanted) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    needed = {one for name in wanted for one in NEEDED.get(name, (name,))}
    return [name for name in SCENARIOS if name in needed]


def _cpus() -> tuple[int | None, int | None]:
    """Return a CPU for the measured process and one for the stub, where the system lets them keep to one."""
    if sys.platform != "linux":
        return None, None
    first, *others = sorted(os.sched_getaffinity(0))
    return first, others[0] if others else None


def main() -> None:
    """Measure, and print the tables and the line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--official", required=True, help="a Python that has the official SDK")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each client (5)")
    parser.add_argument("--only", type=scenario_names, default=list(SCENARIOS), help="scenarios, with commas")
    parser.add_argument("--quick", action="store_true", help="few calls: to see that it runs")
    options = parser.parse_args()
    ours, theirs = _cpus()
    with (
        certificates() as (authority, *pair),
        stub(*_on(theirs)) as plain,
        stub(*_on(theirs), "--tls", *pair) as secure,
    ):
        os.environ["SSL_CERT_FILE"] = authority
        bench = Bench(options.official, (plain, secure), authority, ours, options.quick)
        rounds = measure(bench, options.only, options.rounds)
    print("\n".join(medians(rounds)))
    values = {name: ratio.of(rounds) for name, ratio in RATIOS.items()}
    for name, value in values.items():
        ratio = RATIOS[name]
        bar = "-" if ratio.bar is None else f"{'>=' if ratio.at_least else '<='} {ratio.bar:g}"
        print(f"{name:<18}{'-' if value is None else f'{value:.3f}':>9}{bar:>9}  {verdict(ratio, value)}")
    disorder = [one[key].get("out_of_order", 0) for one in rounds for key in one if key[1] != "official"]
    line = {name: None if value is None else round(value, 3) for name, value in values.items()}
    print(json.dumps({**line, "out_of_order": sum(disorder)}))


if __name__ == "__main__":
    main()
