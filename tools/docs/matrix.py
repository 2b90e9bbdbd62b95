"""The support matrix: what the planner answers for one descriptor an option.

For CUDA it is asked on the fake driver of tests/cuda, as an H100, for HIP on the interpreter of
tests/hip-sim, as an MI300X: no GPU is needed.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tools.capi import AttnError, Library

# A row: what a reader calls it; descriptor fields (flags and grads by name); passes in which it
# makes sense, if not all.
ROWS: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("Data types", [
        ("fp32", {"q_dtype": "FP32"}),
        ("fp32, TF32 allowed", {"q_dtype": "FP32", "flags": "ALLOW_TF32"}),
        ("fp16", {"q_dtype": "FP16"}),
        ("bf16", {"q_dtype": "BF16"}),
        ("bf16 in, fp32 out", {"q_dtype": "BF16", "out_dtype": "FP32"}),
        ("fp8 keys and values", {"q_dtype": "BF16", "k_dtype": "FP8_E4M3FN",
                                 "k_quant": "HEAD", "v_quant": "HEAD"}),
        ("int8 keys", {"q_dtype": "BF16", "k_dtype": "INT8", "v_dtype": "BF16",
                       "k_quant": "TOKEN_HEAD"}),
        ("int8 values", {"q_dtype": "BF16", "v_dtype": "INT8", "v_quant": "TOKEN_HEAD"}),
        ("fp8 queries", {"q_dtype": "FP8_E4M3FN", "k_dtype": "BF16", "q_quant": "TENSOR"}),
        ("fp8 output", {"q_dtype": "BF16", "out_dtype": "FP8_E4M3FN", "out_quant": "TENSOR"}),
    ]),
    ("Heads", [
        ("grouped queries (GQA)", {"num_kv_heads": 2}),
        ("one kv head (MQA)", {"num_kv_heads": 1}),
        ("values of another width", {"head_dim_qk": 192, "head_dim_v": 128}),
        ("head dim 256", {"head_dim_qk": 256}),
        ("latent KV (MLA), bf16", {"q_dtype": "BF16", "num_kv_heads": 1, "head_dim_qk": 576,
                                   "head_dim_v": 512, "flags": "LATENT_KV"}),
    ]),
    ("Layouts", [
        ("dense", {}),
        ("dense, lengths per sequence", {"flags": "SEQUSED_Q SEQUSED_K"}),
        ("ragged (varlen)", {"q_layout": "RAGGED", "kv_layout": "RAGGED"}),
        ("paged, block table", {"kv_layout": "PAGED_TABLE", "page_size": 16}),
        ("paged, CSR", {"kv_layout": "PAGED_CSR", "page_size": 16}),
        ("ragged queries, paged keys", {"q_layout": "RAGGED", "kv_layout": "PAGED_TABLE",
                                        "page_size": 16}),
    ]),
    ("Masks", [
        ("causal, bottom-right", {"flags": "CAUSAL"}),
        ("causal, top-left", {"flags": "CAUSAL", "alignment": "TOP_LEFT"}),
        ("window", {"flags": "CAUSAL WINDOW", "window_left": 128, "window_right": 0}),
        ("window with sink tokens", {"flags": "CAUSAL WINDOW", "window_left": 128,
                                     "window_right": 0, "sink_tokens": 4}),
        ("chunk", {"flags": "CAUSAL", "chunk_size": 128}),
        ("bit mask", {"flags": "MASK"}),
        ("tail (tree) mask", {"flags": "TAIL_MASK"}),
        ("segment ids", {"flags": "SEGMENT_IDS"}),
        ("block-sparse lists", {"flags": "BLOCK_SPARSE", "block_size_q": 64, "block_size_k": 64}),
    ]),
    ("Scores and weights", [
        ("bias", {"flags": "BIAS"}),
        ("ALiBi", {"flags": "ALIBI CAUSAL"}),
        ("softcap", {"softcap": 30.0}),
        ("sinks", {"flags": "SINK"}),
        ("dropout", {"flags": "DROPOUT", "dropout_p": 0.1}),
        ("SiLU instead of softmax (HSTU)", {"activation": "SILU", "silu_divisor": 512.0,
                                            "flags": "CAUSAL"}),
    ]),
    ("Results", [
        ("output gate", {"flags": "GATE"}),
        ("lse", {"flags": "RETURN_LSE", "passes": "forward"}),
        ("row max", {"flags": "RETURN_ROW_MAX", "passes": "forward"}),
        ("batch-invariant", {"determinism": "BATCH_INVARIANT"}),
        ("split in fixed pieces", {"split_policy": "FIXED", "split_size": 1024,
                                   "passes": "forward"}),
        ("gradient of bias", {"flags": "BIAS", "grads": "Q K V BIAS", "passes": "backward"}),
        ("gradient of sinks", {"flags": "SINK", "grads": "Q K V SINK", "passes": "backward"}),
        ("gradient of the gate", {"flags": "GATE", "grads": "Q K V GATE", "passes": "backward"}),
        ("gradient that reaches the lse", {"grads": "Q K V LSE_IN", "passes": "backward"}),
    ]),
]

PREFIXES = {"q_dtype": "DTYPE", "k_dtype": "DTYPE", "v_dtype": "DTYPE", "out_dtype": "DTYPE",
            "q_layout": "LAYOUT", "kv_layout": "LAYOUT", "alignment": "ALIGN",
            "activation": "ACTIVATION", "split_policy": "SPLIT", "determinism": "DETERMINISM"}

# Column: name, backend, pass, queries a sequence, type of rows that name none. A column in which
# nothing is served is left out, and said.
COLUMNS = [("CPU forward", "CPU", "forward", 512, "FP32"), ("1 query", "CPU", "forward", 1, "FP32"),
           ("backward", "CPU", "backward", 512, "FP32"),
           ("CUDA forward", "CUDA", "forward", 512, "FP32"),
           ("1 query", "CUDA", "forward", 1, "FP32"),
           ("CUDA backward", "CUDA", "backward", 512, "FP32"),
           ("HIP forward", "HIP", "forward", 512, "BF16"), ("1 query", "HIP", "forward", 1, "BF16"),
           ("HIP backward", "HIP", "backward", 512, "BF16")]


def descriptor(c: Any, fields: dict[str, Any], way: str, seqlen_q: int, dtype: str) -> Any:
    desc = c.attn_sdpa_desc(q_dtype=getattr(c, f"ATTN_DTYPE_{dtype}"), num_q_heads=8, head_dim_qk=64, max_batch=4,
                            max_seqlen_q=seqlen_q, max_seqlen_k=8192, softmax_scale=0.125)
    setattr(desc, "pass", getattr(c, f"ATTN_SDPA_{way.upper()}"))
    for name, value in fields.items():
        if name == "passes":
            continue
        if name in ("flags", "grads"):
            prefix = "ATTN_SDPA_GRAD_" if name == "grads" else "ATTN_SDPA_"
            for word in value.split():
                setattr(desc, name, getattr(desc, name) | getattr(c, prefix + word))
        elif name.endswith("_quant"):
            getattr(desc, name).granularity = getattr(c, f"ATTN_QUANT_{value}")
        elif name in PREFIXES:
            setattr(desc, name, getattr(c, f"ATTN_{PREFIXES[name]}_{value}"))
        else:
            setattr(desc, name, value)
    return desc


def answer(library: Library, context: Any, desc: Any) -> tuple[str, str]:
    """The best implementation's last name, or nothing and the rule that refuses."""
    try:
        plan = library.plan(context, desc)
    except AttnError as error:
        if error.status not in ("ATTN_ERROR_UNSUPPORTED", "ATTN_ERROR_INVALID_ARGUMENT"):
            raise
        return "", error.message.split("; ", 1)[-1]  # without the field and its value
    name = library.implementations(plan)[0].rsplit("/", 1)[1]
    library.c.attn_plan_destroy(plan)
    return name, ""


