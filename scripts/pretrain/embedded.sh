#!/usr/bin/env bash
# The pair that comes with the package (leapcast/embedded): a target for any table and its draft, and how good it is on
# data sets that it has not seen. About 90 minutes of two cores; stopped, the same command goes on.
# Usage: embedded.sh ROOT_PATH (of ETTh1, ETTh2 and exchange_rate)
source "$(dirname "$0")/../setup.sh"
ROOT=$1
pretrain() {
    python run.py --task_name pretrain --data_path AucklandPedestrians,NYCWeather --generated 0.7 --seq_len 1032 \
        --train_rollout 14 --batch_size 64 --amp bf16 --clip_norm 1 --warmup 0.03 --ema_decay 0.998 --threads 1 "$@"
}
pretrain --setting embedded_target --profile found --input_token_len 24 --e_layers 4 --d_model 256 --n_heads 8 \
    --d_ff 1024 --dropout 0 --train_epochs 10 --patience 10 --learning_rate 1e-3 --train_loss huber --rollout_share 0.5
python scripts/export.py checkpoints/embedded_target/checkpoint.pth leapcast/embedded/target --float16
pretrain --setting embedded_draft --distill --distill_target_ckpt leapcast/embedded/target --model timer_xl_draft \
    --draft_scale_d_model 0.5 --draft_scale_n_heads 0.5 --draft_scale_d_ff 0.5 --draft_scale_e_layers 0.25 \
    --train_epochs 3 --patience 3
python scripts/export.py checkpoints/embedded_draft/checkpoint.pth leapcast/embedded/draft --float16

zero_shot() { # DATA HORIZON OPTIONS: about every 24th window, from a context of four weeks or more
    python run.py --data "$1" --root_path "$ROOT" --checkpoint embedded --test_pred_len "$2" --batch_size 16 \
        --setting "$1_$2" --results results/embedded "${@:3}"
}
for data in ETTh1 ETTh2; do
    zero_shot $data 96 --max_windows 116
    zero_shot $data 336 --max_windows 106
done
zero_shot exchange_rate 96 --max_windows 203
