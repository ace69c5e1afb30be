"""examples/ocr: real models read pictures of text."""

import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.examples.heavy.conftest import LOADING, Run
from tests.examples.heavy.pictures import encoded, with_text
from tests.examples.programs import EXAMPLES, client
from tests.service import Service


@pytest.fixture(scope="module")
def service(run_example: Run) -> Service:
    return run_example("ocr", {"ORT_DISABLE_TELEMETRY": "0"})  # the program has to switch it off itself


def read(service: Service, picture: bytes) -> list[dict[str, Any]]:
    with service.client() as http:
        answer = http.post("/inference", content=picture)
    assert answer.status_code == 200, answer.text
    lines: list[dict[str, Any]] = answer.json()
    return lines


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["text"].replace(" ", "") for line in lines]  # the model is not sure of spaces


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_lines_from_top_to_bottom(service: Service, kind: str) -> None:
    lines = read(service, encoded(with_text("Invoice 2024", "Total: 1,250.00", "Thank you"), kind))
    assert texts(lines) == ["Invoice2024", "Total:1,250.00", "Thankyou"]
    assert all(0.8 < line["score"] <= 1 for line in lines)


def test_corners_are_those_of_the_picture_that_was_sent(service: Service) -> None:
    large = with_text("Reading", size=200, width=4000)  # is made smaller on the way
    ink = np.asarray(large.convert("L")) < 128
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    (line,) = read(service, encoded(large))
    corners = np.array(line["corners"])
    assert corners.shape == (4, 2)
    assert texts([line]) == ["Reading"]
    # The box is a little wider than the ink; half a letter is far less than the factor of two that it was scaled by.
    edges = [corners[:, 0].min(), corners[:, 0].max(), corners[:, 1].min(), corners[:, 1].max()]
    assert edges == pytest.approx([columns[0], columns[-1], rows[0], rows[-1]], abs=100)


def test_text_that_runs_downwards(service: Service) -> None:
    column = with_text("SIDEWAYS").rotate(-90, expand=True)
    assert texts(read(service, encoded(column))) == ["SIDEWAYS"]


def test_nothing_to_read(service: Service) -> None:
    assert read(service, encoded(Image.new("RGB", (300, 200), "white"))) == []


@pytest.mark.parametrize("body", [b"no picture", encoded(with_text("cut off"))[:30]])
def test_no_picture(service: Service, body: bytes) -> None:
    with service.client() as http:
        answer = http.post("/inference", content=body)
    assert answer.status_code == 422
    assert answer.text == (
        "request validation error: send a picture, such as a PNG or JPEG file, as the body of the request"
    )


def test_too_many_pixels(service: Service) -> None:
    with service.client() as http:
        answer = http.post("/inference", content=encoded(Image.new("1", (20000, 20000))))
    assert answer.status_code == 422
    assert answer.text.startswith("request validation error: the picture cannot be decoded: ")


def test_each_of_many_gets_its_own(service: Service) -> None:
    words = [["North"], ["South", "East"], [], ["West", "Up", "Down"]] * 4
    pictures = [encoded(with_text(*lines) if lines else Image.new("RGB", (200, 200))) for lines in words]
    with ThreadPoolExecutor(8) as pool:
        assert [texts(lines) for lines in pool.map(lambda picture: read(service, picture), pictures)] == words


def test_arrays_lie_in_shared_memory_between_stages(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        textwrap.dedent(f"""
            import sys
            from pathlib import Path

            sys.path.insert(0, {str(EXAMPLES / "ocr")!r})
            import server as ocr
            from mosec_cy import Server

            def shared(array):
                address = array.__array_interface__["data"][0]
                for line in Path("/proc/self/maps").read_text().splitlines():
                    begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                    if begin <= address < end:
                        return "memfd:" in line
                return False

            class Detect(ocr.Detect):
                def forward(self, data):
                    found = super().forward(data)
                    found["picture was shared"] = shared(data[0])
                    return found

            class Report(ocr.Worker):
                def forward(self, data):
                    crops = data["crops"]
                    return [data["picture was shared"], len(crops), sum(map(shared, crops))]

            if __name__ == "__main__":
                server = Server(timeout=60_000)
                server.append_worker(ocr.Decode)
                server.append_worker(Detect)
                server.append_worker(Report)
                server.run()
        """)
    )
    with Service(script, directory=tmp_path) as service, service.wait_ready(LOADING).client() as http:
        answer = http.post("/inference", content=encoded(with_text("First line", "Second line")))
    assert answer.json() == [True, 2, 2]


def test_client_program(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(with_text("First", "Second")))
    (tmp_path / "b.png").write_bytes(encoded(with_text("Third")))
    lines = client("ocr", service, str(tmp_path / "a.png"), str(tmp_path / "b.png"), path="/inference")
    assert lines == ["a.png: First", "a.png: Second", "b.png: Third"]
