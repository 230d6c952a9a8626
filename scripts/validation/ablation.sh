#!/usr/bin/env bash
# Train the small targets and drafts that the ablation needs, and measure it: results/validation/ablation.
# Usage: ablation.sh ROOT_PATH. About half an hour on a free core; what is there is kept. five_target_2021 and
# five_draft_2021 are trained before.
[ -d "${1:-}" ] || { echo "usage: ablation.sh ROOT_PATH, the folder of the data files" >&2; exit 2; }
source "$(dirname "$0")/../setup.sh"
ROOT=$1
export OMP_NUM_THREADS=1
NAME=five_draft_ablation
train() { # NAME OPTIONS
    python run.py --is_training 1 --data ETTh1 --root_path "$ROOT" --threads 1 --amp bf16 --batch_size 16 \
        --setting ${NAME}_$1 "${@:2}"
}
target() { # NAME OPTIONS: two layers
    train "$1" --seq_len 672 --input_token_len 24 --e_layers 2 --d_model 256 --n_heads 8 --d_ff 1024 --dropout 0.1 \
        --epoch_windows 3200 --train_epochs 2 --learning_rate 1e-3 "${@:2}"
}
draft() { # TARGET NAME OPTIONS: one layer of half the width, each two or three minutes
    train "$1_$2" --model timer_xl_draft --distill --distill_target_ckpt checkpoints/${NAME}_$1/checkpoint.pth "${@:3}"
}
target target --channels independent
target joint --channels joint
target window --channels independent --norm window
draft target draft --train_rollout 4 --epoch_windows 4800 --train_epochs 2
draft target windows --epoch_windows 6400 --train_epochs 2 # which takes as long
draft joint draft --train_rollout 4 --epoch_windows 4000 --train_epochs 2
draft window draft --train_rollout 4 --epoch_windows 3200 --train_epochs 1 # a window for every goal
python scripts/validation/ablation.py --root_path "$ROOT"
