#!/usr/bin/env bash
# The whole validation, results/validation, from nothing. Usage: run_all.sh ROOT_PATH (of ETTh1, ETTh2 and exchange_rate)
# Stopped, the same command goes on: trainings resume, and records that are there for the same checkpoints are kept.
[ -d "${1:-}" ] || { echo "usage: run_all.sh ROOT_PATH, the folder of ETT-small/ and exchange_rate/" >&2; exit 2; }
source "$(dirname "$0")/../setup.sh"
ROOT=$1
cat << EOF
about six and a half hours of one core, in this order; stopped, the same command goes on:
  train.sh        targets of five data sets together and their drafts, three seeds    135 minutes
  rivals.sh       seasonal naive, DLinear, AutoTheta, LightGBM                         25 minutes
  validate.py     accuracy, sample paths and speed, five data sets of three targets   150 minutes
  safety.sh       drafts under shift                                                   30 minutes
  ablation.sh     every decision turned off                                            30 minutes
  pretraining.py  does pretraining help a draft                                        15 minutes
where files of ETTm1, ETTm2, Weather, ECL or Traffic are below ROOT_PATH, they are validated, too: hours more
EOF
for part in train rivals; do bash scripts/validation/$part.sh "$ROOT"; done
python scripts/validation/validate.py --root_path "$ROOT"
for part in safety ablation; do bash scripts/validation/$part.sh "$ROOT"; done
python scripts/validation/pretraining.py --root_path "$ROOT"
python scripts/validation/report.py
