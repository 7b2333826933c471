"""CT volumes without copies: patches read through a memory map, on any grid, as MONAI transforms and a cache that fits."""
