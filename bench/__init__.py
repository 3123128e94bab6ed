"""What the gateway costs, measured against a bare pass-through of the same stack and against nginx, in one run."""
