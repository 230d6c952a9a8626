"""Print several records as one table, and the verdict on the last: table.py RECORD.json [RECORD.json ...]"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from leapcast.models.errors import one_line
from leapcast.utils.reporting.record import table


@one_line
def main(*names: str) -> None:
    records = [json.loads(Path(name).read_text()) for name in names]
    print(table(records))
    print(f"verdict: {records[-1]['verdict']}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
