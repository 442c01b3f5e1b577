"""Messages of Chakra's et_def.proto (github.com/mlcommons/chakra, schema/protobuf), by the numbers of their fields."""

from __future__ import annotations

from typing import Any, Final

REPEATED: Final = True
FIELDS: Final[dict[str, list[tuple[str, int, str, bool]]]] = {
    "AttributeProto": [("name", 1, "string", False), ("int32_val", 7, "int32", False), ("int64_val", 9, "int64", False),
                       ("uint64_val", 13, "uint64", False), ("bool_val", 27, "bool", False),
                       ("string_val", 29, "string", False)],
    "GlobalMetadata": [("version", 1, "string", False), ("attr", 2, "AttributeProto", REPEATED)],
    "Node": [("id", 1, "uint64", False), ("name", 2, "string", False), ("type", 3, "int32", False),
             ("ctrl_deps", 4, "uint64", REPEATED), ("data_deps", 5, "uint64", REPEATED),
             ("start_time_micros", 6, "uint64", False), ("duration_micros", 7, "uint64", False),
             ("attr", 10, "AttributeProto", REPEATED)],
}  # fmt: skip


def messages() -> dict[str, Any]:
    """name -> class, as `protoc` would make it; an enum is its number."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="et_def.proto", package="ChakraProtoMsg", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            plain = kind not in FIELDS
            message.field.add(
                name=field, number=number, label=label,
                type=getattr(kinds, f"TYPE_{kind.upper()}") if plain else kinds.TYPE_MESSAGE,
                type_name=None if plain else f".ChakraProtoMsg.{kind}",
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ChakraProtoMsg.{name}"))
            for name in FIELDS}  # fmt: skip


def read(content: bytes) -> tuple[Any, list[Any]]:
    """(GlobalMetadata, nodes) of a trace: each message behind its length, as Chakra's protolib reads them."""
    from google.protobuf.internal.decoder import _DecodeVarint32

    found: list[Any] = []
    classes, place = messages(), 0
    while place < len(content):
        size, place = _DecodeVarint32(content, place)
        message = classes["Node" if found else "GlobalMetadata"]()
        message.ParseFromString(content[place : place + size])
        found.append(message)
        place += size
    return found[0], found[1:]
