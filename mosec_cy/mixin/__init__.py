"""Codecs to mix into workers: `class Model(MsgpackMixin, Worker)`, in either order.

`MsgpackMixin`, `TypedMsgPackMixin` and `TypedJSONMixin` are about requests and answers, `NumBinIPCMixin` and
`RedisShmIPCMixin` about what goes from one stage to the next. What they need beyond the package's own dependencies is
looked for when a worker is created.
"""

from mosec_cy.mixin.msgpack import MsgpackMixin
from mosec_cy.mixin.numbin import NumBinIPCMixin
from mosec_cy.mixin.redis import RedisShmIPCMixin
from mosec_cy.mixin.typed import TypedJSONMixin, TypedMsgPackMixin

__all__ = ["MsgpackMixin", "NumBinIPCMixin", "RedisShmIPCMixin", "TypedJSONMixin", "TypedMsgPackMixin"]
