"""The tables and plots of the GPU benchmarks, from a file that `./dev bench gpu --peers` wrote."""

from __future__ import annotations

import json
import pathlib
import statistics
from typing import Any

from tools.docs import bars

PEERS = {"torch_flash": "PyTorch FlashAttention-2", "torch_cudnn": "PyTorch cuDNN",
         "torch_efficient": "PyTorch memory-efficient", "torch_math": "PyTorch math",
         "fa3": "FlashAttention-3", "fa4": "FlashAttention-4"}
COLOURS = {"libattn": "#1f5fbf", "torch_flash": "#d9822b", "torch_cudnn": "#4c9a4c",
           "torch_efficient": "#b23a48", "fa3": "#7d5ba6", "fa4": "#8c6d46"}


def runs() -> list[tuple[str, pathlib.Path]]:
    """(date, file) of all runs, the newest last."""
    return sorted((json.loads(path.read_text())["date"], path)
                  for path in bars.RESULTS.glob("gpu-*.json"))


def latest() -> pathlib.Path | None:
    """The newest full run."""
    found = runs()
    return found[-1][1] if found else None


def with_other_peers(record: dict[str, Any]) -> list[str]:
    """The grid of the newest run that had a peer of FlashAttention's authors, if this has none."""
    if {"fa3", "fa4"} & set(record["peers"]):
        return []
    for _, path in reversed(runs()):
        other = json.loads(path.read_text())
        if {"fa3", "fa4"} & set(other["peers"]):
            said = ", ".join(f"{name} {version}" for name, version in other["peers"].items())
            aims = [row for row in of_suite(other, "fa3-grid") if "ratio" in row]
            mean = statistics.geometric_mean([row["ratio"] for row in aims])
            return ["", f"An earlier run, libattn at {other['commit']}, beside {said}: the best "
                    f"peer's time is {mean:.2f}× ours in the geometric mean.", "",
                    *grid_table(other)]
    return []


