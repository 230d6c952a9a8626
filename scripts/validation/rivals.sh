#!/usr/bin/env bash
# Train the DLinear of every data set and measure all rivals: results/validation/rivals. Usage: rivals.sh [ROOT_PATH]
# About an hour of one core from nothing; what is trained and measured is kept. Measuring has an environment of its own,
# .venv-rivals, since its libraries need an older pandas than requirements.txt has.
source "$(dirname "$0")/../setup.sh"
ROOT=${1:-dataset}
RIVALS=.venv-rivals/bin
PRESENT=$(python -c 'import sys; from scripts.validation.cases import present; print(*present(sys.argv[1]))' "$ROOT")

dlinear() { # DATA SEED: on the data, not distilled
    python run.py --is_training 1 --model dlinear --data $1 --root_path "$ROOT" --seed $2 --threads 1 \
        --setting five_dlinear_$1_$2 --channels independent --profile none --seq_len 672 --input_token_len 24 \
        --block_patches 30 --train_rollout 30 --batch_size 4 --epoch_windows 600 --train_epochs 2 --learning_rate 1e-3
}

for seed in 2021 2022 2023; do
    for data in $PRESENT; do
        dlinear $data $seed
    done
done
if ! cmp -s <(cat requirements.txt requirements-validation.txt) .venv-rivals/requirements.txt; then
    [ -x $RIVALS/pip ] || python -m venv .venv-rivals
    $RIVALS/pip install --disable-pip-version-check \
        -r <(grep -v '^pandas=' requirements.txt) -r requirements-validation.txt
    cat requirements.txt requirements-validation.txt > .venv-rivals/requirements.txt
fi
$RIVALS/python scripts/validation/rivals.py --root_path "$ROOT"
