"""The build's step for `proto/`: what protoc makes of our .proto files, as descriptors in the package.

`collector/api/query.binpb` is a FileDescriptorSet of `ringtail/v1/query.proto` alone. The program makes its message
classes from it when it needs them (collector/api/messages.py). Generated Python code would do the same at run time, and
would tie the package to the range of protobuf versions that it was generated for; descriptors are for any.

OTLP's files, which ours imports, are in the package opentelemetry-proto as descriptors, too: protoc gets them from there.
setuptools runs this with `build_py` (pyproject.toml), for wheels and for editable installs; by hand it is
`python build_proto.py`, with grpcio-tools and opentelemetry-proto installed.
"""

from __future__ import annotations

import os
import tempfile

from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))
SOURCE = "ringtail/v1/query.proto"
MADE = os.path.join(ROOT, "collector", "api", "query.binpb")


def make() -> None:
    """Write the descriptors, unless they are newer than their source."""
    source = os.path.join(ROOT, "proto", SOURCE)
    if os.path.exists(MADE) and os.path.getmtime(MADE) >= os.path.getmtime(source):
        return
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc
    from opentelemetry.proto.logs.v1 import logs_pb2
    from opentelemetry.proto.metrics.v1 import metrics_pb2
    from opentelemetry.proto.trace.v1 import trace_pb2

    known = FileDescriptorSet()
    seen: set[str] = set()

    def add(file) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for one in file.dependencies:
                add(one)
            file.CopyToProto(known.file.add())

    for one in (logs_pb2, metrics_pb2, trace_pb2):
        add(one.DESCRIPTOR)
    with tempfile.TemporaryDirectory() as directory:
        imports = os.path.join(directory, "otlp.binpb")
        with open(imports, "wb") as file:
            file.write(known.SerializeToString())
        arguments = [f"--descriptor_set_in={imports}", f"--proto_path={ROOT}/proto", f"--descriptor_set_out={MADE}"]
        if protoc.main(["protoc", *arguments, SOURCE]):
            raise RuntimeError(f"protoc has refused {SOURCE}")


class BuildPy(build_py):
    """`build_py`, with the descriptors among the package's data."""

    def run(self) -> None:
        """Make them first."""
        make()
        super().run()


if __name__ == "__main__":
    make()