def of_suite(record: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    return [row for row in record["rows"] if row["suite"] == suite]


def missed(row: dict[str, Any]) -> str:
    """Of the bar, and of the goal."""
    return ("" if row.get("ok", True) else " **missed**") + (
        "" if row.get("goal_ok", True) else " *behind*")


def grid_table(record: dict[str, Any]) -> list[str]:
    """TFLOP/s of ours, and beside it how many times the peers' that is."""
    rows = {(row["shape"]["head_dim"], row["shape"]["causal"], row["shape"]["seqlen_q"]): row
            for row in of_suite(record, "fa3-grid") if "shape" in row}
    lengths = sorted({key[2] for key in rows})
    peers = [name for name in ("torch_flash", "torch_cudnn", "fa3", "fa4")
             if any(name in row.get("peers_us", {}) for row in rows.values())]
    lines = ["| bf16 forward, 16k tokens | " + " | ".join(map(str, lengths)) + " |",
             "|---|" + "---|" * len(lengths)]
    for head_dim, causal in sorted({key[:2] for key in rows}):
        cells = []
        for length in lengths:
            row = rows.get((head_dim, causal, length))
            if row is None or "tflops" not in row:
                cells.append("not measured" + (missed(row) if row else ""))
                continue
            ratios = " ".join(f"{row['peers_us'][name] / row['us']:.2f}×" if name in row["peers_us"]
                              else "–" for name in peers)
            cells.append(f"{row['tflops']:.0f} ({ratios}){missed(row)}")
        lines.append(f"| D {head_dim}, {'causal' if causal else 'full'} | " + " | ".join(cells)
                     + " |")
    goal = any("goal" in row for row in rows.values())
    return [*lines, "", f"In parentheses, over our time, the times of "
            f"{', '.join(PEERS[name] for name in peers)}. The bar is 1.00× PyTorch's "
            "FlashAttention-2" + ("; what is *behind* the best of them misses the goal." if goal
                                  else ".")]


def shape_text(shape: dict[str, Any]) -> str:
    heads = str(shape["q_heads"])
    if shape["kv_heads"] != shape["q_heads"]:
        heads += f" on {shape['kv_heads']}"
    length = str(shape["seqlen_q"])
    if shape["seqlen_k"] != shape["seqlen_q"]:
        length += f" on {shape['seqlen_k']}"
    dims = str(shape["head_dim"])
    if shape.get("head_dim_v"):
        dims += f"/{shape['head_dim_v']}"
    return (f"({shape['batch']}, {heads}, {length}, {dims})"
            + (" causal" if shape["causal"] else "")
            + (f", window {shape['window_left'] + 1}" if "window_left" in shape else ""))


def other_table(record: dict[str, Any]) -> list[str]:
    lines = ["| | libattn | peers | bar |", "|---|---|---|---|"]
    for row in record["rows"]:
        if row["suite"] in ("fa3-grid", "accuracy") or "shape" not in row:
            continue
        name = row["id"].replace("/", " ", 1).split("/")[0]
        if row["suite"] in ("fp32", "split"):
            name = f"{name.split(' ')[0]}{' TF32 allowed' if '/tf32/' in row['id'] else ''} " \
                   f"{shape_text(row['shape'])}"
        elif row["suite"] in ("shapes", "small"):
            name = f"{'' if row['dtype'] == 'bf16' else row['dtype'] + ' '}" \
                   f"{shape_text(row['shape'])}"
        elif row["suite"] == "ragged":
            name = f"64 sequences of 16..8192, {row['shape']['tokens']} tokens, causal"
        elif row["suite"] == "paged":
            name = f"pages of {row['id'].split('/')[1]}, {shape_text(row['shape'])}"
        elif row["suite"] == "options":
            name = f"{row['id'].split('/')[2]} {shape_text(row['shape'])}"
        if "us" not in row:
            lines.append(f"| {name} | {row.get('error_text', 'not measured')} | |{missed(row)} |")
            continue
        rate = f", {row['tflops']:.0f} TFLOP/s" if "tflops" in row else \
            f", {row['tbs']:.2f} TB/s" if "tbs" in row else ""
        peers = ", ".join(f"{PEERS.get(peer, peer).removeprefix('PyTorch ')} "
                          f"{us:.0f} µs ({us / row['us']:.2f}×)"
                          for peer, us in row.get("peers_us", {}).items())
        bar = ""
        if row.get("bar_of"):
            bar = f"≥ {row['bar']:g}× {PEERS.get(row['bar_of'], row['bar_of'])}"
            if "dense_tflops" in row:
                bar += f" ({row['bar_ratio']:.2f}×)"
        elif "cost" in row:
            peers = f"plain {row['plain_us']:.0f} µs (cost {row['cost']:.2f}×)"
            if row.get("best_plain_implementation", row["implementation"]) != row["implementation"]:
                name_of = row["best_plain_implementation"].rsplit("/", 1)[1]
                peers += f"; {name_of} plain {row['best_plain_us']:.0f} µs"
            bar = f"cost ≤ {row['most']:g}×" if "most" in row else ""
        elif "beyond_us" in row:
            peers = f"bare launches of the same {row['kernels']}: {row['launch_us']:.2f} µs " \
                    f"(beyond: {row['beyond_us']:.2f} µs)"
            bar = f"beyond ≤ {row['most']:g} µs"
        if "goal" in row:
            bar += f"{'; ' if bar else ''}goal ≥ {row['goal']:g}× the best peer"
        digits = 2 if row["suite"] == "host" else 0 if row["us"] >= 100 else 1
        lines.append(f"| {name} | {row['us']:.{digits}f} µs{rate} | {peers} | {bar}{missed(row)} |")
    return lines


def accuracy_table(record: dict[str, Any]) -> list[str]:
    """The errors of each kind of input over all its shapes, as ranges."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in of_suite(record, "accuracy"):
        if "errors" in row:
            groups.setdefault((row["dtype"], row["id"].split("/")[4]), []).append(row)
    if not groups:
        return []
    peers = list(dict.fromkeys(name for rows in groups.values() for row in rows
                               for name in row["peers_errors"]))

    def said(values: list[float]) -> str:
        return f"{min(values):.1e} .. {max(values):.1e}" if values else "–"

    lines = ["", "| rms error against fp64 | libattn | "
             + " | ".join(PEERS.get(name, name) for name in peers) + " | bar |",
             "|---|---|" + "---|" * (len(peers) + 1)]
    for (dtype, kind), rows in groups.items():
        cells = [said([row["errors"]["rms"] for row in rows])]
        cells += [said([row["peers_errors"][name]["rms"] for row in rows
                        if name in row["peers_errors"]]) for name in peers]
        lost = sum(not row.get("ok", True) for row in rows)
        barred = next((row for row in rows if "most" in row), None)
        bar = f"≤ {barred['most']:g}× {PEERS.get(barred['most_of'], '')}" if barred else ""
        lines.append(f"| {dtype}, {kind} inputs | {' | '.join(cells)} | {bar}"
                     + (f" {lost} of {len(rows)} **missed**" if lost else "") + " |")
    return lines


def by_suite(missed_ids: list[str]) -> str:
    """How many rows of which suites; the tables mark them."""
    suites = [row_id.split("/")[0] for row_id in missed_ids]
    said = ", ".join(f"{suites.count(name)} of {name}" for name in dict.fromkeys(suites))
    return f"; missed: {said}" if said else ""


def table(record: dict[str, Any]) -> str:
    judged = [row for row in record["rows"] if "ok" in row]
    lost = [row["id"] for row in judged if not row["ok"]]
    aims = [row for row in record["rows"] if "goal_ok" in row]
    behind = [row["id"] for row in aims if not row["goal_ok"]]
    said = ", ".join(f"{name} {version}" for name, version in record["peers"].items())
    lines = [*grid_table(record), "", "<details><summary>fp32, options, other shapes, one query "
             "against a long cache, pages, the host's cost, and errors</summary>", "",
             *other_table(record), *accuracy_table(record), "", "</details>", "",
             f"Measured on {record['device']}, driver {record['driver']}, {record['date'][:10]}, "
             f"libattn {record['library']} at {record['commit']}, beside {said}, in one process, in "
             f"turns, on random data; medians. {len(judged) - len(lost)} of {len(judged)} bars are "
             f"reached{by_suite(lost)}."
             + (f" {len(aims) - len(behind)} of {len(aims)} goals, which are about the best of the "
                f"peers in this run, are reached{by_suite(behind)}." if aims else ""), "",
             "![TFLOP/s over sequence length beside PyTorch's backends]"
             "(docs/plots/gpu-forward.svg)", *with_other_peers(record)]
    return "\n".join(lines)


def plot_data(record: dict[str, Any]) -> dict[str, Any]:
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in of_suite(record, "fa3-grid"):
        if "tflops" not in row:
            continue
        shape = row["shape"]
        panel = panels.setdefault(
            f"head dim {shape['head_dim']}, {'causal' if shape['causal'] else 'no mask'}", {})
        flops = row["tflops"] * row["us"]
        for name, us in {"libattn": row["us"], **row["peers_us"]}.items():
            panel.setdefault(name, []).append((shape["seqlen_q"], round(flops / us, 1)))
    return {"gpu-forward": {"where": f"{record['device']}, {record['date'][:10]}",
                            "panels": {name: {who: sorted(points) for who, points in panel.items()}
                                       for name, panel in panels.items()}}}


def draw_forward(plt: Any, data: dict[str, Any]) -> Any:
    dims = sorted({int(name.split()[2].rstrip(",")) for name in data["panels"]})
    figure, axes = plt.subplots(2, len(dims), figsize=(3.4 * len(dims), 5.4), sharex=True,
                                sharey=True, squeeze=False)
    for i, mask in enumerate(("no mask", "causal")):
        for j, dim in enumerate(dims):
            axis, name = axes[i][j], f"head dim {dim}, {mask}"
            for who, points in data["panels"].get(name, {}).items():
                axis.plot([s for s, _ in points], [rate for _, rate in points], marker="o",
                          markersize=3.5, label=PEERS.get(who, who), color=COLOURS.get(who),
                          linewidth=2 if who == "libattn" else 1.2)
                axis.set_xscale("log", base=2)
                axis.set_xticks([s for s, _ in points],
                                [str(s) if s < 1024 else f"{s // 1024}k" for s, _ in points])
            axis.set_title(name, fontsize=9)
            axis.grid(True, alpha=0.3)
    highest = max(rate for panel in data["panels"].values() for points in panel.values()
                  for _, rate in points)
    axes[0][0].set_ylim(0, 1.05 * highest)  # shared by all
    for axis in axes[1]:
        axis.set_xlabel("sequence length")
    for row in axes:
        row[0].set_ylabel("TFLOP/s")
    axes[0][0].legend(fontsize=7)
    figure.suptitle(f"bf16 forward, 16k tokens, hidden size 2048; {data['where']}", fontsize=9)
    return figure


DRAW = {"gpu-forward": draw_forward}


def draw(record: dict[str, Any], svg_folder: pathlib.Path, png_folder: pathlib.Path) -> list[str]:
    return bars.draw_plots({name: data for name, data in plot_data(record).items()
                            if data["panels"]}, DRAW, svg_folder, png_folder)


def stale_plots(record: dict[str, Any]) -> list[str]:
    return bars.stale(plot_data(record))
