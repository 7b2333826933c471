"""The station's local API, spoken by `pht-station` over a Unix socket."""
