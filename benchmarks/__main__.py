"""``python -m benchmarks [--only NAME] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._report import as_json, machine_facts, print_figures
from benchmarks.suite import BENCHMARKS


def main() -> None:
    """Run benchmarks and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), help="run only this one; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, wider intervals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    arguments = parser.parse_args()
    facts = machine_facts()
    figures = []
    for name in arguments.only or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        print(f"{name} …", flush=True)
        figures += benchmark.run(**benchmark.quick if arguments.quick else {})
    print_figures(figures, facts)
    if arguments.json is not None:
        arguments.json.write_text(as_json(figures, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
