#!/usr/bin/env python3
"""Writes the rules of deploy/prometheus with a second for each minute and a minute for each hour, for tests with a real Prometheus.

    deploy/test/hasten.py DIRECTORY

Scrape and evaluate every second then. Nothing but the times differs: ranges, `for`, `offset`, and thresholds in seconds, which are
written as `5 * 60` for the sake of this.
"""

import re
import sys
from pathlib import Path

RULES = Path(__file__).resolve().parents[1] / "prometheus/rules"
FASTER = {"d": "h", "h": "m", "m": "s"}


def hasten(text):
    lines = []
    for line in text.splitlines():
        # Comments and what people read stay as they are.
        if not re.match(r"\s*(#|summary:|description:|runbook_url:)", line):
            line = re.sub(r"\[(\d+)([dhm])\]", lambda found: f"[{found[1]}{FASTER[found[2]]}]", line)
            line = re.sub(r"\b(for:|offset) (\d+)([dhm])\b", lambda found: f"{found[1]} {found[2]}{FASTER[found[3]]}", line)
            line = re.sub(r" \* 60\b", "", line, count=1)
        lines.append(line)
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    into = Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(RULES.glob("*.yml")):
        (into / path.name).write_text(hasten(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
