#!/usr/bin/env bash
# From nothing to a speculative forecast of real weather data, in minutes and without a GPU.
source "$(dirname "$0")/setup.sh"
TARGET=checkpoints/quickstart_target/checkpoint.pth
DRAFT=checkpoints/quickstart_draft/checkpoint.pth
HEADS=checkpoints/quickstart_heads/checkpoint.pth

distill() {
    python run.py --is_training 1 --train_epochs 1 --dropout 0 --distill --distill_target_ckpt $TARGET "$@"
}
python run.py --is_training 1 --model timer_xl --setting quickstart_target --train_epochs 1 --learning_rate 5e-4 \
    --seq_len 168 --input_token_len 24 --d_model 512 --n_heads 8 --d_ff 2048
distill --model timer_xl_draft --setting quickstart_draft --learning_rate 2e-3 --train_rollout 2
distill --model multi_patch --setting quickstart_heads --learning_rate 1e-3 --train_rollout 8 --draft_scale_d_model 0.25

decode() {
    python run.py --use_speculative --checkpoint $TARGET --spec_k 7 --test_pred_len 192 --batch_size 1 \
        --max_windows 100 --baselines all "$@"
}
decode --spec_draft_ckpt $DRAFT --spec_mode sample --setting quickstart_sample
decode --spec_draft_ckpt $DRAFT --spec_mode point --setting quickstart_half
decode --spec_draft_model multi_patch --spec_draft_ckpt $HEADS --spec_mode point --spec_accept_mse_tol inf \
    --setting quickstart
echo
python scripts/quickstart/table.py results/quickstart/metrics.json results/quickstart_half/metrics.json \
    results/quickstart_sample/metrics.json
