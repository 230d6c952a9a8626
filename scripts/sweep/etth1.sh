#!/usr/bin/env bash
# The sweeps of results/sweep. Usage: etth1.sh ROOT_PATH [PART ...], PART of: original test reference96 reference720
# point (default: all). It needs the checkpoints of scripts/forecast/etth1_targets.sh and scripts/distill/etth1_draft.sh,
# and for "point" the heads of scripts/distill/compare_drafts.sh.
source "$(dirname "$0")/../setup.sh"
ROOT=${1:?give the folder of the data files}
shift
PARTS=${*:-original test reference96 reference720 point}
sweep() { # name, then options; goes on where it was stopped
    local folder=results/sweep/$1
    shift
    python optimize_speculative.py --data ETTh1 --root_path "$ROOT" --threads 2 --output "$folder" \
        --checkpoint checkpoints/ETTh1_timer_xl_causal_joint_2021/checkpoint.pth "$@"
    python plot_optimization_results.py --results "$folder/optimization_results.json"
    python plot_key_insights.py --results "$folder/optimization_results.json" | tee "$folder/findings.txt"
}
HALF="--spec_draft_ckpt checkpoints/ETTh1_draft_rollout/checkpoint.pth"
for part in $PARTS; do
    case $part in
    original) # the first attempt's 192 configurations, where there is something to speculate about
        sweep original $HALF
        ;;
    test) # its lossless configurations on the test part: how far predictions from validation carry
        sweep test $HALF --biases 1 --mse_tols 0 --split test
        ;;
    reference96) # what the first attempt ran: one patch, and the public scheme
        sweep reference96 $HALF --decoder reference --test_pred_len 96
        ;;
    reference720) # fewer windows: it is slow
        sweep reference720 $HALF --decoder reference --max_windows 32
        ;;
    point) # where it pays: point forecasts of single windows
        sweep point $HALF --preset point --batch_size 1 --objective "max speedup s.t. mse<=1.01"
        sweep point_heads --spec_draft_model multi_patch --spec_draft_ckpt checkpoints/ETTh1_multi_patch/checkpoint.pth \
            --preset point --batch_size 1 --objective "max speedup s.t. mse<=1.01"
        ;;
    *)
        echo "error: no part $part" >&2
        exit 2
        ;;
    esac
done
