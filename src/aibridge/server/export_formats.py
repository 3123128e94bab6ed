"""The formats of an export: exchanges in, a file out, which an interrupted export can go on with.

An exchange is what `aibridge.recording.history` makes of an interception: its columns, its sums, and a list of each
kind of fact. JSON lines and Parquet have these lists as they are, CSV as JSON in a cell.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import msgspec

from aibridge.errors import SettingsError
from aibridge.recording.chain import Chain
from aibridge.recording.history import FACTS, SUMS, Exchange
from aibridge.records import Interception, InterceptionEnded

if TYPE_CHECKING:
    import pyarrow

State: TypeAlias = dict[str, Any]
"""What a format needs to know to go on: plain JSON."""

_OUTCOME = tuple(name for name in InterceptionEnded.__struct_fields__ if name not in ("interception_id", "metadata"))
_LINKS = ("thread_parent_id", "thread_root_id")
COLUMNS = (*Interception.__struct_fields__, *_OUTCOME, *_LINKS, "turns", *SUMS, *FACTS)
"""What an exchange has, in the order in which every format has it."""

_ROW_GROUP = 64 << 20
"""How much of a Parquet file is held in memory while parts are joined, in bytes."""


class Format(Protocol):
    """Writes exchanges."""

    def write(self, exchanges: Iterable[Exchange]) -> None:
        """Write exchanges."""

    def saved(self) -> State:
        """Bring to the disk what was written; the state from which one can go on after it."""

    def finish(self, about: dict[str, Any]) -> None:
        """There is no more; `about` says of what this is an export."""


class JSONLines:
    """A chain of lines (see `aibridge.recording.chain`): one for each exchange, and one for the end."""

    def __init__(self, file: BinaryIO, state: State | None = None) -> None:
        self._file = file
        self._chain = Chain(state["seq"], state["head"]) if state else Chain()

    def write(self, exchanges: Iterable[Exchange]) -> None:
        """Write a line for each."""
        for exchange in exchanges:
            self._line({"type": "exchange", **_ordered(exchange)})

    def saved(self) -> State:
        """The length of the file, and where the chain stands."""
        return {"size": _synced(self._file), "seq": self._chain.seq, "head": self._chain.head}

    def finish(self, about: dict[str, Any]) -> None:
        """Write the line that says that it is the last."""
        self._line({"type": "end", **about})

    def _line(self, told: dict[str, Any]) -> None:
        self._file.write(self._chain.line(msgspec.json.encode(told)))


class CSV:
    """RFC 4180, with a line of headings; UTF-8."""

    def __init__(self, file: BinaryIO, state: State | None = None) -> None:
        self._file = file
        if state is None:
            self._row(COLUMNS)

    def write(self, exchanges: Iterable[Exchange]) -> None:
        """Write a row for each."""
        for exchange in exchanges:
            self._row([_cell(value) for value in _ordered(exchange).values()])

    def saved(self) -> State:
        """The length of the file."""
        return {"size": _synced(self._file)}

    def finish(self, about: dict[str, Any]) -> None:
        """There is nothing at the end."""

    def _row(self, cells: Iterable[object]) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        self._file.write(text.getvalue().encode())


class Parquet:
    """A file of Apache Parquet. It can not be written on, so it comes in parts that are joined at the end."""

    def __init__(self, output: Path, folder: Path, state: State | None = None) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise SettingsError(
                "Parquet needs the package pyarrow, which is not installed: pip install 'aibridge[parquet]'"
            ) from error
        self._pa, self._pq = pa, pq
        self._output, self._folder = output, folder
        self._parts: int = state["parts"] if state else 0
        self._schema = _schema()
        folder.mkdir(mode=0o700, exist_ok=True)

    def write(self, exchanges: Iterable[Exchange]) -> None:
        """Write a part with these."""
        rows = [_flattened(_ordered(exchange)) for exchange in exchanges]
        self._pq.write_table(self._pa.Table.from_pylist(rows, self._schema), self._part(self._parts))
        self._parts += 1

    def saved(self) -> State:
        """How many parts there are."""
        return {"parts": self._parts}

    def finish(self, about: dict[str, Any]) -> None:
        """Join the parts, some of them in memory at a time."""
        schema = self._schema.with_metadata({"aibridge.export": msgspec.json.encode(about)})
        joined = self._folder / "joined"
        with self._pq.ParquetWriter(joined, schema, compression="zstd") as writer:
            group: list[pyarrow.Table] = []
            for number in range(self._parts):
                group.append(self._pq.read_table(self._part(number), schema=self._schema))
                if sum(table.nbytes for table in group) >= _ROW_GROUP or number == self._parts - 1:
                    writer.write_table(self._pa.concat_tables(group).replace_schema_metadata(schema.metadata))
                    group.clear()
        joined.chmod(0o600)
        joined.rename(self._output)
        for part in self._folder.iterdir():
            part.unlink()
        self._folder.rmdir()

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.parquet"


def _ordered(exchange: Exchange) -> Exchange:
    return {name: exchange[name] for name in COLUMNS}


def _cell(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list | bool) else _iso(value)


def _iso(value: object) -> object:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _synced(file: BinaryIO) -> int:
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _flattened(row: dict[str, Any]) -> dict[str, Any]:
    """The row with objects as JSON: each provider has other members in them, and Parquet has one schema."""
    return {
        name: msgspec.json.encode(value).decode()
        if isinstance(value, dict)
        else [_flattened(each) for each in value]
        if isinstance(value, list)
        else value
        for name, value in row.items()
    }


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    fields = {**_types(Interception), **_types(InterceptionEnded)}
    fields |= dict.fromkeys(_LINKS, pa.string()) | dict.fromkeys(("turns", *SUMS), pa.int64())
    for table, record in FACTS.items():
        types = {name: kind for name, kind in _types(record).items() if name != "interception_id"}
        fields[table] = pa.list_(pa.struct(list(types.items())))
    return pa.schema([(name, fields[name]) for name in COLUMNS])


def _types(record: type[Any]) -> dict[str, pyarrow.DataType]:
    import pyarrow as pa

    types = {"int": pa.int64(), "bool": pa.bool_(), "datetime": pa.timestamp("us", tz="UTC")}
    return {name: types.get(str(told).partition(" |")[0], pa.string()) for name, told in record.__annotations__.items()}
