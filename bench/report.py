"""What was found, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

STACK = ("uvicorn", "httptools", "uvloop", "aiohttp")


@dataclass(frozen=True)
class Row:
    """One figure of each target, and whether that of `measured` is good enough.

    `limit` bounds its ratio to that of `beside` where `of_ratio`, else the figure itself.
    """

    what: str
    unit: str
    figures: Mapping[str, float]
    """By the target's name, such as `bare`, `gateway`, `nginx`; one that was not measured is missing."""
    limit: float | None = None
    of_ratio: bool = False
    note: str = ""
    measured: str = "gateway"
    beside: str = "bare"

    @property
    def ratio(self) -> float | None:
        """The figure of what is measured, divided by that of what it stands beside."""
        yardstick, figure = self.figures.get(self.beside), self.figures.get(self.measured)
        return figure / yardstick if yardstick and figure is not None else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or no figure."""
        judged = self.ratio if self.of_ratio else self.figures.get(self.measured)
        return None if judged is None or self.limit is None else judged <= self.limit

    @property
    def target(self) -> str:
        """The target in words."""
        if self.limit is None:
            return ""
        return f"≤ {self.limit:g} of {self.beside}" if self.of_ratio else f"≤ {self.limit:g} {self.unit}"


def show(rows: Sequence[Row], console: Console, title: str, targets: Sequence[str]) -> None:
    """Print a table with a column for each target."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for name in ("unit", *targets, "ratio", "target", "met"):
        table.add_column(name, justify="left" if name in {"unit", "target"} else "right", no_wrap=True)
    for row in rows:
        met = {True: "[green]yes", False: "[bold red]NO", None: ""}[row.met]
        figures = [_figure(row.figures.get(name)) for name in targets]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.what, row.unit, *figures, ratio, row.target, met)
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"[bold]{row.what}:[/] {row.note}", highlight=False)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, and what they were measured on."""
    found = {
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            **{name: version(name) for name in STACK},
        },
        "rows": [{**asdict(row), "ratio": row.ratio, "target": row.target, "met": row.met} for row in rows],
    }
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"
