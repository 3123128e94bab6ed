"""What the README and docs/ say is true: their examples run, and their tables are complete."""
