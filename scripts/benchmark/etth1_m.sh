#!/usr/bin/env bash
# The benchmark's target M, on ETTh1 variable by variable, and its drafts. Usage: etth1_m.sh ROOT_PATH
# S and its drafts are made by scripts/forecast/etth1_targets.sh, distill/etth1_draft.sh and distill/compare_drafts.sh.
source "$(dirname "$0")/../setup.sh"
train() {
    python run.py --is_training 1 --data ETTh1 --root_path "$ROOT" --channels independent --train_epochs 1 "$@"
}
distill() {
    train --distill --distill_target_ckpt checkpoints/ETTh1_M/checkpoint.pth --dropout 0 --learning_rate 1e-3 "$@"
}
ROOT=$1
train --model timer_xl --setting ETTh1_M --e_layers 8
distill --model timer_xl_draft --setting ETTh1_M_0.5
distill --model multi_patch --setting ETTh1_M_heads --train_rollout 8 --draft_scale_d_model 0.5
distill --model dlinear --setting ETTh1_M_dlinear --train_rollout 8
