"""Rollouts of LLM agents doing software work in Docker containers on Ray, graded by tests, written as Parquet."""

__version__ = "0.1.0"
