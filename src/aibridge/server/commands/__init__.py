"""The commands of `aibridge` by what they are about. Each imports what it needs when it runs."""
