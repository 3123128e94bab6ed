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
    """One figure of each target, and whether the gateway's is good enough.

    `limit` bounds the gateway's ratio to the bare pass-through where `of_ratio`, else its figure itself.
    """

    what: str
    unit: str
    figures: Mapping[str, float]
    """By the target's name: `bare`, `gateway`, `nginx`; one that was not measured is missing."""
    limit: float | None = None
    of_ratio: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The gateway's figure divided by the bare pass-through's."""
        bare, gateway = self.figures.get("bare"), self.figures.get("gateway")
        return gateway / bare if bare and gateway is not None else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or no gateway."""
        judged = self.ratio if self.of_ratio else self.figures.get("gateway")
        return None if judged is None or self.limit is None else judged <= self.limit

    @property
    def target(self) -> str:
        """The target in words."""
        if self.limit is None:
            return ""
        return f"≤ {self.limit:g} of bare" if self.of_ratio else f"≤ {self.limit:g} {self.unit}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="What the gateway costs", title_justify="left")
    table.add_column("what")
    for name in ("unit", "bare", "gateway", "ratio", "nginx", "target", "met"):
        table.add_column(name, justify="left" if name in {"unit", "target"} else "right", no_wrap=True)
    for row in rows:
        met = {True: "[green]yes", False: "[bold red]NO", None: ""}[row.met]
        bare, gateway, nginx = (_figure(row.figures.get(name)) for name in ("bare", "gateway", "nginx"))
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.what, row.unit, bare, gateway, ratio, nginx, row.target, met)
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
