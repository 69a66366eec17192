"""Tokens per second, ours and the other engine's, and the spread of rounds."""

import statistics

from targets import ROWS


def draw(values, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    from matplotlib import pyplot

    rows = [row for row in ROWS
            if row.unit == "tokens/s" and not row.key.endswith("_peer")
            and row.key in values]
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.7 * len(rows)),
                                   layout="constrained")
    for shift, suffix, label, colour in ((0.2, "", "millrace", "tab:blue"),
                                         (-0.2, "_peer", "llama.cpp", "grey")):
        _bars(axes, rows, values, shift, suffix, label, colour)
    axes.set_yticks(range(len(rows)), [row.what for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("tokens per second; median, least and most of the rounds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _bars(axes, rows, values, shift, suffix, label, colour):
    for i, row in enumerate(rows):
        found = values.get(row.key + suffix)
        if not found:
            continue
        middle = statistics.median(found)
        axes.barh(i - shift, middle, height=0.38, color=colour, label=label,
                  xerr=[[middle - min(found)], [max(found) - middle]])
        label = None
        axes.annotate(f"{middle:,.0f}", (middle, i - shift), (6, -3),
                      textcoords="offset points")
