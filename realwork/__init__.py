"""Rollouts of LLM agents that do software work in Docker containers, on Ray, graded by real tests, written as Parquet."""

__version__ = "0.1.0"
