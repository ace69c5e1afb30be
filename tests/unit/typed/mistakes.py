"""What a type checker has to find."""

import mosec_cy
from mosec_cy import MosecError, Runtime, Server, Worker

mosec_cy.Serve()  # wrong
mosec_cy.errors.NoError()  # wrong


class Mistyped(Worker):
    resp_mime_type = 3  # wrong
    multi_examples = 3  # wrong

    def forward(self, data: int, more: int) -> int:  # wrong
        return self.new_buffer(data + more)  # wrong

    def serialize(self) -> bytes:  # wrong
        return b""


class Incomplete(Worker):
    pass


class Foreign:
    pass


class Status(MosecError):
    code = "418"  # wrong


Incomplete()  # wrong
server = Server()
server.append_worker(Foreign)  # wrong
server.append_worker(Mistyped())  # wrong
server.append_worker(Mistyped, num="2")  # wrong
server.append_worker(Mistyped, max_batch=2)  # wrong
server.append_worker(Mistyped, route=3)  # wrong
server.register_runtime([Runtime(Mistyped)])  # wrong
Runtime(Mistyped, env={"DEVICE": "0"})  # wrong
name: str = Mistyped().worker_id  # wrong
Mistyped().worker_id = "2"  # wrong
