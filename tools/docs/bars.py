"""The benchmark table and plots, from a file that `./dev bench cpu` wrote."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

from tools.capi import ROOT

RESULTS = ROOT / "tests/bench/results"
PLOTS = ROOT / "docs/plots"


def latest() -> pathlib.Path | None:
    """The newest full run."""
    runs = [(json.loads(path.read_text())["date"], path) for path in RESULTS.glob("cpu-*.json")]
    return max(runs)[1] if runs else None


def load(path: pathlib.Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    if record["schema"] != 1:
        raise SystemExit(f"{path}: schema is {record['schema']}; this tool knows 1")
    return record


# What the table says: the ids of rows begin so; {t} is the number of threads.
TABLE = [
    ("fp32 prefill, D 64, full", "prefill/fp32/d64/full/t{t}"),
    ("fp32 prefill, D 64, causal", "prefill/fp32/d64/causal/t{t}"),
    ("fp32 prefill, D 128, full", "prefill/fp32/d128/full/t{t}"),
    ("fp32 prefill, D 128, causal", "prefill/fp32/d128/causal/t{t}"),
    ("fp16 prefill, D 64, full", "prefill/fp16/d64/full/t{t}"),
    ("bf16 prefill, D 64, full", "prefill/bf16/d64/full/t{t}"),
    ("fp16 prefill, D 128, causal", "prefill/fp16/d128/causal/t{t}"),
    ("bf16 prefill, D 128, causal", "prefill/bf16/d128/causal/t{t}"),
    ("bf16 decode, dense", "decode/bf16/dense/t{t}"),
    ("bf16 decode, pages of 16", "decode/bf16/paged16/t{t}"),
    ("fp32 backward, D 64, full", "backward/fp32/d64/full/t{t}"),
    ("fp32 backward, D 64, causal", "backward/fp32/d64/causal/t{t}"),
    ("onnxruntime, geometric mean of {n} shapes", "grid/geomean/t{t}"),
    ("PyTorch's CPU attention, geometric mean of {n} shapes", "grid/torch/t{t}"),
    ("host cost of execute", "overhead/execute/t{t}"),
    ("host cost of plan creation", "overhead/plan_create/t{t}"),
]


def figure(row: dict[str, Any]) -> str:
    if "limit_us" in row:
        return f"{row['us']:.2f} µs"
    if "tflops" in row:
        rate = f", {row['tflops'] * 1e3:.0f} GFLOP/s"
    elif "tbs" in row:
        rate = f", {row['tbs'] * 1e3:.1f} GB/s"
    else:
        rate = f", smallest {row['smallest']:.2f}×"
    return f"{row['ratio']:.2f}×{rate}"


def bar_text(row: dict[str, Any]) -> str:
    if "limit_us" in row:
        return f"≤ {row['limit_us']:g} µs"
    if "bar" not in row:
        return f"no bar: {row['ratio_of']}"
    return f"≥ {row['bar']:g}× {row['ratio_of']}"


def commits(record: dict[str, Any]) -> str:
    """What was measured: --update leaves rows of older commits in a file."""
    suites: dict[str, set[str]] = {}
    for row in record["rows"]:
        suites.setdefault(row["commit"], set()).add(row["suite"])
    if len(suites) == 1:
        return next(iter(suites))
    newest = suites.get(record["commit"], set())
    others = sorted(suites.keys() - {record["commit"]})
    return f"{record['commit']} ({', '.join(sorted(newest))}) and {', '.join(others)} (the rest)"


def table(record: dict[str, Any]) -> str:
    rows = {row["id"]: row for row in [*record["totals"], *record["rows"]]}
    threads = record["threads"]
    head = [f"{t} thread{'s' if t > 1 else ''}" for t in threads]
    lines = ["| | bar | " + " | ".join(head) + " |", "|---|---|" + "---|" * len(threads)]
    for label, pattern in TABLE:
        found = [rows.get(pattern.format(t=t)) for t in threads]
        known = [row for row in found if row]
        if not known:
            continue
        cells = []
        for row in found:
            cells.append("not measured" if row is None else
                         figure(row) + ("" if row.get("ok", True) else " **missed**"))
        label = label.format(n=known[0].get("rows"))
        lines.append(f"| {label} | {bar_text(known[0])} | " + " | ".join(cells) + " |")
    judged = [row for row in rows.values() if "bar" in row]
    missed = [row["id"] for row in judged if not row["ok"]]
    said = ", ".join(f"{name} {version}" for name, version in record["peers"].items())
    lines += ["", f"Measured on {record['device']} ({record['simd']}), {record['date'][:10]}, "
              f"libattn {record['library']} at {commits(record)}, beside {said}. "
              f"{len(judged) - len(missed)} of {len(judged)} bars are reached"
              + (f"; missed: {', '.join(missed)}." if missed else ".")]
    return "\n".join(lines)


# --- plots -----------------------------------------------------------------------------------


Series = dict[str, list[tuple[int, float]]]


def series(record: dict[str, Any], threads: int, causal: bool) -> Series:
    """GFLOP/s over sequence length, for us and for each peer."""
    out: Series = {}
    for row in record["rows"]:
        shape = row["shape"]
        if row["suite"] != "seqlens" or row["threads"] != threads or shape["causal"] != causal:
            continue
        flops = row["tflops"] * row["us"]  # in units of 1e6
        sgemm = [us for name, us in row["peers_us"].items() if name.startswith("openblas")]
        times = {"libattn": row["us"], **{name: us for name, us in row["peers_us"].items()
                                          if not name.startswith("openblas")}}
        for name, us in times.items():
            out.setdefault(name, []).append((shape["seqlen_q"], flops / us * 1e3))
        if sgemm:
            out.setdefault("OpenBLAS sgemm 2048³", []).append(
                (shape["seqlen_q"], 2 * 2048**3 / min(sgemm) * 1e-3))
    return {name: sorted(points) for name, points in out.items()}


def grid_ratios(record: dict[str, Any], threads: int) -> list[tuple[str, float]]:
    prefix, suffix = "grid/", f"/t{threads}"
    return [(row["id"].removeprefix(prefix).removesuffix(suffix).replace("/", " "), row["ratio"])
            for row in record["rows"] if row["suite"] == "grid" and row["threads"] == threads]


def digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def plot_data(record: dict[str, Any]) -> dict[str, Any]:
    """For each plot, all that it shows."""
    threads = max(record["threads"])
    where = f"{record['device']} ({record['simd']}), {threads} threads, {record['date'][:10]}"
    return {
        "cpu-prefill": {"where": where, "full": series(record, threads, False),
                        "causal": series(record, threads, True)},
        "cpu-onnxruntime": {"where": where, "ratios": grid_ratios(record, threads)},
    }


COLOURS = {"libattn": "#1f5fbf", "onnxruntime": "#d9822b", "torch": "#b23a48",
           "OpenBLAS sgemm 2048³": "#777777"}


def draw_prefill(plt: Any, data: dict[str, Any]) -> Any:
    figure_, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axis, name, title in ((axes[0], "full", "no mask"), (axes[1], "causal", "causal")):
        for label, points in data[name].items():
            sgemm = label.startswith("OpenBLAS")
            axis.plot([s for s, _ in points], [rate for _, rate in points], label=label,
                      color=COLOURS.get(label), marker=None if sgemm else "o", markersize=4,
                      linestyle="--" if sgemm else "-")
        axis.set_xscale("log", base=2)
        lengths = [s for s, _ in data[name]["libattn"]]
        axis.set_xticks(lengths, [str(s) for s in lengths])
        axis.set_title(f"fp32 prefill, {title}", fontsize=10)
        axis.set_xlabel("sequence length")
        axis.grid(True, alpha=0.3)
    axes[0].set_ylabel("GFLOP/s")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    figure_.suptitle(f"batch 1, 8 heads of 64; {data['where']}", fontsize=8)
    return figure_


def draw_onnxruntime(plt: Any, data: dict[str, Any]) -> Any:
    ratios = data["ratios"]
    figure_, axis = plt.subplots(figsize=(9, 0.22 * len(ratios) + 1.2))
    axis.barh([name for name, _ in ratios], [ratio for _, ratio in ratios],
              color=COLOURS["libattn"], height=0.7)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=7)
    axis.set_xlabel("onnxruntime's time over libattn's")
    axis.set_title(data["where"], fontsize=8)
    axis.grid(True, axis="x", alpha=0.3)
    return figure_


DRAW = {"cpu-prefill": draw_prefill, "cpu-onnxruntime": draw_onnxruntime}


def draw(record: dict[str, Any], svg_folder: pathlib.Path, png_folder: pathlib.Path) -> list[str]:
    return draw_plots({name: data for name, data in plot_data(record).items()
                       if any(data.get(part) for part in ("full", "ratios"))},
                      DRAW, svg_folder, png_folder)


def draw_plots(plots: dict[str, Any], how: dict[str, Any], svg_folder: pathlib.Path,
               png_folder: pathlib.Path) -> list[str]:
    """Writes the plots; each SVG carries the digest of its data."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "attn", "svg.fonttype": "none", "font.size": 9,
                                "axes.spines.top": False, "axes.spines.right": False})
    import matplotlib.pyplot as plt

    written = []
    for name, data in plots.items():
        figure_ = how[name](plt, data)
        figure_.tight_layout()
        for folder, suffix in ((svg_folder, "svg"), (png_folder, "png")):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.{suffix}"
            metadata = {"Description": f"data sha256:{digest(data)}", "Date": None} \
                if suffix == "svg" else None
            figure_.savefig(path, metadata=metadata, dpi=140)
            written.append(str(path))
        plt.close(figure_)
    return written


def stale(plots: dict[str, Any]) -> list[str]:
    """The committed plots that do not show this data."""
    found = []
    for name, data in plots.items():
        path = PLOTS / f"{name}.svg"
        if not path.exists() or f"data sha256:{digest(data)}" not in path.read_text():
            found.append(f"{path.relative_to(ROOT)} does not show the newest results")
    return found


def stale_plots(record: dict[str, Any]) -> list[str]:
    return stale(plot_data(record))
