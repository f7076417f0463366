"""The viewer: a page over the Parquet of runs, and a report that stands alone."""
