"""The product around the bridge: settings, authentication, command line."""
