#!/usr/bin/env bash
# From nothing to a speculative forecast of real pedestrian counts, in minutes, without a GPU and without training.
source "$(dirname "$0")/setup.sh"
DATA=(--data AucklandPedestrians --checkpoint embedded)   # the pair that comes with the package
TEST=(--test_pred_len 168 --batch_size 1 --max_windows 60) # a week ahead, from windows all over the test part

decode() { # NAME OPTIONS
    python run.py --use_speculative "${DATA[@]}" "${TEST[@]}" --setting "$@"
}
decode quickstart_self --spec_draft_model self --spec_mode point --baselines target_cached
decode quickstart_draft --spec_mode point
decode quickstart_paths --spec_mode coupled --spec_sigma calibrated --num_samples 8 --baselines target_cached
python run.py --calibrate_plan "${DATA[@]}" --test_pred_len 168
decode quickstart_plan --spec_mode point --spec_adaptive stored --baselines target_cached
echo
python scripts/quickstart/table.py results/quickstart_{self,draft,paths,plan}/metrics.json
echo "picture: results/quickstart_paths/forecast.png"
