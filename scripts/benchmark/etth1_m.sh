#!/usr/bin/env bash
# The benchmark's target M, on ETTh1 variable by variable, and the drafts of M and S. Usage: etth1_m.sh ROOT_PATH
# The target S is made by scripts/forecast/etth1_targets.sh.
source "$(dirname "$0")/../setup.sh"
train() {
    python run.py --is_training 1 --data ETTh1 --root_path "$ROOT" --threads 1 "$@"
}
distill() { # TARGET CHANNELS ...
    local target=$1 channels=$2
    shift 2
    train --channels "$channels" --distill --distill_target_ckpt "checkpoints/$target/checkpoint.pth" \
        --train_rollout 8 --spec_adaptive off "$@"
}
quarter() { # LAYERS
    echo --model timer_xl_draft --draft_scale_e_layers "$1" --draft_scale_d_model 0.25 --draft_scale_n_heads 0.25 \
        --draft_scale_d_ff 0.25
}
ROOT=$1
S=ETTh1_timer_xl_causal_joint_2021
M=ETTh1_M
train --channels independent --model timer_xl --setting $M --e_layers 8 --train_epochs 1
distill $S joint $(quarter 0.5) --setting ETTh1_S_quarter --train_epochs 4
distill $S joint --model multi_patch --fit ridge --setting ETTh1_S_heads
distill $M independent $(quarter 0.125) --setting ETTh1_M_quarter --train_epochs 2
distill $M independent $(quarter 0.125) --setting ETTh1_M_quarter_begun --train_epochs 1 --distill_loss acceptance \
    --spec_sigma calibrated --checkpoint checkpoints/ETTh1_M_quarter/checkpoint.pth
distill $M independent $(quarter 0.125) --setting ETTh1_M_quarter_paths --train_epochs 3 --distill_loss acceptance \
    --spec_sigma calibrated --learning_rate 1e-3 --max_minutes 16 --checkpoint checkpoints/ETTh1_M_quarter_begun/checkpoint.pth
distill $M independent --model multi_patch --fit ridge --setting ETTh1_M_heads
