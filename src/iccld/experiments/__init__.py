"""Several runs, one table: `ablate.ablate` makes the paper's Table 1, `compare.compare` its Table 2."""
