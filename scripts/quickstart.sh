#!/usr/bin/env bash
# From nothing to a speculative forecast of real pedestrian counts, in minutes and without a GPU.
source "$(dirname "$0")/setup.sh"
DATA=(--data AucklandPedestrians)
MODEL=(--model timer_xl --channels independent --input_token_len 24 --seq_len 672
    --e_layers 2 --d_model 256 --n_heads 8 --d_ff 1024)
TRAINING=(--train_epochs 1 --batch_size 8 --learning_rate 1e-3 --max_minutes 3)
TEST=(--test_pred_len 168 --batch_size 1 --max_windows 60) # a week ahead, from windows all over the test part
TARGET=checkpoints/quickstart_target/checkpoint.pth
DRAFT=checkpoints/quickstart_draft/checkpoint.pth

# run again, the target learns for as long again, and the draft's heads are fitted anew
python run.py --is_training 1 "${DATA[@]}" "${MODEL[@]}" "${TRAINING[@]}" --setting quickstart_target
python run.py --is_training 1 "${DATA[@]}" --model multi_patch --distill --fit ridge --distill_target_ckpt $TARGET \
    --block_patches 6 --train_rollout 7 --setting quickstart_draft --overwrite

decode() { # NAME OPTIONS
    python run.py --use_speculative "${DATA[@]}" --checkpoint $TARGET "${TEST[@]}" --setting "$@"
}
decode quickstart_self --spec_draft_model self --spec_mode point --baselines target_cached
decode quickstart_heads --spec_draft_ckpt $DRAFT --spec_mode point
decode quickstart_paths --spec_draft_ckpt $DRAFT --spec_mode coupled --spec_sigma calibrated --num_samples 8 \
    --baselines target_cached
decode quickstart_plan --spec_draft_ckpt $DRAFT --spec_mode point --spec_adaptive stored --baselines target_cached
echo
python scripts/quickstart/table.py results/quickstart_{self,heads,paths,plan}/metrics.json
echo "picture: results/quickstart_paths/forecast.png"
