// The OpenTelemetry SDK for Node as an application uses it, sending all three signals to a Ringtail under test.
//
//     node send.mjs PROTOCOL ENDPOINT SERVICE [gzip]
//
// PROTOCOL is http/json, http/protobuf or grpc; ENDPOINT is http://HOST:PORT. It prints one line of JSON that says
// what was sent: the records as the SDK's processors and readers saw them, with values typed as OTLP types them
// ({"intValue": "7"}), times in nanoseconds and ids in hexadecimal. It fails when the SDK reports any error.

import { diag, DiagLogLevel, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace, ValueType } from '@opentelemetry/api';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { OTLPLogExporter as GrpcLogs } from '@opentelemetry/exporter-logs-otlp-grpc';
import { OTLPLogExporter as JsonLogs } from '@opentelemetry/exporter-logs-otlp-http';
import { OTLPLogExporter as ProtobufLogs } from '@opentelemetry/exporter-logs-otlp-proto';
import { OTLPMetricExporter as GrpcMetrics } from '@opentelemetry/exporter-metrics-otlp-grpc';
import { OTLPMetricExporter as JsonMetrics } from '@opentelemetry/exporter-metrics-otlp-http';
import { OTLPMetricExporter as ProtobufMetrics } from '@opentelemetry/exporter-metrics-otlp-proto';
import { OTLPTraceExporter as GrpcTraces } from '@opentelemetry/exporter-trace-otlp-grpc';
import { OTLPTraceExporter as JsonTraces } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtobufTraces } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, InMemoryLogRecordExporter, LoggerProvider, SimpleLogRecordProcessor } from '@opentelemetry/sdk-logs';
import { AggregationTemporality, AggregationType, DataPointType, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
import { BatchSpanProcessor, InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';

const EXPORTERS = {
  'http/json': [JsonTraces, JsonLogs, JsonMetrics],
  'http/protobuf': [ProtobufTraces, ProtobufLogs, ProtobufMetrics],
  grpc: [GrpcTraces, GrpcLogs, GrpcMetrics],
};
const PATHS = ['/v1/traces', '/v1/logs', '/v1/metrics'];

const [protocol, endpoint, service, compression = 'none'] = process.argv.slice(2);
const [spanExporter, logExporter, metricExporter] = EXPORTERS[protocol].map(
  (Exporter, i) => new Exporter({ url: protocol === 'grpc' ? endpoint : endpoint + PATHS[i], compression }),
);

const failures = [];
const note = (...words) => failures.push(words.map(String).join(' '));
diag.setLogger({ error: note, warn: note, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

const SCOPE = { name: 'ringtail.e2e.node', version: '1.2.3', schemaUrl: 'https://example.com/schemas/1.0' };
const resource = resourceFromAttributes({
  'service.name': service,
  'service.namespace': 'e2e',
  'service.instance.id': 'node-1',
  'host.cpus': 2,
  'deployment.canary': true,
});

// --- traces -------------------------------------------------------------------------------------------------

const spansSeen = new InMemorySpanExporter();
const tracerProvider = new TracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor({ exporter: spanExporter }), new SimpleSpanProcessor({ exporter: spansSeen })],
});
const tracer = tracerProvider.getTracer(SCOPE.name, SCOPE.version, { schemaUrl: SCOPE.schemaUrl });

const ATTRIBUTES = {
  text: 'Grüße, 世界 "quoted" \\ back\nslash',
  empty: '',
  int: 42,
  'int.negative': -7,
  'int.large': 2 ** 40 + 1,
  'int.safe': Number.MAX_SAFE_INTEGER,
  double: 2.5,
  'double.small': 1e-9,
  'bool.true': true,
  'bool.false': false,
  'array.text': ['a', 'b', ''],
  'array.int': [1, 2, 3],
  'array.double': [0.5, 1.5],
  'array.bool': [true, false],
};

const root = tracer.startSpan('GET /checkout/{id}', { kind: SpanKind.SERVER, attributes: ATTRIBUTES });
const inRoot = trace.setSpan(ROOT_CONTEXT, root);
root.addEvent('cache.miss', { key: 'user:7', attempts: 2, ratio: 0.25, tags: ['x', 'y'] });
root.addEvent('without attributes');

const linked = tracer.startSpan('consume', { kind: SpanKind.CONSUMER, links: [
  { context: root.spanContext(), attributes: { 'messaging.batch': 3, reason: 'batch' } },
] }, ROOT_CONTEXT);
linked.setStatus({ code: SpanStatusCode.OK });
linked.end();

const failing = tracer.startSpan('SELECT orders', { kind: SpanKind.CLIENT, attributes: { 'db.system': 'postgresql' } }, inRoot);
failing.recordException(new Error('connection reset by peer'));
failing.setStatus({ code: SpanStatusCode.ERROR, message: 'the database hung up' });
failing.end();

for (let i = 0; i < 5; i++) {
  tracer.startSpan(`step ${i}`, { kind: i % 2 ? SpanKind.PRODUCER : SpanKind.INTERNAL, attributes: { i } }, inRoot).end();
}

// --- logs ---------------------------------------------------------------------------------------------------

const logsSeen = new InMemoryLogRecordExporter();
const loggerProvider = new LoggerProvider({
  resource,
  processors: [
    new BatchLogRecordProcessor({ exporter: logExporter }),
    new SimpleLogRecordProcessor({ exporter: logsSeen }),
  ],
});
const logger = loggerProvider.getLogger(SCOPE.name, SCOPE.version, { schemaUrl: SCOPE.schemaUrl });
const SEVERITIES = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
for (const severityText of SEVERITIES) {
  logger.emit({
    severityNumber: SeverityNumber[severityText],
    severityText,
    body: `${severityText} of order 17`,
    attributes: { ...ATTRIBUTES, 'order.id': 17, nested: { depth: { leaf: 1 } } },
    context: inRoot,
  });
}
logger.emit({ body: { message: 'a body that is a map', count: 2, parts: [1, 'two', 3.5] }, attributes: {} });
logger.emit({ body: 'an event, outside of any trace', eventName: 'order.placed', severityNumber: SeverityNumber.INFO2 });
root.end();

// --- metrics ------------------------------------------------------------------------------------------------

// The exporter, with a note of what the reader gave it.
const metricsSeen = [];
const noting = {
  export(metrics, done) {
    metricsSeen.push(metrics);
    metricExporter.export(metrics, done);
  },
  selectAggregation: (instrument) => metricExporter.selectAggregation(instrument),
  selectAggregationTemporality: (instrument) => metricExporter.selectAggregationTemporality(instrument),
  forceFlush: () => metricExporter.forceFlush(),
  shutdown: () => metricExporter.shutdown(),
};
const meterProvider = new MeterProvider({
  resource,
  readers: [new PeriodicExportingMetricReader({ exporter: noting, exportIntervalMillis: 3_600_000 })],
  views: [{ instrumentName: 'rpc.size', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
});
const meter = meterProvider.getMeter(SCOPE.name, SCOPE.version, { schemaUrl: SCOPE.schemaUrl });

const requests = meter.createCounter('http.requests', { description: 'Requests served.', valueType: ValueType.INT });
requests.add(3, { 'http.route': '/checkout', 'http.status_code': 200 });
requests.add(1, { 'http.route': '/checkout', 'http.status_code': 500 });
requests.add(4, { 'http.route': '/checkout', 'http.status_code': 200 });
const energy = meter.createCounter('energy', { unit: 'J', description: 'Energy used.' });
energy.add(0.5, { zone: 'a' });
const open = meter.createUpDownCounter('connections.open', { unit: '{connection}', valueType: ValueType.INT });
open.add(5, { pool: 'main' });
open.add(-7, { pool: 'main' });
const temperature = meter.createGauge('temperature', { unit: 'Cel', description: 'Of the room.' });
temperature.record(21.75, { room: 'kitchen', heated: true });
const latency = meter.createHistogram('http.latency', { unit: 's', advice: { explicitBucketBoundaries: [1, 10, 100] } });
for (const value of [0.5, 5, 7, 50, 500]) latency.record(value, { 'http.route': '/checkout' });
const size = meter.createHistogram('rpc.size', { unit: 'By' });
for (const value of [0, 1, 2, 4, 1000, 1e6]) size.record(value, { method: 'Get' });
meter.createObservableGauge('queue.length', { valueType: ValueType.INT }).addCallback((result) => result.observe(12, { queue: 'q1' }));

// --- send, and say what was sent ------------------------------------------------------------------------------

await tracerProvider.forceFlush();
await loggerProvider.forceFlush();
await meterProvider.shutdown(); // collects and exports, once

const nanoseconds = ([seconds, rest]) => String(BigInt(seconds) * 1_000_000_000n + BigInt(rest));

function anyValue(value) {
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number') return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  if (Array.isArray(value)) return { arrayValue: { values: value.map(anyValue) } };
  return { kvlistValue: { values: Object.entries(value).map(([key, inner]) => ({ key, value: anyValue(inner) })) } };
}
const attributes = (some) => Object.fromEntries(Object.entries(some ?? {}).map(([key, value]) => [key, anyValue(value)]));

const spans = spansSeen.getFinishedSpans().map((span) => ({
  traceId: span.spanContext().traceId,
  spanId: span.spanContext().spanId,
  parentSpanId: span.parentSpanContext?.spanId ?? '',
  name: span.name,
  kind: span.kind + 1, // the API's enumeration has no UNSPECIFIED
  startTimeUnixNano: nanoseconds(span.startTime),
  endTimeUnixNano: nanoseconds(span.endTime),
  attributes: attributes(span.attributes),
  events: span.events.map((event) => ({
    name: event.name, timeUnixNano: nanoseconds(event.time), attributes: attributes(event.attributes),
  })),
  links: span.links.map((link) => ({
    traceId: link.context.traceId, spanId: link.context.spanId, attributes: attributes(link.attributes),
  })),
  status: { code: span.status.code, message: span.status.message ?? '' },
}));

const logs = logsSeen.getFinishedLogRecords().map((log) => ({
  timeUnixNano: nanoseconds(log.hrTime),
  observedTimeUnixNano: nanoseconds(log.hrTimeObserved),
  severityNumber: log.severityNumber ?? 0,
  severityText: log.severityText ?? '',
  body: anyValue(log.body),
  attributes: attributes(log.attributes),
  traceId: log.spanContext?.traceId ?? '',
  spanId: log.spanContext?.spanId ?? '',
  flags: log.spanContext?.traceFlags ?? 0,
  eventName: log.eventName ?? '',
}));

const KINDS = {
  [DataPointType.GAUGE]: 'gauge',
  [DataPointType.SUM]: 'sum',
  [DataPointType.HISTOGRAM]: 'histogram',
  [DataPointType.EXPONENTIAL_HISTOGRAM]: 'exponentialHistogram',
};
function point(metric, { attributes: labels, startTime, endTime, value }) {
  const common = {
    attributes: attributes(labels), startTimeUnixNano: nanoseconds(startTime), timeUnixNano: nanoseconds(endTime),
  };
  if (typeof value === 'number') {
    return { ...common, ...(metric.descriptor.valueType === ValueType.INT ? { asInt: String(value) } : { asDouble: value }) };
  }
  const { count, sum, min, max } = value;
  if ('buckets' in value) {
    const { boundaries, counts } = value.buckets;
    return { ...common, count: String(count), sum, min, max, explicitBounds: boundaries, bucketCounts: counts.map(String) };
  }
  const side = ({ offset, bucketCounts }) => ({ offset, bucketCounts: bucketCounts.map(String) });
  return {
    ...common, count: String(count), sum, min, max, scale: value.scale, zeroCount: String(value.zeroCount),
    positive: side(value.positive), negative: side(value.negative),
  };
}
const metrics = metricsSeen.flatMap((one) => one.scopeMetrics).flatMap((one) => one.metrics).map((metric) => ({
  name: metric.descriptor.name,
  description: metric.descriptor.description,
  unit: metric.descriptor.unit,
  type: KINDS[metric.dataPointType],
  monotonic: metric.isMonotonic ?? false,
  cumulative: metric.aggregationTemporality === AggregationTemporality.CUMULATIVE,
  points: metric.dataPoints.map((one) => point(metric, one)),
}));

await tracerProvider.shutdown();
await loggerProvider.shutdown();

if (failures.length) {
  console.error(failures.join('\n'));
  process.exit(1);
}
console.log(JSON.stringify({ resource: attributes(resource.attributes), scope: SCOPE, spans, logs, metrics }));
