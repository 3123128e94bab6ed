"""The benchmark's command: `scripts/bench`."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvloop
from rich.console import Console

from bench import suite
from bench.hotspots import SCENARIOS, profile
from bench.report import Row, show, write_json
from bench.suite import FULL, QUICK, Effort
from bench.targets import Bare, BareAgain, Gateway, Nginx, Target, nginx_path, start_provider
from bench.tools import COLUMNS, tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.process import Process


@click.command()
@click.option("--quick", is_flag=True, help="Under a minute, with less certain figures.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows here too.")
@click.option("--self-check", is_flag=True, help="Put a second bare pass-through in the gateway's place: all is 1.00.")
@click.option("--only", type=click.Choice(["exchanges", "tools"]), help="Measure one part alone.")
@click.option("--profile", "scenario", type=click.Choice(list(SCENARIOS)), help="Show where the gateway spends time.")
def main(quick: bool, json_path: Path | None, self_check: bool, only: str | None, scenario: str | None) -> None:
    """Measure what the gateway costs, beside a bare pass-through of the same stack and nginx.

    Exits with 1 where a target is missed, with 2 where the gateway does not serve.
    """
    _allow_many_files()
    console = Console(stderr=True, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if scenario:
            uvloop.run(profile(scenario, Path(folder), Console()))
            return
        effort = QUICK if quick else FULL
        out = Console(width=None if sys.stdout.isatty() else 140)
        rows = []
        if only != "tools":
            rows = uvloop.run(_run(Path(folder), effort, console, self_check=self_check))
            show(rows, out, "What the gateway costs", ("bare", "gateway", "nginx"))
        serves = only == "tools" or any("gateway" in row.figures for row in rows)
        if only != "exchanges" and serves and not self_check:
            with_tools = uvloop.run(tools(Path(folder), effort, console.print))
            show(with_tools, out, "What injected tools cost", COLUMNS)
            rows += with_tools
    if json_path:
        write_json(rows, json_path)
    if not serves:
        sys.exit(2)
    sys.exit(any(row.met is False for row in rows))


async def _run(folder: Path, effort: Effort, console: Console, *, self_check: bool) -> list[Row]:
    with ExitStack() as stack:
        provider = start_provider(folder)
        stack.callback(provider.stop)
        await provider.ready()
        targets = _targets(folder, provider.port, console, self_check=self_check)
        rows, serving = await suite.lifecycle(targets, effort, console.print)
        running: dict[str, Process] = {}
        for target in serving:
            running[target.name] = target.start()
            stack.callback(running[target.name].stop)
            await running[target.name].ready()
        rows += await _measure(running, provider, effort, console)
        for target in serving:
            if isinstance(target, Gateway):
                rows.append(await suite.recorded(target, running[target.name].answered))
        return rows


async def _measure(running: Mapping[str, Process], provider: Process, effort: Effort, console: Console) -> list[Row]:
    everywhere = os.sched_getaffinity(0)
    rows = await suite.many_streams(running, effort, console.print)
    if apart := suite.cores():
        for process in running.values():
            process.pin(apart[0])
        provider.pin(apart[1])
        os.sched_setaffinity(0, apart[1])
    else:
        console.print("[yellow]There is one core only:[/] load and proxy share it, and latencies mean little.")
    rows += await suite.costs(running, effort, console.print)
    rows += await suite.flatness(running, effort, console.print)
    rows += await suite.delays(running, effort, console.print)
    rows += await suite.latencies(running, provider, effort, console.print)
    os.sched_setaffinity(0, everywhere)
    return rows


def _targets(folder: Path, upstream: int, console: Console, *, self_check: bool) -> Sequence[Target]:
    targets: list[Target] = [Bare(folder, upstream)]
    targets.append(BareAgain(folder, upstream) if self_check else Gateway(folder, upstream))
    if nginx_path():
        targets.append(Nginx(folder, upstream))
    else:
        console.print("[yellow]nginx is not installed:[/] its column is left out (Debian: apt-get install nginx).")
    return targets


def _allow_many_files() -> None:
    """A proxy of 512 streams holds 1,024 connections, as many as the usual soft limit on open files allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
