#!/usr/bin/env bash
# The half-scale ETTh1 draft, along the target's rollouts: three minutes on a free core. Usage: etth1_draft.sh ROOT_PATH
source "$(dirname "$0")/../setup.sh"
python run.py --is_training 1 --model timer_xl_draft --data ETTh1 --root_path "$1" --threads 1 \
    --distill --distill_target_ckpt checkpoints/ETTh1_timer_xl_causal_joint_2021/checkpoint.pth --train_rollout 8 \
    --setting ETTh1_draft_rollout
