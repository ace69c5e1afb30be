"""A decoder of text in a running batch: `POST /inference` with {"prompt": "Once", "tokens": 10}."""

from typing import Any

import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from mosec_cy import Server, StepWorker, ValidationError

LONGEST_PROMPT = 100  # bytes, which are the model's tokens
MOST_TOKENS = 400
MAX_BATCH_SIZE = 16

Past = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each layer: heads, positions, features


class Text:
    """One that is being written."""

    def __init__(self, past: Past, first: int, tokens: int) -> None:
        self.past = past  # when it is not in the batch's cache
        self.length = past[0][0].shape[1]  # of what stands before the last token
        self.written = [first]
        self.tokens = tokens

    @property
    def is_done(self) -> bool:
        return len(self.written) == self.tokens


class Decoder(StepWorker):
    example = {"prompt": "Once", "tokens": 3}

    def __init__(self) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        config = GPT2Config(
            vocab_size=256,
            n_positions=512,
            n_embd=64,
            n_layer=2,
            n_head=2,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.model = GPT2LMHeadModel(config).double().eval()
        self.inside: list[Text] = []  # whose keys and values are in the cache, in this order
        self.cache = DynamicCache()

    def start(self, item: Any) -> Text:
        prompt = item.get("prompt") if isinstance(item, dict) else None
        tokens = item.get("tokens", 20) if isinstance(item, dict) else None
        if not isinstance(prompt, str) or not isinstance(tokens, int) or not 1 < tokens <= MOST_TOKENS:
            raise ValidationError(f'send {{"prompt": "Once", "tokens": 20}}, with 2 to {MOST_TOKENS} tokens')
        if not 0 < len(prompt.encode()) <= LONGEST_PROMPT:
            raise ValidationError(f"a prompt has 1 to {LONGEST_PROMPT} bytes")
        cache = DynamicCache()
        out = self.model(torch.tensor([list(prompt.encode())]), cache, use_cache=True)
        past = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        return Text(past, int(out.logits[0, -1].argmax()), tokens)

    def step(self, states: list[Text]) -> list[tuple[bool, str | None]]:
        """One more token for each, in one forward pass."""
        if states != self.inside:
            self.gather(states)
        longest = self.cache.get_seq_length()
        out = self.model(
            torch.tensor([[text.written[-1]] for text in states]),
            self.cache,
            attention_mask=torch.tensor([[0] * (longest - text.length) + [1] * (text.length + 1) for text in states]),
            position_ids=torch.tensor([[text.length] for text in states]),
            use_cache=True,
        )
        for text, token in zip(states, out.logits[:, -1].argmax(1).tolist(), strict=True):
            text.written.append(token)
            text.length += 1
        return [(text.is_done, bytes(text.written).decode("latin-1") if text.is_done else None) for text in states]

    def gather(self, states: list[Text]) -> None:
        """Make the cache that of these texts: some have left, or joined. What is shorter is filled up at its begin."""
        for row, text in enumerate(self.inside):
            end = slice(-text.length, None)
            text.past = [(layer.keys[row, :, end], layer.values[row, :, end]) for layer in self.cache.layers]
        longest = max(text.length for text in states)
        pad = torch.nn.functional.pad

        def together(layer: int, part: int) -> torch.Tensor:
            return torch.stack([pad(text.past[layer][part], (0, 0, longest - text.length, 0)) for text in states])

        self.cache = DynamicCache([(together(layer, 0), together(layer, 1)) for layer in range(len(states[0].past))])
        self.inside = list(states)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decoder, max_batch_size=MAX_BATCH_SIZE)
    server.run()
