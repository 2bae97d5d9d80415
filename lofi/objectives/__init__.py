"""Objectives: what is minimised. Each names its own options and the module that the engine trains; the table of them is
`config.objectives.OBJECTIVES`."""
