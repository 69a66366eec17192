#!/usr/bin/env python3
"""The rows of gpu_benchmark that transformers can do, on the same GPU.

PyTorch with a static cache of a window's size; a decode step is compiled, and
replayed as a CUDA graph. Weights are made up, in BF16: it has no Q4_1.

    gpu_peer.py [--device=cuda] [--layers=N]
"""

import argparse
import statistics
import time
import warnings

import torch
import transformers

WARM_UPS = 3
ROUNDS = 5
STEPS = 64
WINDOW = 1024
PREFILL = 2048


def shape(name, layers, **sizes):
    config = transformers.LlamaConfig(
        max_position_embeddings=8192, tie_word_embeddings=name == "135M", **sizes
    )
    if layers:
        config.num_hidden_layers = layers
    return config


def small(layers):
    return shape(
        "135M",
        layers,
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )


def large(layers):
    return shape(
        "7B",
        layers,
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
    )


class Peer:
    def __init__(self, config, device):
        self.config = config
        self.device = device
        torch.manual_seed(1)
        with torch.device(device):
            self.model = transformers.LlamaForCausalLM(config)
        self.model = self.model.to(torch.bfloat16).eval()

    def wait(self):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def cache(self, tokens):
        return transformers.StaticCache(config=self.config, max_cache_len=tokens)

    def ids(self, rows, tokens):
        return torch.ones((rows, tokens), dtype=torch.long, device=self.device)

    def median(self, work, prepare=lambda: None):
        """Seconds of `work`, after rounds that compile and warm up."""
        seconds = []
        for _ in range(WARM_UPS + ROUNDS):
            prepare()
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[WARM_UPS:])

    def decode(self, rows):
        """Tokens a second of `rows` sessions whose window becomes full."""
        cache = self.cache(WINDOW)
        first = self.ids(rows, 1)

        def prepare():
            cache.reset()
            self.model(
                self.ids(rows, WINDOW - STEPS),
                past_key_values=cache,
                logits_to_keep=1,
            )

        def forward(token, position):
            logits = self.model(
                token, past_key_values=cache, position_ids=position
            ).logits
            return logits[:, -1:].argmax(-1)

        if self.device.startswith("cuda"):
            forward = torch.compile(forward, mode="reduce-overhead")

        def steps():
            token = first
            for step in range(STEPS):
                position = torch.full_like(first, WINDOW - STEPS + step)
                token = forward(token.clone(), position)

        return rows * STEPS / self.median(steps, prepare)

    def prefill(self):
        """TFLOP/s of a prompt, of the layers' weights alone."""
        ids = self.ids(1, PREFILL)

        def work():
            self.model(
                ids, past_key_values=self.cache(PREFILL), logits_to_keep=1
            )

        weights = sum(p.numel() for p in self.model.model.layers.parameters())
        return 2 * weights * PREFILL / self.median(work) / 1e12


def show(metric, value, unit):
    print(f"{metric:<36} {value:10.3f} {unit}", flush=True)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=0, help="0: all")
    options = parser.parse_args()
    # Its newest releases call the cache something else; the old name still works.
    warnings.simplefilter("ignore", FutureWarning)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    peer = Peer(small(options.layers), options.device)
    show("135M shape, BF16, one session", peer.decode(1), "tokens/s")
    show("135M shape, BF16, 256 sessions", peer.decode(256), "tokens/s")
    peer = Peer(large(options.layers), options.device)
    show("7B shape, BF16, one session", peer.decode(1), "tokens/s")
    show(f"7B shape, BF16, prefill of {PREFILL}", peer.prefill(), "TFLOP/s")


if __name__ == "__main__":
    main()
