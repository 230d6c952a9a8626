#!/usr/bin/env bash
# Train the drafts that are missing and compare all of them: results/drafts. Usage: compare_drafts.sh [ROOT_PATH]
# About four hours on one core from nothing; existing checkpoints and records are kept.
source "$(dirname "$0")/../setup.sh"
ROOT=${1:-dataset}
C=checkpoints
JOINT=ETTh1_timer_xl_causal_joint_2021
ALONE=ETTh1_timer_xl_causal_independent_2021

train() {
    python run.py --is_training 1 --root_path "$ROOT" --threads 1 "$@"
}
distill() { # NAME DATA TARGET EPOCHS EPOCHS_ALONG_ROLLOUTS OPTIONS: on true windows, then along the target's rollouts
    local name=$1 data=$2 target=$3 epochs=$4 along=$5
    shift 5
    local options=(--model timer_xl_draft --data "$data" --dropout 0 --distill
        --distill_target_ckpt $C/$target/checkpoint.pth "$@")
    train "${options[@]}" --setting ${name}_windows --train_epochs $epochs --learning_rate 1e-3
    train "${options[@]}" --setting $name --train_epochs $along --learning_rate 5e-4 --train_rollout ${ALONG:-8} \
        --checkpoint $C/${name}_windows/checkpoint.pth
}
block() { # NAME MODEL DATA TARGET EPOCHS OPTIONS
    train --model $2 --data $3 --dropout 0 --distill --distill_target_ckpt $C/$4/checkpoint.pth --setting $1 \
        --train_epochs $5 --learning_rate 1e-3 --train_rollout ${ALONG:-8} "${@:6}"
}
heads() { # NAME DATA TARGET EPOCHS OPTIONS: narrow, so that drafting costs almost nothing
    block $1 multi_patch $2 $3 $4 --draft_scale_d_model 0.25 "${@:5}"
}
scale() {
    echo "--draft_scale_d_model $1 --draft_scale_n_heads $1 --draft_scale_d_ff $1 --draft_scale_e_layers $1"
}

# ETTh1: the ladder of scales, more training, pretraining, and the other drafts
train --model timer_xl --data ETTh1
for s in 0.25 0.5 0.6 0.7 0.8; do
    distill ETTh1_$s ETTh1 $JOINT 5 1 $(scale $s)
done
bash scripts/distill/etth1_draft.sh "$ROOT"
heads ETTh1_multi_patch ETTh1 $JOINT 3
block ETTh1_dlinear dlinear ETTh1 $JOINT 2

# ETTh1, each variable a row of its own; a draft distilled for acceptance; learned variances
train --model timer_xl --data ETTh1 --channels independent
distill ETTh1_independent_0.5 ETTh1 $ALONE 10 2
train --model timer_xl_draft --data ETTh1 --dropout 0 --distill --distill_target_ckpt $C/$ALONE/checkpoint.pth \
    --distill_loss acceptance --spec_sigma calibrated --train_rollout 8 --train_epochs 2 --learning_rate 5e-4 \
    --checkpoint $C/ETTh1_independent_0.5_windows/checkpoint.pth --setting ETTh1_independent_calibrated
train --model timer_xl --data ETTh1 --channels independent --stochastic_head --setting ETTh1_stochastic
distill ETTh1_stochastic_0.5 ETTh1 ETTh1_stochastic 2 1 --stochastic_head

# a target of four layers: width against depth
train --model timer_xl --data ETTh1 --e_layers 4 --d_model 256 --d_ff 1024 --setting ETTh1_deep
deep() { # NAME OPTIONS: on true windows only
    local name=$1
    shift
    train --model timer_xl_draft --data ETTh1 --dropout 0 --distill \
        --distill_target_ckpt $C/ETTh1_deep/checkpoint.pth --setting $name --train_epochs 2 --learning_rate 1e-3 "$@"
}
deep ETTh1_deep_width --draft_scale_e_layers 1
deep ETTh1_deep_depth --draft_scale_e_layers 0.25 --draft_scale_d_model 1 --draft_scale_n_heads 1 --draft_scale_d_ff 1

# other data sets
T=ETTh2_timer_xl_causal_joint_2021
train --model timer_xl --data ETTh2
distill ETTh2_0.5 ETTh2 $T 3 1
heads ETTh2_multi_patch ETTh2 $T 2
T=exchange_rate_timer_xl_causal_joint_2021 # its validation part has room for 7 patches
train --model timer_xl --data exchange_rate
ALONG=7 distill exchange_rate_0.5 exchange_rate $T 3 1
ALONG=7 heads exchange_rate_multi_patch exchange_rate $T 2 --block_patches 6
train --model timer_xl --data NYCWeather --setting NYCWeather_target --train_epochs 1 --learning_rate 5e-4 \
    --seq_len 168 --input_token_len 24 --d_model 512 --n_heads 8 --d_ff 2048
train --model timer_xl_draft --data NYCWeather --setting NYCWeather_0.5 --train_epochs 1 --learning_rate 2e-3 --dropout 0 \
    --distill --distill_target_ckpt $C/NYCWeather_target/checkpoint.pth --train_rollout 2
heads NYCWeather_multi_patch NYCWeather NYCWeather_target 1

python scripts/distill/compare_drafts.py "$ROOT"
