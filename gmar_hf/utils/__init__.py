"""Text, files, checks, the Hub's client."""
