"""One test command in a sandbox: run it, find out what its tests did, say whether it passed."""
