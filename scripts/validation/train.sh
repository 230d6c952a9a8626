#!/usr/bin/env bash
# Targets of the five data sets together, one of each seed, and their drafts. Usage: train.sh ROOT_PATH [SEED ...]
# About 32 minutes of one core for a target, 9 for a draft, half a minute for the heads of a data set; stopped, the same
# command goes on.
[ -d "${1:-}" ] || { echo "usage: train.sh ROOT_PATH [SEED ...], the folder of the data files" >&2; exit 2; }
source "$(dirname "$0")/../setup.sh"
ROOT=$1
shift
DATA=(AucklandPedestrians ETTh1 ETTh2 exchange_rate NYCWeather)
PRESENT=$(python -c 'import sys; from scripts.validation.cases import present; print(*present(sys.argv[1]))' "$ROOT")
pretrain() {
    python run.py --task_name pretrain --root_path "$ROOT" --data_path "$(IFS=,; echo "${DATA[*]}")" \
        --data_weights 2,1,1,1,1 --train_rollout 14 --batch_size 64 --amp bf16 --clip_norm 1 --warmup 0.05 --threads 1 "$@"
}
for seed in ${@:-2021 2022 2023}; do
    target=checkpoints/five_target_$seed/checkpoint.pth
    pretrain --setting five_target_$seed --seed $seed --input_token_len 24 --seq_len 672 --profile found \
        --e_layers 8 --d_model 256 --n_heads 8 --d_ff 1024 --dropout 0 --rollout_share 0.5 --train_loss huber \
        --epoch_windows 40960 --train_epochs 2 --learning_rate 8e-4
    pretrain --setting five_draft_$seed --seed $seed --distill --distill_target_ckpt $target --model timer_xl_draft \
        --draft_scale_e_layers 0.125 --draft_scale_d_model 0.25 --draft_scale_n_heads 0.25 --draft_scale_d_ff 0.25 \
        --epoch_windows 24576 --train_epochs 2
    for data in $PRESENT; do # the larger ones, too, where their files are
        python run.py --is_training 1 --root_path "$ROOT" --data $data --setting five_heads_${data}_$seed --seed $seed \
            --distill --distill_target_ckpt $target --model multi_patch --fit ridge --channels independent \
            --train_rollout 8 --threads 1
    done
done
