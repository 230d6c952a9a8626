#!/usr/bin/env bash
# What makes a target better, on validation: Auckland's pedestrians and ETTh1 with and without rollouts, a seasonal profile
# and a robust loss, each of the same size and number of steps. About half an hour of one core.
# Usage: recipes.sh ROOT_PATH (of ETTh1)
source "$(dirname "$0")/../setup.sh"
ROOT=$1
PLAIN=(--profile none --train_rollout 1 --train_loss mse --seq_len 672)
compare() { # DATA HORIZON WINDOWS (in a batch: about 70 rows of one variable)
    recipe() { # NAME OPTIONS
        python run.py --is_training 1 --data "$DATA" --root_path "$ROOT" --setting "recipe_${DATA}_$1" \
            --channels independent --input_token_len 24 --e_layers 2 --d_model 256 --n_heads 8 --d_ff 1024 --amp bf16 \
            --threads 1 --scaling context --rollout_share 0.5 --batch_size "$WINDOWS" --epoch_windows $((150 * WINDOWS)) \
            --train_epochs 2 --learning_rate 1e-3 --warmup 0.05 --clip_norm 1 "${PLAIN[@]}" "${@:2}"
        python run.py --data "$DATA" --root_path "$ROOT" --checkpoint "checkpoints/recipe_${DATA}_$1/checkpoint.pth" \
            --split val --test_pred_len "$HORIZON" --max_windows 100 --threads 1 --setting "recipe_${DATA}_$1"
    }
    DATA=$1 HORIZON=$2 WINDOWS=$3
    recipe plain
    recipe rollout --train_rollout 14
    recipe profile --train_rollout 14 --profile found
    recipe huber --train_rollout 14 --profile found --train_loss huber
}
compare AucklandPedestrians 168 4
compare ETTh1 336 10
