"""What tests with several processes share."""

import socket

import pytest


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]
