"""Trains the small Mixture-of-Experts language model that the shipped routing trace was recorded from.

    python workloads/routing/tiny_moe/train.py --out FOLDER          # about 20 minutes on two CPU cores
    python workloads/routing/tiny_moe/record.py FOLDER               # writes workloads/routing/tiny-moe.parquet

It writes FOLDER/model.pt, FOLDER/tokenizer.json and FOLDER/training.json. Needs the extra `torch` and
`pip install tokenizers django networkx sympy`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from corpus import Document, documents
from model import Shape, TinyMoE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

BATCH = 16
BIAS_STEP = 0.004
PEAK_RATE = 4e-3


def learn_tokenizer(texts: list[Document], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of the training documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=["<s>"])
    tokenizer.train_from_iterator((d.text for d in texts), trainer)
    return tokenizer


def windows(tokenizer: Tokenizer, texts: list[Document], length: int) -> Tensor:
    """All documents end to end -> ids[windows, length + 1]."""
    stream = [i for encoding in tokenizer.encode_batch([d.text for d in texts]) for i in (0, *encoding.ids)]
    count = (len(stream) - 1) // length
    return torch.tensor(stream[: count * length + 1]).unfold(0, length + 1, length).contiguous()


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up over 40 steps, then a cosine to a twentieth."""
    done = max(step - 40, 0) / max(steps - 40, 1)
    return PEAK_RATE * min((step + 1) / 40, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def bias_step(step: int, steps: int) -> float:
    """Constant, and small in the last tenth so that the biases settle."""
    return BIAS_STEP if step < 0.9 * steps else BIAS_STEP / 8


def train(model: TinyMoE, data: Tensor, steps: int) -> None:
    """AdamW on shuffled windows, one pass after the other."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    order = torch.cat([torch.randperm(len(data)) for _ in range(steps * BATCH // len(data) + 1)])
    began = time.monotonic()
    for step in range(steps):
        ids = data[order[step * BATCH : (step + 1) * BATCH]]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loads = torch.stack([gate.load / gate.load.mean() for gate in model.gates])
        for gate in model.gates:
            gate.balance(bias_step(step, steps))
        if step % 20 == 0:
            violation = loads.max(1).values.mean() - 1
            print(f"{step:5d} loss {loss:.3f} MaxVio {violation:.2f} {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=700)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    shape = Shape()
    texts = [document for document in documents() if not document.held_out]
    tokenizer = learn_tokenizer(texts, shape.vocabulary)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    data = windows(tokenizer, texts, shape.context)
    print(f"{len(texts)} documents, {data.numel()} tokens", flush=True)
    model = TinyMoE(shape)
    train(model, data, arguments.steps)
    torch.save(model.state_dict(), arguments.out / "model.pt")
    facts = {"steps": arguments.steps, "tokens": arguments.steps * BATCH * shape.context, "corpus_tokens": data.numel()}
    (arguments.out / "training.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
