"""Write a checkpoint as config.json and model.safetensors: python scripts/export.py CHECKPOINT FOLDER

``--checkpoint`` and ``--spec_draft_ckpt`` of run.py take such a folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from leapcast.exp.arguments import Parser
from leapcast.models.errors import one_line
from leapcast.utils.io import checkpoint


@one_line
def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pth of a training")
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--float16", action="store_true", help="weights of half the size, read as float32")
    args = parser.parse_args(argv)
    checkpoint.export(args.checkpoint, args.folder, torch.float16 if args.float16 else None)
    print(f"-> {args.folder}")


if __name__ == "__main__":
    sys.exit(main())
