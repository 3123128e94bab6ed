"""How the schema became what it is, one version after another, for Alembic; see `aibridge.recording.schema`."""
