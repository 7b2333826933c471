"""What a member of the board, its secretary and its witness do: the use cases behind `pht-board`."""
