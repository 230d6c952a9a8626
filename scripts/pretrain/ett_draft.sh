#!/usr/bin/env bash
# A half-scale draft pretrained on ETTh1 and ETTh2, variable by variable, then distilled from the ETTh1 target.
# Usage: ett_draft.sh ROOT_PATH
source "$(dirname "$0")/../setup.sh"
ROOT=$1
draft() {
    python run.py --model timer_xl_draft --root_path "$ROOT" --dropout 0 --threads 1 "$@"
}
distill() {
    draft --is_training 1 --data ETTh1 --distill \
        --distill_target_ckpt checkpoints/ETTh1_timer_xl_causal_joint_2021/checkpoint.pth "$@"
}
draft --task_name pretrain --data_path ETT-small/ETTh1.csv,ETT-small/ETTh2.csv --batch_size 64 --train_epochs 1 \
    --learning_rate 5e-4 --setting pretrained_0.5
distill --setting ETTh1_pretrained_windows --train_epochs 5 --learning_rate 1e-3 \
    --checkpoint checkpoints/pretrained_0.5/checkpoint.pth
distill --setting ETTh1_pretrained --train_epochs 1 --learning_rate 5e-4 --train_rollout 8 \
    --checkpoint checkpoints/ETTh1_pretrained_windows/checkpoint.pth
