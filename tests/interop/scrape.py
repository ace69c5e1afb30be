"""The users' part of `/metrics`, read by Prometheus' own parser."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.until import until

Samples = dict[str, float]


def scrape(client: httpx.Client) -> Samples:
    """The users' samples by their text: name and sorted labels."""
    page = client.get("/metrics")
    assert page.status_code == 200
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if not sample.name.startswith("mosec_service_")
    }


def scrape_until(client: httpx.Client, expected: Samples) -> Samples:
    """Scrapes until the page has these samples: on a busy machine a worker may answer too late for the first one."""

    def came() -> Samples | None:
        samples = scrape(client)
        return samples if expected.items() <= samples.items() else None

    return until(came, message=lambda: f"{expected} did not come: {scrape(client)}")
