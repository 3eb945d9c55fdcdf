"""Long work over a data set that survives a kill: what surveys and evaluations share.

`plan` says how a run goes, `work` opens model and data, `run` takes batch after batch (`batches`) and shows how far it
is (`progress`); `folder` finds what earlier calls have left, of which `identity` tells whether it is of the same run;
`processes` is what several processes do together, and how they are stopped.
"""
