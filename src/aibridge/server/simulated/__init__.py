"""The parts of the simulated upstream: its script, how it talks, and its three dialects."""
