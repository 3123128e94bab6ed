"""Which store a setting means."""

from __future__ import annotations

from pathlib import Path

import pytest

from aibridge.errors import RecordingError, SettingsError
from aibridge.recording.sqlite import SQLiteStore
from aibridge.recording.stores import store_for


def test_three_slashes_are_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = store_for("sqlite:///records.db")
    assert isinstance(store, SQLiteStore)
    assert (tmp_path / "records.db").exists()
    store.close()


def test_four_slashes_are_a_path_from_the_root(tmp_path: Path) -> None:
    store_for(f"sqlite:///{tmp_path}/records.db").close()
    assert (tmp_path / "records.db").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://user:hunter2@host/db", "storage.url: found a URL of scheme 'mysql'"),
        ("records.db", "scheme ''"),
        ("sqlite://records.db", "no path of a database file"),
        ("sqlite:///", "no path of a database file"),
        ("sqlite:///:memory:", "no path of a database file"),
    ],
)
def test_any_other_url_is_refused_with_what_is_allowed(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        store_for(url)
    assert "sqlite:///relative.db" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_database_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"missing/records\.db can not be used"):
        store_for(f"sqlite:///{tmp_path}/missing/records.db")
