#!/usr/bin/env python3
"""Writes the rules of deploy/prometheus with two seconds for each minute, for tests with a real Prometheus.

    deploy/test/hasten.py DIRECTORY

Scrape and evaluate every second then. Nothing but the times differs: ranges, `for`, `offset`, thresholds in seconds, which are written as
`5 * 60` for the sake of this, and the periods of canaries. Two exceptions: of `for`, an hour is two seconds as well, because patience is
all that it stands for; and no `for` is shorter than six seconds, because a machine that stalls for a moment is not what is looked for.
"""

import re
import sys
from pathlib import Path

RULES = Path(__file__).resolve().parents[1] / "prometheus/rules"
SECONDS = {"m": 2, "h": 120, "d": 2880}
OF_FOR = {"m": 2, "h": 2}
FOR_MIN = 6


def hasten(text):
    lines = []
    for line in text.splitlines():
        # Comments and what people read stay as they are.
        if not re.match(r"\s*(#|summary:|description:|runbook_url:)", line):
            line = re.sub(r"\[(\d+)([mhd])\]", lambda found: f"[{int(found[1]) * SECONDS[found[2]]}s]", line)
            line = re.sub(r"\boffset (\d+)([mhd])\b", lambda found: f"offset {int(found[1]) * SECONDS[found[2]]}s", line)
            line = re.sub(r"\bfor: (\d+)([mh])\b", lambda found: f"for: {max(int(found[1]) * OF_FOR[found[2]], FOR_MIN)}s", line)
            line = re.sub(r" \* 60\b", " * 2", line)
            line = re.sub(r"\binterven_alerts_canary_period_seconds\b", r"\g<0> / 30", line)
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
