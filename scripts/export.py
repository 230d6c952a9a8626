"""Write a checkpoint as config.json and model.safetensors: python scripts/export.py CHECKPOINT FOLDER

``--checkpoint`` and ``--spec_draft_ckpt`` of run.py take such a folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from utils import checkpoint
from utils.arguments import Parser
from utils.errors import UserError


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pth of a training")
    parser.add_argument("folder", type=Path, help="where to write")
    args = parser.parse_args(argv)
    try:
        checkpoint.export(args.checkpoint, args.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"-> {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
