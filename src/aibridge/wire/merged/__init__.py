"""One message for the client out of several turns of the provider, where the gateway runs tools between them."""
