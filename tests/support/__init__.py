"""What tests are made with: a provider that says what it is told to, a client that sees every byte, a recorder."""
