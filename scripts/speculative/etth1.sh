#!/usr/bin/env bash
# The ETTh1 records under results/etth1, from the checkpoints of scripts/forecast and scripts/distill.
# Usage: etth1.sh ROOT_PATH [PART ...], PART of: targets choose point tolerances sample short first paths (default: all)
# "first" and "paths" also use checkpoints of scripts/distill/compare_drafts.sh.
source "$(dirname "$0")/../setup.sh"
ROOT=$1
shift
PARTS=${*:-targets choose point tolerances sample short first paths}
CAUSAL=checkpoints/ETTh1_timer_xl_causal_joint
WINDOW=checkpoints/ETTh1_timer_xl_window_joint
forecast() {
    python run.py --data ETTh1 --root_path "$ROOT" --threads 2 --results results/etth1 --baselines all "$@"
}
decode() {
    forecast --use_speculative --checkpoint ${CAUSAL}_2021/checkpoint.pth --reference_ckpt ${WINDOW}_2021/checkpoint.pth \
        --spec_draft_ckpt checkpoints/ETTh1_draft_rollout/checkpoint.pth "$@"
}
independent() {
    forecast --use_speculative --checkpoint checkpoints/ETTh1_timer_xl_causal_independent_2021/checkpoint.pth \
        --spec_draft_ckpt checkpoints/ETTh1_independent_calibrated/checkpoint.pth "$@"
}
for part in $PARTS; do
    case $part in
    targets) # accuracy of three seeds
        for seed in 2021 2022 2023; do
            for horizon in 96 720; do # accuracy only: the times of these records are not measured with care
                forecast --setting causal_${seed}_H$horizon --checkpoint ${CAUSAL}_$seed/checkpoint.pth \
                    --test_pred_len $horizon
                forecast --setting window_${seed}_H$horizon --checkpoint ${WINDOW}_$seed/checkpoint.pth \
                    --test_pred_len $horizon --rollout sliding
            done
        done
        ;;
    choose) # K and the tolerance, on validation
        for k in 3 7; do
            for tolerance in 0.0025 0.005; do
                decode --setting val_K${k}_tol$tolerance --split val --max_windows 100 --batch_size 1 \
                    --spec_mode point --spec_k $k --spec_accept_mse_tol $tolerance
            done
        done
        ;;
    point) # the chosen K and tolerance on the whole test set, one window at a time
        decode --setting point_K7_tol0.005 --batch_size 1 --spec_mode point --spec_k 7 --spec_accept_mse_tol 0.005
        ;;
    tolerances) # what other tolerances would have given, on every third window
        for tolerance in 0.001 0.0025 0.005 0.01 inf; do
            decode --setting third_K7_tol$tolerance --max_windows 720 --spec_mode point --spec_k 7 \
                --spec_accept_mse_tol $tolerance
        done
        ;;
    sample) # lossless sampling at the original sigma, on every third window
        decode --setting sample_sigma0.5_K3 --max_windows 720 --spec_mode sample --spec_sigma 0.5 --spec_k 3
        ;;
    short) # one patch: nothing to propose
        decode --setting point_H96 --batch_size 1 --max_windows 1000 --test_pred_len 96 --spec_mode point
        ;;
    first) # two patches, K 1: the first patch and nothing else is proposed
        decode --setting sample_sigma0.5_first --max_windows 720 --test_pred_len 192 --spec_k 1
        independent --setting sample_sigma0.5_first_independent --max_windows 720 --test_pred_len 192 --spec_k 1
        ;;
    paths) # calibrated spread, 50 paths, on every tenth window
        independent --setting paths_calibrated --max_windows 216 --batch_size 8 --spec_sigma calibrated \
            --num_samples 50 --spec_k 3
        ;;
    esac
done
