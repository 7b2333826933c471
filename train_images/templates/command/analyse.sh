#!/bin/sh
# Run once per message, in a folder of its own: request/head.json holds the hyperparameters.
# The cohort is in /train/data. What is written to reply/head.json goes to the station's
# guard, which knows train.yaml.
set -eu
data="${PHT_DATA:-/train/data}"

# How many images there are of a training patient, on average: replace it by your own.
figure=$(sed 's/.*"training": *\[//; s/\].*//' "$data/datalist.json" | tr '{' '\n' | awk '
  match($0, /"patient": *"[^"]*"/) { patients[substr($0, RSTART, RLENGTH)] = 1; images++ }
  END { for (patient in patients) count++; if (count) printf "%.4f", images / count }')

if [ -z "$figure" ]; then
  printf '{"error": "NO_IMAGES"}' > reply/head.json
  exit 0
fi
printf '{"metrics": {"images_per_patient": %s}, "rows": {}}' "$figure" > reply/head.json
