#!/usr/bin/env bash
# Continue the causal ETTh1 target along its own rollouts of 8 patches. Usage: etth1_rollout.sh ROOT_PATH
source "$(dirname "$0")/../setup.sh"
python run.py --is_training 1 --model timer_xl --data ETTh1 --root_path "$1" --threads 1 --train_rollout 8 \
    --train_epochs 1 --learning_rate 1e-5 --checkpoint checkpoints/ETTh1_timer_xl_causal_joint_2021/checkpoint.pth \
    --setting ETTh1_rollout
