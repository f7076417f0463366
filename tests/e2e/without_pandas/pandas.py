"""In place of pandas, for commands that need none: pyarrow loads it where it is, which takes longer than their work."""

raise ImportError("commands are tried without pandas")
