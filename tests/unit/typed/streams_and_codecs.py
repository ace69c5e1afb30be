"""Streams, typed requests and the rest of what is imported by name."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

import mosec_cy
from mosec_cy import ParseTarget, Server, SSEWorker, ValidationError
from mosec_cy.mixin import MsgpackMixin, TypedJSONMixin, TypedMsgPackMixin


class Prompt(msgspec.Struct):
    text: str
    words: int = 10


class Tokens(TypedJSONMixin, SSEWorker):
    example = [Prompt("warm up")]

    def forward(self, data: list[Prompt]) -> None:
        for index, prompt in enumerate(data):
            for word in prompt.text.split()[: prompt.words]:
                if self.is_cancelled(index) or not self.send_stream_event(word, index=index):
                    break


class Length(TypedMsgPackMixin):
    req_mime_type = "application/x-msgpack"

    def forward(self, data: Prompt) -> int:
        if not data.text:
            raise ValidationError("empty")
        return len(data.text)

    @classmethod
    def get_forward_json_schema(cls, target: ParseTarget, ref_template: str) -> tuple[dict[str, Any], dict[str, Any]]:
        schema, components = super().get_forward_json_schema(target, ref_template)
        return {**schema, "title": target.name}, components


class Echo(MsgpackMixin):
    def forward(self, data: object) -> object:
        return data


class Streamed(SSEWorker, MsgpackMixin):
    def forward(self, data: list[str]) -> Iterator[tuple[int, str]]:
        yield from enumerate(data)


class StreamedLater(mosec_cy.SSEWorker):
    async def forward(self, data: str) -> AsyncIterator[str]:
        yield data


class Later(mosec_cy.Worker, mosec_cy.mixin.MsgpackMixin):
    async def forward(self, data: bytes) -> bytes:
        if not data:
            raise mosec_cy.errors.ClientError("empty")
        return data


if __name__ == "__main__":
    server = Server(timeout=60_000, compression=True)
    server.append_worker(Tokens, max_batch_size=4, route="/tokens")
    server.append_worker(Length, route=["/length", "/size"])
    server.append_worker(Echo, route="/echo")
    start_method: str = "fork"
    server.append_worker(Later, start_method=start_method, route="/later")
    server.append_worker(Streamed, max_batch_size=4, route="/streamed")
    server.append_worker(StreamedLater, route="/streamed-later")
    server.run()
