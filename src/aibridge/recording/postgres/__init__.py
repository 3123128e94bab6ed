"""Records in PostgreSQL, for gateways on several machines."""
