"""The table of what was measured."""

import statistics

from percentiles import percentile

from targets import ROWS


def missed(values):
    """How many figures miss what they must reach."""
    return sum(row.judge(statistics.median(values[row.key])) == "missed"
               for row in ROWS if row.key in values)


def _target(row):
    sign = "≤" if row.at_most else "≥"
    return [f"{sign} {bound:g}" if bound is not None else ""
            for bound in (row.must, row.aim)]


def _line(row, values):
    numbers = [statistics.median(values), percentile(values, 0.1),
               percentile(values, 0.9)]
    shown = [f"{n:,.{row.digits}f}" for n in numbers]
    reached = row.judge(numbers[0])
    shown[0] = f"**{shown[0]}**"
    return " | ".join(["", row.what, *shown, row.unit, *_target(row),
                       reached, ""]).strip()


def about_text(about):
    machine, model = about["machine"], about["model"]
    yield (f"{machine['processor']}, {machine['cores']} cores "
           f"({', '.join(machine['flags'])}); {model['device']}, K/V in "
           f"{model['kv_dtype']}; model {model['sha256'][:16]}; "
           f"{about['rounds']} rounds.")
    if "peer" in about:
        yield f"Beside {about['peer']}, on the same number of threads."


def phase_table(about, values):
    """Where the time of one decode step goes, beside the time that its bytes
    take at the bandwidth of the probe."""
    model = about["model"]
    bandwidth = statistics.median(values["phase_probe"])
    bytes_read = {**model["phase_bytes"],
                  "attention": 256 * model["kv_bytes_per_token"]}
    total = [0, 0]
    yield "| phase | us | bytes read | us at the probe's bandwidth |"
    yield "|---|---|---|---|"
    for key in (k for k in values if k.startswith("phase_")
                and k != "phase_probe"):
        name = key.removeprefix("phase_")
        took, size = statistics.median(values[key]), bytes_read.get(name, 0)
        total = [total[0] + took, total[1] + size]
        yield _phase_line(name, took, size, bandwidth)
    yield _phase_line("**all**", *total, bandwidth)


def _phase_line(name, took, size, bandwidth):
    bound = f"{1e6 * size / bandwidth:,.0f}" if size else ""
    return f"| {name} | {took:,.0f} | {size:,} | {bound} |"


def text(about, values):
    """Markdown."""
    lines = [*about_text(about), "",
             "| figure | median | p10 | p90 | | must | aim | reached |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [_line(row, values[row.key]) for row in ROWS if row.key in values]
    lines += ["", "One decode step at 256 tokens, all layers together:", "",
              *phase_table(about, values)]
    return "\n".join(lines) + "\n"
