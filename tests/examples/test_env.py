"""examples/env: replicas with environments of their own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.examples.programs import client, running


def test_each_replica_has_its_gpu(tmp_path: Path) -> None:
    with running("env", tmp_path, env={"GPUS": "3,5,7"}) as service:
        logged = [service.wait_output(rf"replica {number} has GPU {gpu}") for number, gpu in ((1, 3), (2, 5), (3, 7))]
        assert len(logged) == 3

        expected = {(1, "3"), (2, "5"), (3, "7")}
        seen: set[tuple[int, str]] = set()

        def ask(_: int) -> tuple[int, str]:
            answer = http.post("/inference", content=b"{}").json()
            return answer["worker_id"], answer["gpu"]

        with service.client() as http, ThreadPoolExecutor(16) as pool:
            for _ in range(100):
                seen |= set(pool.map(ask, range(100)))
                if seen == expected:
                    break
        assert seen == expected

        lines = client("env", service, "--requests", "50", path="/inference")
        assert lines
        assert set(lines) <= {f"replica {number}: GPU {gpu}" for number, gpu in expected}
