"""SkyRL 0.3.0 says it runs on Python 3.11, but its types need `TypedDict` as it is from 3.12 on."""

import typing

import typing_extensions

typing.TypedDict = typing_extensions.TypedDict
