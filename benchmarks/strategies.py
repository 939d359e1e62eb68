"""What each strategy reaches, and in how many minutes: the table of a sweep over `conf/strategy/`.

    finespun run -m strategy=full,llrd,gradual,lp_ft,last_n,head,lora,reinit_top hydra.sweep.dir=multirun/strategies
    python benchmarks/strategies.py multirun/strategies

Accuracy is that of the validation split: the test split is for the model that is chosen in the end.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import yaml


def line(trial: Path) -> tuple[float, str]:
    """Returns a trial's accuracy and its line of the table."""
    overrides = yaml.safe_load((trial / ".hydra" / "overrides.yaml").read_text())
    name = next(each.partition("=")[2] for each in overrides if each.startswith("strategy="))
    accuracy = json.loads((trial / "reports" / "evaluation" / "details.json").read_text())["scores"]["accuracy"]
    record = json.loads((trial / "models" / "finetuned" / "run.json").read_text())
    with (trial / "models" / "finetuned" / "history.csv").open(newline="") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    minutes = (max(times) - min(times)) / 60
    reached = [phase for phase in record["trained"] if "never reached" not in phase]
    trained = reached[-1].rpartition(": ")[2].partition(" of ")[0]
    interval = f"{accuracy['low']:.3f} to {accuracy['high']:.3f}"
    shown = f"| `{name}` | {accuracy['value']:.3f} | {interval} | {minutes:.1f} | {record['best_epoch']} | {trained} |"
    return accuracy["value"], shown


def main() -> None:
    """Prints the table of the sweep in the folder that is named, the most accurate first."""
    trials = sorted(path for path in Path(sys.argv[1]).iterdir() if (path / "models" / "finetuned" / "run.json").is_file())
    print("| strategy | val accuracy | 95 % interval | minutes | best epoch | parameters trained in the end |")
    print("|---|---|---|---|---|---|")
    for _, shown in sorted(map(line, trials), reverse=True):
        print(shown)


if __name__ == "__main__":
    main()
