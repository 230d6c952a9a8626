#!/usr/bin/env bash
# Train the drafts of one data set and of one regime, and measure the safety net: results/validation/safety.
# Usage: safety.sh ROOT_PATH [SEED], after train.sh. About half an hour of one core.
[ -d "${1:-}" ] || { echo "usage: safety.sh ROOT_PATH [SEED], the folder of the data files" >&2; exit 2; }
source "$(dirname "$0")/../setup.sh"
ROOT=$1
SEED=${2:-2021}

distil() { # NAME ROOT FILE: 128 steps; what is trained is not trained again
    python run.py --task_name pretrain --model timer_xl_draft --root_path "$2" --data_path "$3" --threads 1 --amp bf16 \
        --distill --distill_target_ckpt "checkpoints/five_target_$SEED/checkpoint.pth" --train_rollout 14 \
        --draft_scale_e_layers 0.125 --draft_scale_d_model 0.25 --draft_scale_n_heads 0.25 --draft_scale_d_ff 0.25 \
        --batch_size 32 --epoch_windows 4096 --train_epochs 1 --seed "$SEED" --setting "five_draft_only_$1_$SEED"
}
for data in AucklandPedestrians ETTh1 ETTh2 exchange_rate NYCWeather; do
    distil $data "$ROOT" $data
done
FOLDER=$(mktemp -d)
trap 'rm -r "$FOLDER"' EXIT
python scripts/validation/shifts.py "$FOLDER"
distil early "$FOLDER" early.csv

python scripts/validation/safety.py --root_path "$ROOT" --seed "$SEED"
