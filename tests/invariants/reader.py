"""Somebody who reads a run while it is written."""

import threading

import pyarrow.parquet as pq


class Reader:
    """Opens every part again and again."""

    def __init__(self, directory):
        self.problems = []
        self.counts = [0]
        self._directory = directory
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ended.set()
        self._thread.join()

    def _read(self):
        while not self._ended.wait(0.2):
            try:
                parts = sorted((self._directory / "trajectories").glob("*.parquet"))
                self.counts.append(sum(pq.read_table(part).num_rows for part in parts))
            except Exception as error:  # noqa: BLE001 - the assertion of the test is that there is none
                self.problems.append(error)
