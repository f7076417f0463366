"""What a Prometheus would get of a Ray that runs meanwhile."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

EVERY_S = 0.5


class Scraped:
    """All that was seen of realwork's metrics.

    Attributes:
        kinds: counter, gauge or histogram, by family.
        highest: of each series the highest value, by its name and its labels without those of Ray.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.highest: dict[tuple[str, ...], float] = {}

    def add(self, text: str) -> None:
        """Take in one answer; what processes tell of the same is added up."""
        sums: dict[tuple[str, ...], float] = {}
        for family in text_string_to_metric_families(text):
            if not family.name.startswith("ray_realwork_"):
                continue
            self.kinds[family.name] = family.type
            for sample in family.samples:
                labels = sample.labels
                own = [labels[name] for name in ("run", "state", "outcome", "cause", "kind", "le") if name in labels]
                assert {"NodeAddress", "WorkerId", "run"} <= labels.keys()
                key = (sample.name, *own)
                sums[key] = sums.get(key, 0.0) + sample.value
        for key, value in sums.items():
            self.highest[key] = max(value, self.highest.get(key, 0.0))


@contextmanager
def scraping(port: int) -> Iterator[Scraped]:
    """Scrape the node whose metrics are exported at `port` for the length of the block, and once more at its end."""
    scraped, ended = Scraped(), threading.Event()

    def once() -> None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                scraped.add(answer.read().decode())
        except OSError:  # the agent has not started yet
            return

    def again_and_again() -> None:
        while not ended.wait(EVERY_S):
            once()

    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        yield scraped
    finally:
        ended.set()
        thread.join()
        once()
