"""A complete training implementation for IceCube direction reconstruction.

Ragged pulses -> DOMs -> event -> direction. Knows nothing of the diagnostics around it and can be
used without them. One part, one file; the order of the flow:

`dataset` -> `collate` -> `normalize` -> `relative` -> `dom_encoder` -> `geometry` -> `packing` ->
`transformer` -> `heads` -> `losses`; `network` puts them together and `training` trains them.
"""
