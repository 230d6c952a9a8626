#!/usr/bin/env bash
# Forecasts ETTh1 30 days past its end: means, then quantiles of 50 paths. Usage: etth1.sh ROOT_PATH
# It takes the newest target and draft of ETTh1 in checkpoints/: ../speculative/etth1.sh trains them.
source "$(dirname "$0")/../setup.sh"
python run.py --task_name predict --data ETTh1 --root_path "$1" --test_pred_len 720 --use_speculative --spec_k 7
python run.py --task_name predict --data ETTh1 --root_path "$1" --test_pred_len 720 --num_samples 50
