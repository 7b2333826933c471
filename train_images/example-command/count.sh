#!/bin/sh
# One message: how much brighter than half is the mean of all training images' last bytes? A toy figure; the point is the form.
# The request is in request/head.json; what is written to reply/head.json goes to the station's guard.
set -eu
images=$(ls "${PHT_DATA:-/train/data}"/images/*.nii | wc -l)
if [ "$images" -eq 0 ]; then
  printf '{"error": "NO_IMAGES"}' > reply/head.json
  exit 0
fi
bytes=$(cat "${PHT_DATA:-/train/data}"/images/*.nii | tail -c 65536 | od -An -v -tu1 | awk '{for (i = 1; i <= NF; i++) s += $i; n += NF} END {printf "%.4f", s / n / 255}')
printf '{"metrics": {"mean_brightness": %s}, "tables": {}}' "$bytes" > reply/head.json
