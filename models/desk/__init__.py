"""The administrators' desk: their verbs, each in one transaction with its row of the trail."""
