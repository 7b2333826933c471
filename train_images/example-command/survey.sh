#!/bin/sh
# One message: are a hospital's radiographs and records fit for a study? Of each training patient how finely the coarsest image is
# sampled, how large the smallest is, and which share of the granted fields is known; one row each, which the station counts.
#
# The request is in request/head.json; what is written to reply/head.json goes to the station's guard. Nothing but a POSIX shell,
# od, sed and awk. Numbers of a NIfTI-1 header are little-endian: dim[1] and dim[2] (int16) at bytes 42 and 44, pixdim[1] and
# pixdim[2] (float32, mm) at 80 and 84 (nifti1.h, NIMH 2003).
set -eu
export LC_ALL=C
data=${PHT_DATA:-/train/data}

# The training patients' images, in the datalist's order, a line each: patient and file.
sed 's/.*"training":\[\([^]]*\)\].*/\1/' "$data/datalist.json" | tr '}' '\n' |
  sed -n 's/.*"image":"\([^"]*\)".*"patient":"\([^"]*\)".*/\2 \1/p' > images
if [ ! -s images ]; then
  printf '{"error": "NO_IMAGES"}' > reply/head.json
  exit 0
fi
while read -r patient image; do
  set -- $(od -An -td2 -j42 -N4 "$data/$image") $(od -An -tf4 -j80 -N8 "$data/$image")
  printf '%s %s %s %s %s\n' "$patient" "$@"
done < images > sizes

awk '
  # clinical.csv: case, patient, and the granted fields; what is not known is empty. No value of a station holds a comma.
  FILENAME != "sizes" {
    if (FNR > 1) { n = split($0, value, ","); of[value[2]] = ""; known = 0
      for (i = 3; i <= n; i++) known += value[i] != ""
      share[value[2]] = n > 2 ? known / (n - 2) : 1 }
    next
  }
  { split($0, size, " "); patient = size[1]
    spacing = size[4] > size[5] ? size[4] : size[5]; millions = size[2] * size[3] / 1000000
    if (!(patient in coarsest)) { order[++patients] = patient; smallest[patient] = millions }
    if (spacing > coarsest[patient]) coarsest[patient] = spacing
    if (millions < smallest[patient]) smallest[patient] = millions }
  END {
    for (i = 1; i <= patients; i++) { p = order[i]; comma = i > 1 ? "," : ""
      a = a comma sprintf("%.6g", coarsest[p]); b = b comma sprintf("%.6g", smallest[p]); c = c comma sprintf("%.6g", share[p])
      whole += share[p] == 1 }
    printf "{\"metrics\": {\"complete_share\": %.6f}, \"rows\": {\"spacing_mm\": [%s], \"megapixels\": [%s], \"known_share\": [%s]}}", whole / patients, a, b, c
  }' "$data/clinical.csv" sizes > reply/head.json
