#!/usr/bin/env bash
# The pair that comes with the package (leapcast/embedded): a target for any table, and its draft. Some two hours of two
# cores; stopped, the same command goes on. ETTh1, ETTh2 and exchange_rate are not trained on.
source "$(dirname "$0")/../setup.sh"
DATA=(--task_name pretrain --data_path AucklandPedestrians,NYCWeather --generated 0.7 --seq_len 1008
    --train_rollout 14 --batch_size 64 --amp bf16 --clip_norm 1 --warmup 0.03 --ema_decay 0.998)

python run.py "${DATA[@]}" --setting embedded_target --profile found --input_token_len 24 \
    --d_model 256 --n_heads 8 --d_ff 1024 --e_layers 4 --dropout 0 \
    --train_epochs 10 --learning_rate 1e-3 --train_loss huber --rollout_share 0.5 --patience 10
