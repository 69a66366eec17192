"""Memory, time and perplexity by text position."""

TRAINED_CONTEXT = 8192


def draw(result, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    from matplotlib import pyplot

    figure, (memory, speed, quality) = pyplot.subplots(
        3, 1, sharex=True, figsize=(8, 6), layout="constrained")
    _memory(memory, result.get("rows", []))
    _speed(speed, result.get("rows", []))
    _quality(quality, result.get("points", []))
    for axes in (memory, speed, quality):
        axes.set_ylim(0, 1.2 * axes.dataLim.ymax)
        axes.axvline(TRAINED_CONTEXT / 1000, color="grey", linestyle=":")
        axes.grid(alpha=0.3)
    memory.annotate("trained context", (TRAINED_CONTEXT / 1000, 0), (12, 8),
                    textcoords="offset points", color="grey")
    memory.set_title("One text: 4 sinks + a window of 1,020 tokens")
    quality.set_xlabel("text position, thousand tokens")
    figure.savefig(path, metadata={"Date": None})


def _memory(axes, rows):
    axes.plot([r["position"] / 1000 for r in rows],
              [r["resident_bytes"] / 2**20 for r in rows])
    axes.set_ylabel("server memory, MiB")


def _speed(axes, rows):
    for kind, marker in (("read", "."), ("write", "x")):
        some = [r for r in rows
                if r["kind"] == kind and r["tokens_per_second"] > 0]
        axes.plot([r["position"] / 1000 for r in some],
                  [1000 / r["tokens_per_second"] for r in some], marker,
                  markersize=4, label=kind)
    axes.set_ylabel("ms a token")
    axes.legend()


def _quality(axes, points):
    axes.plot([p["position"] / 1000 for p in points],
              [p["ratio"] for p in points], ".", markersize=4)
    axes.set_ylabel("perplexity,\nover computed anew")
