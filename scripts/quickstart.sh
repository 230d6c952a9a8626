#!/usr/bin/env bash
# From nothing to a speculative forecast of real weather data, in minutes and without a GPU.
source "$(dirname "$0")/setup.sh"
TARGET=checkpoints/quickstart_target/checkpoint.pth
DRAFT=checkpoints/quickstart_draft/checkpoint.pth

python run.py --is_training 1 --model timer_xl --setting quickstart_target --train_epochs 1 --learning_rate 5e-4 \
    --seq_len 168 --input_token_len 24 --d_model 512 --n_heads 8 --d_ff 2048
python run.py --is_training 1 --model timer_xl_draft --setting quickstart_draft --train_epochs 1 --train_rollout 2 \
    --distill --distill_target_ckpt $TARGET

decode() {
    python run.py --use_speculative --checkpoint $TARGET --test_pred_len 192 --batch_size 1 --max_windows 100 "$@"
}
decode --spec_draft_model self --spec_mode point --baselines target_cached,target_sliding,target_sliding_lean \
    --setting quickstart
decode --spec_draft_ckpt $DRAFT --spec_mode point --setting quickstart_half
decode --spec_draft_ckpt $DRAFT --spec_mode point --spec_adaptive stored --setting quickstart_plan
decode --spec_draft_ckpt $DRAFT --spec_mode coupled --spec_sigma calibrated --setting quickstart_coupled
decode --spec_draft_ckpt $DRAFT --spec_mode sample --spec_sigma calibrated --setting quickstart_sample
echo
python scripts/quickstart/table.py results/quickstart{,_half,_plan,_coupled,_sample}/metrics.json