def missing(library: Library) -> list[str]:
    """The GPU backends that this build lacks."""
    info = library.build_info()
    return [name for name in ("CUDA", "HIP") if not info.get(name.lower(), "no").startswith("yes")]


def contexts(library: Library) -> dict[str, Any]:
    """One for each backend; the fake drivers are loaded first, so that they are those found."""
    made = {"CPU": library.context(1)}
    for name, driver in (("CUDA", "tests/cuda/libcuda.so.1"),
                         ("HIP", "tests/hip-sim/libamdhip64.so.6")):
        if name not in missing(library):
            ctypes.CDLL(str(library.path.parent / driver))
            made[name] = library.context(backend=name)
    return made


def markdown(library: Library) -> str:
    made = contexts(library)
    columns = [column for column in COLUMNS if column[1] in made]
    # By option (None: a heading), the answers in the order of `columns`; None: makes no sense there.
    table: list[tuple[str, list[tuple[str, str] | None] | None]] = []
    for group, rows in ROWS:
        table.append((group, None))
        for label, fields in rows:
            table.append((label, [
                None if fields.get("passes", way) != way else
                answer(library, made[backend], descriptor(library.c, fields, way, seqlen_q, dtype))
                for _, backend, way, seqlen_q, dtype in columns]))
    for context in made.values():
        library.c.attn_context_destroy(context)

    served = [any(answers and answers[i] and answers[i][0] for _, answers in table)
              for i in range(len(columns))]
    shown = [i for i, yes in enumerate(served) if yes]
    lines = ["| Option | " + " | ".join(columns[i][0] for i in shown) + " |",
             "|---|" + "---|" * len(shown)]
    notes: list[str] = []
    for label, answers in table:
        if answers is None:
            lines.append(f"| **{label}** |" + " |" * len(shown))
            continue
        cells = []
        for found in (answers[i] for i in shown):
            name, rule = found or ("", "")
            if rule and rule not in notes:
                notes.append(rule)
            cells.append(f"refused ({notes.index(rule) + 1})" if rule else name)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += [""] if notes else []
    lines += [f"({number}) {note}  " for number, note in enumerate(notes, 1)]
    lines += [f"\n{columns[i][0]}: none yet" for i, yes in enumerate(served) if not yes]
    return "\n".join(lines).rstrip()
