"""What crosses the network: types, a JSON and a protobuf codec, the table of endpoints. No I/O happens here.

Type modules of this room do not postpone the evaluation of their annotations (`from __future__ import
annotations`): the codec resolves the annotations when it builds its hooks.
"""
