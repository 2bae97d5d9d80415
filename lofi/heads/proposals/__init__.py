"""What heads share that score every pair of a start and an end (BMN, G-TAD): `alignment` (features of every proposal),
`targets`, `losses`, `detections`, and `head` (what both do alike around their networks).

A proposal is a cell (d, s) of a map (D, L): it starts at snippet s and ends with snippet s + d, so its segment is
[s, s + d + 1] in snippet index. D is the longest duration, L the number of snippets; no weight depends on either.
"""
