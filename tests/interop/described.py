"""A service of several kinds of workers, whose description is read by tests."""

SOURCE = '''
    import dataclasses
    from typing import Annotated

    import msgspec

    from mosec_cy import ClientError, DecodingError, Runtime, Server, ValidationError, Worker

    class Request(msgspec.Struct):
        """What is to be added."""

        numbers: Annotated[list[Annotated[float, msgspec.Meta(ge=-1000, le=1000)]], msgspec.Meta(max_length=8)]
        label: str = ""

    class Sum(msgspec.Struct):
        total: float
        label: str

    @dataclasses.dataclass
    class Size:
        digits: int

    class Checked(Worker):
        """Requests that are decoded as what they have to be."""

        def deserialize(self, data):
            try:
                return msgspec.json.decode(data, type=Request)
            except msgspec.ValidationError as error:
                raise ValidationError(str(error)) from error
            except (msgspec.DecodeError, ValueError) as error:
                raise DecodingError(str(error)) from error

        @classmethod
        def get_forward_json_schema(cls, target, ref_template):
            types = {"INPUT": Request, "RETURN": Sum}
            (schema,), components = msgspec.json.schema_components([types[target.value]], ref_template=ref_template)
            return schema, components

    class Add(Checked):
        def forward(self, data: Request) -> Sum:
            """Adds them up."""
            return Sum(sum(data.numbers), data.label)

    class Digits(Worker):
        def forward(self, data: list[Sum]) -> list[Size]:
            return [Size(len(str(int(sum.total)))) for sum in data]

    class Echo(Worker):
        def forward(self, data):
            if data == "refuse me":
                raise ClientError("as you like")
            return data

    class Image(Worker):
        resp_mime_type = "image/png"

        def deserialize(self, data):
            return bytes(data)

        def forward(self, data: bytes) -> bytes:
            return data

        def serialize(self, data):
            return data

    if __name__ == "__main__":
        add = Runtime(Add, num=1)
        server = Server()
        server.register_runtime({
            "/v1/add": [add],
            "/v1/digits": [add, Runtime(Digits, max_batch_size=4, max_wait_time=1)],
            "/echo": [Runtime(Echo)],
            "/image": [Runtime(Image)],
        })
        server.run()
'''
