"""What a server is told to run: wrong arguments fail at the call and say what would be right."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mosec_cy import Runtime, Server, Worker
from mosec_cy._config.options import Options
from mosec_cy._config.plan import METRICS, TEXT, Plan, batching, make_plan


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return data


class Picture(Echo):
    resp_mime_type = "image/png"


class Counting(Echo):
    def cost(self, result: Any) -> int:
        return len(result)


class Incomplete(Worker):
    pass


class LongMimeType(Echo):
    resp_mime_type = "text/" + "x" * 252


class NoMimeType(Echo):
    resp_mime_type = None  # type: ignore[assignment]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(sys, "argv", ["program"])
    return Server()


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"worker": Echo()}, TypeError, "a class derived from mosec_cy.Worker .not an instance."),
        ({"worker": dict}, TypeError, "must be derived from mosec_cy.Worker, but dict is not"),
        ({"worker": Incomplete}, TypeError, "Incomplete must define forward"),
        ({"num": 0}, ValueError, "num must be at least 1, but is 0"),
        ({"num": 1.0}, TypeError, "num must be an int, but is 1.0"),
        ({"num": True}, TypeError, "num must be an int, but is True"),
        ({"max_batch_size": 0}, ValueError, "max_batch_size must be at least 1"),
        ({"max_wait_time": -1}, ValueError, "max_wait_time must be at least 0 .ms;"),
        ({"max_wait_time": 10**12 + 1}, ValueError, "max_wait_time must be at most 1000000000000 .ms."),
        ({"max_wait_time": 1.5}, TypeError, "max_wait_time must be an int .ms;"),
        ({"retry": -1}, ValueError, "retry must be at least 0 .runs after the first."),
        ({"retry": 11}, ValueError, "retry must be at most 10 "),
        ({"retry": True}, TypeError, "retry must be an int "),
        ({"batching": "fast"}, ValueError, 'batching must be "auto" or "static", but is \'fast\''),
        ({"cost": "tokens"}, ValueError, 'cost must be "count", "bytes" or "previous", but is \'tokens\''),
        ({"cost": "previous"}, ValueError, "Echo is the first stage of a route, but takes cost from the stage before"),
        ({"max_batch_cost": -1}, ValueError, "max_batch_cost must be at least 0 .0 means no limit."),
        ({"max_batch_cost": 2**62 + 1}, ValueError, "max_batch_cost must be at most 4611686018427387904"),
        ({"pad": True}, ValueError, "pad=True needs a cost that differs among items"),
        ({"pad": 1, "cost": "bytes"}, TypeError, "pad must be True or False, but is 1"),
        ({"timeout": -1}, ValueError, "timeout must be at least 0 and at most 1000000000 .s;"),
        ({"timeout": 1e300}, ValueError, "timeout must be at least 0 and at most 1000000000 .s;"),
        ({"timeout": float("nan")}, ValueError, "timeout must be at least 0 and at most 1000000000 .s;"),
        ({"timeout": "1"}, TypeError, "timeout must be a number .s."),
        ({"start_method": "forkserver"}, ValueError, 'must be "spawn" or "fork", but is \'forkserver\''),
        ({"env": {"A": "1"}}, TypeError, "one dict.str, str. for each replica, but is"),
        ({"env": [{"A": 1}]}, TypeError, "one dict.str, str. for each replica, but has"),
        ({"env": [{}, {}]}, ValueError, "for each replica, so of 1, but has 2"),
        ({"env": "A=1"}, TypeError, "env must be a list"),
        ({"route": "inference"}, ValueError, 'must start with a slash, like "/inference"'),
        ({"route": []}, ValueError, "at least one path"),
        ({"route": ["/a", "/a"]}, ValueError, "names a path twice"),
        ({"route": ["/a", 1]}, TypeError, "route must be a string"),
        ({"route": "/a b"}, ValueError, "must be the path of a URL"),
        ({"route": "/a?b"}, ValueError, "must be the path of a URL"),
        ({"route": "/"}, ValueError, "'/' is reserved"),
        ({"route": "/metrics"}, ValueError, "'/metrics' is reserved"),
        ({"route": "/openapi/swagger/"}, ValueError, "is reserved"),
        ({"route": "/health/ready"}, ValueError, "'/health/ready' is reserved"),
    ],
)
def test_wrong_arguments_of_append_worker(
    server: Server, arguments: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        server.append_worker(**{"worker": Echo, **arguments})


def test_a_local_class_cannot_be_spawned(server: Server) -> None:
    class Local(Echo):
        pass

    with pytest.raises(ValueError, match=r'is defined inside a function.*or pass start_method="fork"'):
        server.append_worker(Local)
    server.append_worker(Local, start_method="fork")


def test_a_class_without_the_name_that_it_gives_itself(server: Server) -> None:
    renamed = type("Renamed", (Echo,), {"__module__": __name__})
    with pytest.raises(ValueError, match=r'Renamed cannot be found by a spawned process.*or pass start_method="fork"'):
        server.append_worker(renamed)
    server.append_worker(renamed, start_method="fork")


@pytest.mark.parametrize(
    ("routes", "error", "complaint"),
    [
        ({}, TypeError, "must be a dict of path to list of Runtime"),
        ([Runtime(Echo)], TypeError, "must be a dict of path to list of Runtime"),
        ({"/a": []}, ValueError, "'/a' must have at least one Runtime"),
        ({"/a": [Echo]}, TypeError, "'/a' must have a list of Runtime"),
        ({"/a": Runtime(Echo)}, TypeError, "'/a' must have a list of Runtime"),
        ({"/metrics": [Runtime(Echo)]}, ValueError, "is reserved"),
    ],
)
def test_wrong_arguments_of_register_runtime(
    server: Server, routes: Any, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        server.register_runtime(routes)


def test_register_runtime_needs_an_empty_server(server: Server) -> None:
    server.append_worker(Echo)
    with pytest.raises(RuntimeError, match="needs an empty server"):
        server.register_runtime({"/a": [Runtime(Echo)]})


def test_run_needs_a_worker(server: Server) -> None:
    with pytest.raises(ValueError, match="no worker registered: call append_worker or register_runtime"):
        server.run()


def test_wrong_daemons(server: Server) -> None:
    with pytest.raises(TypeError, match=r"must be a subprocess\.Popen or multiprocessing\.Process"):
        server.register_daemon("d", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have been started"):
        server.register_daemon("d", multiprocessing.Process())


@pytest.fixture
def ended() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        yield process


def test_a_daemon_that_has_ended(server: Server, ended: subprocess.Popen[bytes]) -> None:
    server.append_worker(Echo)
    server.register_daemon("d", ended)
    with pytest.raises(RuntimeError, match="daemon 'd' has ended already"):
        server.run()


# ---- the plan ------------------------------------------------------------------------------------


def planned(register: Callable[[Server], None], server: Server) -> Plan:
    register(server)
    return make_plan(server._routes)


def test_stages_follow_their_order_of_registration(server: Server) -> None:
    def register(server: Server) -> None:
        server.append_worker(Echo, num=2)
        server.append_worker(Picture, num=3, max_batch_size=8)
        server.append_worker(Echo, route=["/b", "/c"])

    plan = planned(register, server)
    assert [stage.name for stage in plan.stages] == ["Echo_1", "Picture_2", "Echo_3"]
    assert [list(stage.slots) for stage in plan.stages] == [[1, 2], [3, 4, 5], [6]]
    assert plan.routes == {"/inference": (1, 2), "/b": (3,), "/c": (3,)}


def test_spare_slots_follow_those_of_their_stage(server: Server) -> None:
    server.append_worker(Echo, num=2)
    server.append_worker(Picture, max_batch_size=32)
    plan = make_plan(server._routes, spares=1)
    assert [(list(stage.slots), list(stage.all_slots)) for stage in plan.stages] == [([1, 2], [1, 2, 3]), ([4], [4, 5])]
    slots = [(config.first_slot, config.slots) for config in plan.stage_configs(Options())]
    assert slots == [(0, 1), (1, 3), (4, 2)]
    assert plan.ring_capacities()[1:] == [(64, 256)] * 3 + [(128, 512)] * 2


def test_a_route_may_be_continued_later(server: Server) -> None:
    def register(server: Server) -> None:
        server.append_worker(Echo, route="/a")
        server.append_worker(Picture, route="/b")
        server.append_worker(Echo, route="/a")

    plan = planned(register, server)
    assert [stage.name for stage in plan.stages] == ["Echo_1", "Picture_2", "Echo_3"]
    assert plan.routes == {"/a": (1, 3), "/b": (2,)}


def test_a_shared_runtime_is_one_stage(server: Server) -> None:
    shared, last = Runtime(Echo, num=2), Runtime(Picture)
    plan = planned(lambda server: server.register_runtime({"/a": [shared, last], "/b": [last, shared]}), server)
    assert plan.routes == {"/a": (1, 2), "/b": (2, 1)}
    assert [list(stage.slots) for stage in plan.stages] == [[1, 2], [3]]


def test_content_types(server: Server) -> None:
    def register(server: Server) -> None:
        server.append_worker(Echo, route="/a")
        server.append_worker(Picture, route="/b")
        server.append_worker(Echo, route="/c")

    plan = planned(register, server)
    assert plan.content_types[:3] == (TEXT, METRICS, "application/json")
    assert len(set(plan.content_types)) == len(plan.content_types)
    assert [plan.content_types[stage.content_type] for stage in plan.stages] == [
        "application/json",
        "image/png",
        "application/json",
    ]


def test_a_content_type_must_be_text(server: Server) -> None:
    server.append_worker(NoMimeType)
    with pytest.raises(TypeError, match=r"NoMimeType\.resp_mime_type must be a string"):
        make_plan(server._routes)


def test_capacities_are_powers_of_two_with_room_for_batches(server: Server) -> None:
    plan = planned(lambda server: server.append_worker(Echo, num=2, max_batch_size=100), server)
    capacities = plan.ring_capacities()
    assert len(capacities) == 3
    assert all(capacity.bit_count() == 1 for pair in capacities for capacity in pair)
    assert capacities[1][0] >= 200
    assert plan.max_tasks(1024) >= 1024 + 2 * 100


def test_settings_of_stages(server: Server) -> None:
    def register(server: Server) -> None:
        server.append_worker(Echo, max_batch_size=4, max_wait_time=7, timeout=1.5, retry=1)
        server.append_worker(Echo, max_batch_size=4)
        server.append_worker(Echo)

    master, *stages = planned(register, server).stage_configs(Options(wait=20, timeout=500))
    assert (master.first_slot, master.slots, master.timeout_ns) == (0, 1, 0)
    assert [stage.max_wait_ns for stage in stages] == [7_000_000, 20_000_000, 0]
    assert [stage.retry for stage in stages] == [1, 0, 0]
    assert [stage.timeout_ns for stage in stages] == [1_500_000_000, 500_000_000, 500_000_000]


def test_costs_of_a_stage_before_that_tells_none(server: Server) -> None:
    server.append_worker(Echo)
    with pytest.raises(ValueError, match="define `def cost.self, result. -> int` in Echo"):
        server.append_worker(Picture, cost="previous")
    server.append_worker(Picture)  # nothing of the refused one is left


def test_costs_are_told_where_they_are_asked_for() -> None:
    counting, asked = Runtime(Counting), Runtime(Counting)
    plan = make_plan({"/a": [counting, Runtime(Echo)], "/b": [asked, Runtime(Echo, cost="previous", pad=True)]})
    assert [stage.tells_costs for stage in plan.stages] == [False, True, False, False]
    assert [(config.cost, config.padded) for config in plan.stage_configs(Options())[3:]] == [
        ("count", False),
        ("previous", True),
    ]


@pytest.mark.parametrize(
    ("arguments", "wait", "expected"),
    [
        ({}, 0, (False, 0)),
        ({"max_batch_size": 8}, 0, (True, 0)),
        ({"max_batch_size": 8}, 5, (False, 5)),
        ({"max_batch_size": 8, "max_wait_time": 3}, 5, (False, 3)),
        ({"max_batch_size": 8, "max_wait_time": 3, "batching": "auto"}, 0, (True, 3)),
        ({"max_batch_size": 8, "batching": "static"}, 0, (False, 10)),
        ({"max_batch_size": 8, "batching": "auto"}, 5, (True, 5)),
    ],
)
def test_who_gives_no_wait_gets_automatic_batching(
    arguments: dict[str, Any], wait: int, expected: tuple[bool, int]
) -> None:
    assert batching(Runtime(Echo, **arguments), Options(wait=wait)) == expected


def test_routes_for_core(server: Server) -> None:
    routes = planned(lambda server: server.append_worker(Echo, route=["/x", "/y"]), server).route_configs()
    assert [(route.method, route.path, route.stages) for route in routes] == [
        ("POST", "/x", [1]),
        ("POST", "/y", [1]),
        ("GET", "/metrics", [0]),
        ("GET", "/openapi", [0]),
    ]


def test_a_content_type_that_no_head_has_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LongMimeType\.resp_mime_type must have 256 characters or less, but has 257"):
        make_plan({"/inference": [Runtime(LongMimeType)]})
