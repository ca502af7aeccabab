// The log exporters of the OpenTelemetry SDK for Node, sending numbered records at a steady rate until standard input ends.
//
//     node retry.mjs PROTOCOL ENDPOINT SERVICE
//
// PROTOCOL is http/protobuf or grpc. It prints `ready`, and at the end one line of JSON: how many records were sent, and
// the numbers of those that the exporter called back for as exported. Whatever the exporter does not retry is not sent
// again here.

import { diag, DiagLogLevel } from '@opentelemetry/api';
import { OTLPLogExporter as GrpcLogs } from '@opentelemetry/exporter-logs-otlp-grpc';
import { OTLPLogExporter as ProtobufLogs } from '@opentelemetry/exporter-logs-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { InMemoryLogRecordExporter, LoggerProvider, SimpleLogRecordProcessor } from '@opentelemetry/sdk-logs';

const BATCH = 20;
const INTERVAL_MS = 500;
const SUCCESS = 0; // of ExportResultCode, whose package is no dependency of ours
const [protocol, endpoint, service] = process.argv.slice(2);
diag.setLogger({ error() {}, warn() {}, info() {}, debug() {}, verbose() {} }, DiagLogLevel.NONE);

const exporter = protocol === 'grpc' ? new GrpcLogs({ url: endpoint }) : new ProtobufLogs({ url: `${endpoint}/v1/logs` });
const seen = new InMemoryLogRecordExporter();
const provider = new LoggerProvider({
  resource: resourceFromAttributes({ 'service.name': service }),
  processors: [new SimpleLogRecordProcessor({ exporter: seen })],
});
const logger = provider.getLogger('hostile');
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

let ended = false;
process.stdin.resume();
process.stdin.on('end', () => { ended = true; });
console.log('ready');

const exported = [];
const givenUp = [];
let sent = 0;
while (!ended) {
  const begun = performance.now();
  seen.reset();
  for (let i = 0; i < BATCH; i++) logger.emit({ body: String(sent + i) });
  await pause(0); // the processor exports what has a complete resource a moment later
  const records = [...seen.getFinishedLogRecords()];
  const result = await new Promise((done) => exporter.export(records, done));
  if (result.code === SUCCESS && records.length === BATCH) {
    for (let i = 0; i < BATCH; i++) exported.push(sent + i);
  } else {
    givenUp.push(Math.round(performance.now() - begun) / 1000);
  }
  sent += BATCH;
  await pause(Math.max(0, begun + INTERVAL_MS - performance.now()));
}
await exporter.shutdown();
console.log(JSON.stringify({
  service, sent, exported, given_up_after_s: givenUp,
  records: { logs: exported.length }, unread: { logs: sent - exported.length },
}));
process.exit(0);
