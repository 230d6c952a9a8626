#!/usr/bin/env bash
# A target for Auckland's pedestrians (about 20 minutes on one core), tested a week and a month ahead beside simple rivals.
source "$(dirname "$0")/../setup.sh"
TARGET=checkpoints/auckland/checkpoint.pth
python run.py --is_training 1 --data AucklandPedestrians --setting auckland --channels independent --profile found \
    --seq_len 672 --input_token_len 24 --e_layers 2 --d_model 256 --n_heads 8 --d_ff 1024 \
    --train_rollout 14 --rollout_share 0.5 --train_loss huber --scaling context --amp bf16 --threads 1 \
    --batch_size 4 --epoch_windows 1200 --train_epochs 8 --learning_rate 1e-3 --warmup 0.05 --clip_norm 1 --ema_decay 0.995
for horizon in 168 720; do # about every 24th window
    python run.py --data AucklandPedestrians --checkpoint $TARGET --test_pred_len $horizon --max_windows 505 \
        --batch_size 16 --setting auckland_$horizon --results results/auckland
done
