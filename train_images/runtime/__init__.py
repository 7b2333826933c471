"""The runtime inside train images; `pht_runtime` is copied into them as it is."""
