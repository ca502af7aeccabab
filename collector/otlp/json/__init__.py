"""OTLP/JSON to protobuf, in one compiled pass: `request.to_protobuf`.

The mapping is proto3's JSON mapping with OTLP's exceptions (opentelemetry-proto, "JSON Protobuf Encoding"):

* traceId, spanId and parentSpanId are hexadecimal, in any case; other bytes are base64, standard or URL-safe,
  padded or not;
* enums are numbers; a name is refused, with a message that says so;
* keys are lowerCamelCase; every other key, a snake_case one too, is an unknown field, and those are ignored,
  whatever their value;
* integers may be numbers or decimal strings, floating-point numbers also "NaN", "Infinity" and "-Infinity";
* null is an absent field, but no element of an array;
* two fields of one `oneof` are refused; of two equal keys in one object the last counts.

Text that is no JSON, a lone surrogate, a number out of its field's range and messages nested deeper than
protobuf's limit are refused too. A message says where: `resourceSpans[0].scopeSpans[0].spans[3].traceId: …`, or
the byte at which the text is no JSON.

From the ground up: `number.py` and `binary.py` read numbers, hexadecimal and base64; `text.py` strings and
values; `fields.py` says what a key means; `scalar.py` and `message.py` write protobuf; `request.py` is the
way in, and puts into words what was wrong.

Cost: 0.28 µs a span of 400 B of protobuf and 850 B of JSON (0.8 µs when the JSON is indented), 0.19 µs a log
record, 0.24 µs a data point, 0.5 µs for a request. Reading the span's text with msgspec takes 2.6 µs, before
anything is written. No text costs more than linear time: the slowest known one, doubles of 300 digits, takes 40 ns a
byte. Packed numbers may become four times as long as their text, everything else hardly longer.
"""
